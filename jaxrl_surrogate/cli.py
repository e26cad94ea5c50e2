"""The `jaxrl` program: parse, build, call."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from jaxrl_surrogate import objectives, settings, tasks
from jaxrl_surrogate.config import TrainConfig

_USAGE = """\
jaxrl COMMAND CONFIG [--section.field=value ...]

  train   warm start, then reinforcement learning; resumes a run directory
  sft     the warm start alone
  eval    evaluate the newest parameters of a run
  sample  print completions of test prompts by the newest parameters

CONFIG is a YAML file, or the directory of a run. `jaxrl train --help` lists all fields.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: done. 2: a mistake in the command or config, said in a line each. 130: stopped by
    a signal, to be started again.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="jaxrl", add_help=False, usage=_USAGE)
    parser.add_argument("command", choices=_COMMANDS, nargs="?")
    parser.add_argument("config", nargs="?")
    parser.add_argument("-h", "--help", action="store_true")
    options, overrides = parser.parse_known_args(arguments)
    if options.help or options.command is None:
        print(_USAGE if options.command is None else _help(options.command))
        return 0
    try:
        if options.config is None:
            raise settings.SettingsError(f"jaxrl {options.command}: expected a CONFIG")
        config = load_config(Path(options.config), overrides)
        return _COMMANDS[options.command](config)
    except ValueError as error:
        print(f"jaxrl: {error}".replace("\n", "\njaxrl: "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrl: stopped; the last checkpoint is intact", file=sys.stderr)
        return 130


def load_config(path: Path, overrides: Sequence[str]) -> TrainConfig:
    """The config of a YAML file or of a run directory; the file's name is the run's."""
    directory = path if path.is_dir() else None
    if directory is not None:
        overrides = [f"--run_dir={directory}", *overrides]
        path = directory / "config.yaml"
    elif not any(override.startswith("--name=") for override in overrides):
        overrides = [f"--name={path.stem}", *overrides]
    return settings.load(TrainConfig, path, overrides)


def _train(config: TrainConfig) -> int:
    from jaxrl_surrogate.training import loop

    run, log = _open(config)
    with log:
        outcome = loop.train(run, log)
    if outcome.before and outcome.after:
        log.console.print(_comparison(outcome.before, outcome.after))
    if not outcome.finished:
        log.note(f"stopped after step {outcome.step}; `jaxrl train` goes on from there")
        return 130
    log.note(f"finished after step {outcome.step}; run directory {run.directory}")
    return 0


def _sft(config: TrainConfig) -> int:
    from jaxrl_surrogate.training import loop

    run, log = _open(config)
    with log:
        state = loop.starting_state(run, log)
        _print_evaluation(loop.run_evaluation(run, state.params), log)
    return 0


def _eval(config: TrainConfig) -> int:
    from jaxrl_surrogate.training import loop

    run, log = _open(config)
    state, step = loop.newest_state(run)
    log.note(f"parameters after step {step}")
    _print_evaluation(loop.run_evaluation(run, state.params), log)
    return 0


def _sample(config: TrainConfig) -> int:
    from jaxrl_surrogate.training import loop

    run, log = _open(config)
    state, _ = loop.newest_state(run)
    found = loop.run_evaluation(run, state.params)
    for problem, texts in zip(found.problems[:8], found.texts[:8], strict=True):
        log.note(f"{problem.prompt!r}")
        for text in texts:
            reward = run.collector.task.verify(problem, text).reward
            log.note(f"  {reward:g}  {text!r}")
    return 0


_COMMANDS = {"train": _train, "sft": _sft, "eval": _eval, "sample": _sample}


def _open(config: TrainConfig):
    """The run of a config and its log."""
    from jaxrl_surrogate import build
    from jaxrl_surrogate.training.run_log import RunLog

    run = build.build_run(config)
    directory = build.open_directory(config)
    return run, RunLog(
        directory,
        config.train.steps,
        every=config.log.every,
        tensorboard=config.log.tensorboard,
    )


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


def _comparison(before: dict[str, float], after: dict[str, float]) -> Table:
    """Evaluation before and after, with intervals."""
    table = Table("test problems", "before RL", "after RL", "change")
    for name in before:
        if name.endswith(("_low", "_high")):
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


def _print_evaluation(evaluation, log) -> None:
    scores = evaluation.metrics()
    for name in scores:
        if not name.endswith(("_low", "_high")):
            log.note(f"{name.removeprefix('eval/'):<8} {_interval(scores, name)}")
