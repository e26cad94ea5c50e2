"""`jaxrl train` and `jaxrl sft`: what writes into a run directory."""

import contextlib
import functools
import os

import jax
from rich.console import Console

from jaxrl_surrogate import assembly, terminal
from jaxrl_surrogate.commands import evaluation, replay
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.storage.lock import RunLock
from jaxrl_surrogate.telemetry.run_log import RunLog


def train(config: TrainConfig) -> int:
    """Train, or go on with, the run of a config; returns the exit status.

    Raises:
      FieldErrors: the config, or the run directory, cannot be used.
    """
    run, log, lock = _open(config)
    with lock, log:
        outcome = loop.train(run, log)
    if not hosts.is_first():
        return 0 if outcome.finished else 130
    if outcome.before and outcome.after:
        terminal.print_table(
            log.console, evaluation.comparison(outcome.before, outcome.after)
        )
    if outcome.step:
        for line in replay.store_report(config, run.directory):
            log.note(line)
    if not outcome.finished:
        log.note(f"stopped after step {outcome.step}; `jaxrl train` goes on from there")
        return 130
    log.note(f"finished after step {outcome.step}; run directory {run.directory}")
    return 0


def sft(config: TrainConfig) -> int:
    """Run the warm start alone; returns the exit status.

    Raises:
      FieldErrors: as `train`, or there is no warm start in the config.
    """
    if not config.sft.steps:
        raise FieldError("sft.steps", 0, "at least 1, the warm start is asked")
    run, log, lock = _open(config)
    with lock, log:
        params = loop.starting_state(run, log).params
        if run.eval_problems:
            evaluation.print_scores(
                loop.run_evaluation(run, params, 0).metrics(), log.console
            )
    return 0


def _open(config: TrainConfig):
    """The run of a config, its log, and the lock to hold while either is used."""
    lock = RunLock(assembly.run_directory(config))
    assembly.check_continuation(config)
    with contextlib.ExitStack() as held:
        # Taken before anything in the directory is written, this process's own config
        # included; as late as that, so that a refused config leaves no directory.
        own = functools.cache(lambda: held.enter_context(lock))
        run = assembly.build_run(config, own)
        if not hosts.is_first():
            hosts.wait_for_all("run directory")
            # Their own record, to compare with the first host's; the screen is its.
            place = run.directory / "hosts" / str(jax.process_index())
            quiet = Console(file=held.enter_context(open(os.devnull, "w")))
            log = RunLog(place, config.train.steps, console=quiet)
            return run, log, held.pop_all()
        own()
        changes = assembly.config_changes(config)
        log = RunLog(
            assembly.open_directory(config, changes),
            config.train.steps,
            every=config.log.every,
            sinks=assembly.metric_sinks(config),
            config_changes=changes,
            take_up=functools.partial(assembly.store_config, config),
            user_code=assembly.user_code(config),
        )
        hosts.wait_for_all("run directory")
        return run, log, held.pop_all()
