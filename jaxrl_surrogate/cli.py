"""The `jaxrl` program: parse, build, call."""

import contextlib
import difflib
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

import jaxrl_surrogate
from jaxrl_surrogate import objectives, output, settings, tasks, terminal
from jaxrl_surrogate.commands import samples
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import names_a_field
from jaxrl_surrogate.parallel import enough_host_threads, hosts
from jaxrl_surrogate.rollout import SamplerError
from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.storage.lock import RunLock
from jaxrl_surrogate.storage.stops import (
    DamagedCheckpoint,
    NoRoom,
    NotFinite,
    OtherFormat,
    VerifierError,
    no_room,
    room_in,
)

_USAGE = """\
jaxrl COMMAND CONFIG [--section.field=value ...]

  train   warm start, then reinforcement learning; resumes a run directory
  sft     the warm start alone
  eval    evaluate the newest parameters of a run
  sample  print completions of test prompts by the newest parameters
  plan CONFIG --topology v5e:16x16 [--search]
          memory, time and collectives of a step on a pod, compiled without one
  verify RUN [--from STEP] [--steps N]
          execute steps again from a stored state; names what came out otherwise
  runs DIR [--compare A B]
          the runs in a folder, their state and last numbers; or two, side by side
  objective NAME [--group-size 8 16] [--against SURROGATE]
          what a rule for weights optimises; NAME may be your file.py:function
  objective --replay RUN [--as RULE,RULE]
          what a run really optimised, and what other rules would have made of it

CONFIG is a YAML file, or the directory of a run. `jaxrl train --help` lists all fields.
"""


