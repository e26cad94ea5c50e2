"""`jaxrl reproduce RUN`: check that config and state give the logged numbers again.

The command executes steps of a run again from a stored state and compares every digest.
It writes nothing into the run directory; the run may be in progress.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from jaxrl_surrogate import assembly, settings
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.loop.reexecution import Comparison, reexecute
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.telemetry.environment import environment, environment_difference
from jaxrl_surrogate.telemetry.run_log import read_digests, read_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command; others change fields of the config."""
    parser.epilog = "--section.field=value changes the config, such as --mesh.data=1"
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument(
        "--from",
        dest="start",
        type=int,
        metavar="STEP",
        help="a step whose state is stored; default the newest with a step after it",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="at most; default all that are logged"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Reproduce a run and return the exit status: 0 if all digests agree, else 1.

    Args:
      args: parsed arguments of `jaxrl reproduce`.
      overrides: changes of the config, `--section.field=value`.

    Raises:
      FieldErrors: the directory holds no run, the run logged no digests, or no state is
        stored at the step to start from.
      OtherFormat: another version of this package wrote the run.
    """
    directory = Path(args.run)
    if not (directory / "config.yaml").is_file():
        raise FieldError(
            args.run, problem="has no config.yaml", expected="the directory of a run"
        )
    StateReader(directory).check_format()
    here = f"--run_dir={directory}"  # a run may have been moved
    config = assembly.load_stored(directory, [here, *overrides])
    logged = read_digests(directory)
    start, last = _stretch(directory, logged, args.start, args.steps)

    def say(text):
        if not args.json:
            print(text, flush=True)

    say(f"{directory}: steps {start + 1} to {last} again, from the state of {start}")
    found = reexecute(
        assembly.build_run(config),
        logged,
        start,
        last,
        lambda step, compared: say(f"step {step}: same, {compared} digests so far"),
    )
    step = found.difference.step if found.difference else last
    then = read_environment(directory, step)
    changes = environment_difference(then, environment(assembly.user_code(config)))
    stored = assembly.load_stored(directory, [here])
    changes += settings.difference(stored, config)
    if args.json:
        report = dataclasses.asdict(found)
        report["changes"] = [
            {"name": name, "then": then, "now": now} for name, then, now in changes
        ]
        print(json.dumps(report, indent=2))
    else:
        _print(found, changes)
    return 1 if found.difference else 0


def _stretch(
    directory: Path, logged: dict, start: int | None, steps: int | None
) -> tuple[int, int]:
    """Return the step whose state to start from, and the last step to execute."""
    if not logged:
        raise FieldError(
            str(directory),
            problem="has no digests.jsonl",
            expected="a run that was trained with --log.digests=true",
        )
    newest = max(logged)
    stored = [step for step in StateReader(directory).steps() if step < newest]
    if not stored:
        raise FieldError(
            str(directory),
            problem=f"no state is stored before step {newest}, the newest that is "
            "logged",
            remedy="raise checkpoint.keep_last to keep more of them",
        )
    if start is None:
        start = stored[-1]
    if start not in stored:
        known = ", ".join(map(str, stored))
        expected = f"a step whose state is stored, one of {known}"
        raise FieldError("--from", start, expected)
    if steps is not None and steps < 1:
        raise FieldError("--steps", steps, "at least 1")
    return start, newest if steps is None else min(newest, start + steps)


def _print(found: Comparison, changes: list[tuple[str, object, object]]) -> None:
    if found.difference:
        print(f"DIFFERENT at {found.difference}")
    else:
        print(
            f"same: steps {found.start + 1} to {found.last}, {found.compared} digests"
        )
    for name, then, now in changes:
        print(f"  {name}: {_shown(then)} then, {_shown(now)} now")
    if found.difference and not changes:
        print("  nothing that was recorded of environment and config has changed")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
