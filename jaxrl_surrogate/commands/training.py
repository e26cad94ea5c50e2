"""`jaxrl train` and `jaxrl sft`: the commands that write into a run directory."""

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
    """Start or resume the run of a config and return the exit status.

    The status is 0 when the run is finished, and 130 when it was stopped before.

    Raises:
      FieldErrors: the config or the run directory cannot be used.
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
    """Run only the warm start, supervised fine-tuning, and return the exit status.

    Raises:
      FieldErrors: as `train`, or `sft.steps` is 0.
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
    """Return the run of a config, its log, and the lock to hold while they are used."""
    lock = RunLock(assembly.run_directory(config))
    assembly.check_continuation(config)
    with contextlib.ExitStack() as held:
        # The lock is acquired just before the first write to the directory, and not
        # earlier, so that a refused config leaves no directory behind.
        own = functools.cache(lambda: held.enter_context(lock))
        run = assembly.build_run(config, own)
        if not hosts.is_first():
            hosts.wait_for_all("run directory")
            # Other hosts log to their own folder, to compare; only the first prints.
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