# What ends a command with one line: nothing in the program has to be mended.
_STOPS = (
    DamagedCheckpoint,
    NoRoom,
    NotFinite,
    OtherFormat,
    SamplerError,
    VerifierError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: done. 2: a mistake in the command or config, said in a line each. 3: what is
    stored is damaged or of another version, there is no room to store more, updates are
    not finite, the sampling server gives no completions, or the verifier no verdicts
    that can be used. 130: stopped by a signal, to be started again. 141: the reader of
    standard output is gone, and so is the use of a report.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    enough_host_threads()
    try:
        # Training goes on without a reader; what is computed is not for the screen.
        with output.closable(go_on=argv[:1] in ([name] for name in _WRITERS)):
            status = _said(argv)
    except Exception as error:
        hosts.leave(1, error)
        raise
    if status not in (0, 130):  # all hosts finish or stop together, but fail alone
        hosts.leave(status)
    return status


def _said(argv: list[str]) -> int:
    """Run a command and say what the user can mend; returns the exit status."""
    try:
        return _dispatch(argv)
    except _STOPS as error:
        print(f"jaxrl: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        if no_room(error) is None:
            raise
        print(f"jaxrl: {error}", file=sys.stderr)
        return 3
    except ValueError as error:
        # Anything else that goes wrong is ours, and its traceback is wanted.
        if not isinstance(error, SettingsError) and not names_a_field(str(error)):
            raise
        print(f"jaxrl: {error}".replace("\n", "\njaxrl: "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrl: stopped; the last checkpoint is intact", file=sys.stderr)
        return 130


def load_config(path: Path, overrides: Sequence[str]) -> TrainConfig:
    """The config of a YAML file or of a run directory.

    Raises:
      SettingsError: a line for everything that is wrong with it.
    """
    if not path.is_dir():
        if not path.exists():
            raise SettingsError(f"{path}: no such file or directory{_near(path)}")
        return settings.load(
            TrainConfig, path, overrides, defaults={"name": path.stem or "run"}
        )
    if not (path / "config.yaml").exists():
        raise SettingsError(
            f"{path}: has no config.yaml; expected a YAML file or the directory of a "
            f"run{_near(path / '*')}"
        )
    # A run may have been moved: it is where it was found.
    from jaxrl_surrogate import assembly

    return assembly.load_stored(path, [f"--run_dir={path}", *overrides])


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if argv[0] == "--version":
        print(f"jaxrl_surrogate {jaxrl_surrogate.__version__}")
        return 0
    command, *rest = argv
    if command not in (*_COMMANDS, *_PROGRAMS):
        near = settings.nearest(command, [*_COMMANDS, *_PROGRAMS])
        raise SettingsError(f"{command}: unknown command; {near}")
    if command in _PROGRAMS:
        return _PROGRAMS[command](rest)
    if "-h" in rest or "--help" in rest:
        print(_help(command))
        return 0
    if not rest or rest[0].startswith("-"):
        raise SettingsError(
            f"jaxrl {command}: expected a CONFIG, a YAML file or the directory of a run"
        )
    wanted, rest = hosts.take(rest)
    config = load_config(Path(rest[0]), rest[1:])
    hosts.start(wanted)
    if command not in _WRITERS:
        return _COMMANDS[command](config)
    from jaxrl_surrogate import assembly

    with room_in(assembly.run_directory(config)):
        return _COMMANDS[command](config)


def _train(config: TrainConfig) -> int:
    from jaxrl_surrogate.commands import replay
    from jaxrl_surrogate.loop import loop

    run, log, lock = _open(config)
    with lock, log:
        outcome = loop.train(run, log)
    if not hosts.is_first():
        return 0 if outcome.finished else 130
    if outcome.before and outcome.after:
        terminal.print_table(log.console, _comparison(outcome.before, outcome.after))
    if outcome.step:
        for line in replay.store_report(config, run.directory):
            log.note(line)
    if not outcome.finished:
        log.note(f"stopped after step {outcome.step}; `jaxrl train` goes on from there")
        return 130
    log.note(f"finished after step {outcome.step}; run directory {run.directory}")
    return 0


def _sft(config: TrainConfig) -> int:
    from jaxrl_surrogate.loop import loop

    if not config.sft.steps:
        raise SettingsError("sft.steps=0: expected at least 1, the warm start is asked")
    run, log, lock = _open(config)
    with lock, log:
        params = loop.starting_state(run, log).params
        if run.eval_problems:
            _print_scores(loop.run_evaluation(run, params, 0).metrics(), log.console)
    return 0


def _eval(config: TrainConfig) -> int:
    console = terminal.console()
    found = _evaluated(config, console)
    _print_scores(found.scores(), console)
    for line in samples.without_verdict(found):
        console.print(line, highlight=False, markup=False)
    return 0


def _sample(config: TrainConfig) -> int:
    console = terminal.console()
    found = _evaluated(config, console)
    for line in samples.lines(found):
        console.print(line, highlight=False, markup=False)
    return 0


_COMMANDS = {"train": _train, "sft": _sft, "eval": _eval, "sample": _sample}
_WRITERS = ("train", "sft")  # of what a run directory holds


def _objective(argv: list[str]) -> int:
    from jaxrl_surrogate.commands import analyse, replay

    of_a_run = any(word.split("=")[0] == "--replay" for word in argv)
    if of_a_run and {"-h", "--help"} & {*argv}:
        argv = ["--help"]  # --replay would take it for its value
    return (replay if of_a_run else analyse).main(argv)


def _plan(argv: list[str]) -> int:
    from jaxrl_surrogate.commands import plan

    return plan.main(argv)


def _verify(argv: list[str]) -> int:
    from jaxrl_surrogate.commands import verify

    return verify.main(argv)


def _runs(argv: list[str]) -> int:
    from jaxrl_surrogate.commands import runs

    return runs.main(argv)


# Commands that read their own arguments.
_PROGRAMS = {
    "objective": _objective,
    "plan": _plan,
    "runs": _runs,
    "verify": _verify,
}


def _open(config: TrainConfig):
    """The run of a config, its log, and the lock to hold while either is used."""
    from jaxrl_surrogate import assembly
    from jaxrl_surrogate.telemetry.run_log import RunLog

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


def _evaluated(config: TrainConfig, console: Console):
    """What the newest parameters of a run do; changes nothing on disk."""
    from jaxrl_surrogate import assembly
    from jaxrl_surrogate.loop import loop

    if not config.eval.prompts:
        raise SettingsError("eval.prompts=0: expected at least 1 to evaluate on")
    directory = assembly.check_directory(config)
    if not (directory / "checkpoints").is_dir():
        raise SettingsError(
            f"run_dir={str(directory)!r}: holds no checkpoint; expected a run that was "
            "started with `jaxrl train` or `jaxrl sft`"
        )
    run = assembly.build_run(config)

    def warn(what):
        console.print(f"warning: {what}", highlight=False, markup=False)

    if not run.eval_problems:
        raise SettingsError(
            f"eval.prompts={config.eval.prompts}: the task has no test problem to "
            "evaluate on"
        )
    for note in assembly.few_problems(config.eval.prompts, len(run.eval_problems)):
        console.print(note, highlight=False)
    params, step = loop.newest_params(run, warn)
    console.print(f"parameters after step {step}", highlight=False)
    return loop.run_evaluation(run, params, step)


def _help(command: str) -> str:
    lines = [f"jaxrl {command} CONFIG [--section.field=value ...]", ""]
    lines += [settings.help_text(TrainConfig), ""]
    for name in tasks.names():
        lines.append(f"  --task.name={name}")
        for option, (default, text) in tasks.task_options(name).items():
            lines.append(f"    --task.options.{option}={default!r}  {text}")
    lines.append(f"  --objective.name: {', '.join(objectives.advantages.names())}")
    lines.append(f"    or a surrogate: {', '.join(objectives.surrogates.names())}")
    return "\n".join(lines)


def _near(path: Path) -> str:
    """Configs that may be meant: beside the path and in configs/."""
    places = dict.fromkeys((path.parent, Path("configs")))
    configs = [str(file) for place in places for file in sorted(place.glob("*.yaml"))]
    stems = {Path(file).stem: file for file in reversed(configs)}
    near = difflib.get_close_matches(path.stem, stems, n=3)
    if near:
        return f"; did you mean {' or '.join(stems[stem] for stem in near)}?"
    return f"; configs here: {', '.join(configs)}" if configs else ""


def _comparison(before: dict[str, float], after: dict[str, float]) -> Table:
    """Evaluation before and after, with intervals."""
    # A run may have been continued with other test problems.
    counts = [row.get("eval/problems") for row in (before, after)]
    shown = dict.fromkeys(f"{count:.0f}" for count in counts if count is not None)
    heading = f"{', then '.join(shown)} test problems"
    table = terminal.table(heading, "before RL", "after RL", "change")
    for name in before:
        if name.endswith(("_low", "_high", "/problems")) or name not in after:
            continue
        table.add_row(
            name.removeprefix("eval/"),
            _interval(before, name),
            _interval(after, name),
            f"{after[name] - before[name]:+.3f}",
        )
    return table


def _interval(scores: dict[str, float], name: str) -> str:
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    shown = f"{scores[name]:.3f}"
    return shown if low is None else f"{shown} [{low:.3f}, {high:.3f}]"


def _print_scores(scores: dict[str, float], console: Console) -> None:
    console.print(f"{scores['eval/problems']:.0f} test problems", highlight=False)
    for name in scores:
        if not name.endswith(("_low", "_high", "/problems")):
            console.print(
                f"{name.removeprefix('eval/'):<8} {_interval(scores, name)}",
                highlight=False,
                markup=False,
            )
