"""`jaxrl runs DIR`: list the runs in a folder with their state, or compare two."""

import argparse
import contextlib
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxrl_surrogate import assembly, settings, terminal
from jaxrl_surrogate.commands.replay import finite
from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.storage.lock import holder
from jaxrl_surrogate.telemetry.run_log import read_metrics, read_warm_start

_SHOWN = ("reward", "pass@1", "loss", "seconds")
_CURVES = ("reward", "eval/pass@1", "loss", "grad_norm", "entropy", "length")
_POINTS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of runs")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="two runs in it, by name"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(
    args: argparse.Namespace, overrides: Sequence[str], console: Console | None = None
) -> int:
    """Print the table or the comparison and return the exit status.

    Raises:
      FieldError: there is no such folder, or a name to compare is no run.
    """
    if not args.folder.is_dir():
        raise FieldError(str(args.folder), problem="no such folder")
    if args.compare:
        report = compare(*(_run(args.folder, name) for name in args.compare))
    else:
        report = [describe(path) for path in find(args.folder)]
    if args.json:
        print(json.dumps(finite(report), indent=2))
        return 0
    console = console or terminal.console()
    if args.compare:
        _show_comparison(report, args.compare, console)
    else:
        _show(report, args.folder, console)
    return 0


def find(folder: Path) -> list[Path]:
    """Return the sorted run directories in a folder, at any depth or the folder itself.

    A directory with a config.yaml counts as a run.
    """
    return sorted(path.parent for path in folder.rglob("config.yaml"))


def describe(directory: Path) -> dict[str, Any]:
    """Return the state and the newest metrics of a run.

    "state" is "running" while a process holds the run's lock, "finished" after the last
    step, "not started" if nothing was computed, "unreadable" if files cannot be read or
    the config is of another version, and else "stopped". "warm_start" is the number of
    warm-start steps done.
    """
    found: dict[str, Any] = {"run": str(directory)}
    try:
        return found | _described(directory)
    except (ValueError, OSError) as error:  # the other runs are listed all the same
        return found | {"state": "unreadable", "why": str(error).splitlines()[0]}


def _described(directory: Path) -> dict[str, Any]:
    config = assembly.load_stored(directory)
    rows, warm = read_metrics(directory), read_warm_start(directory)
    last = rows[-1] if rows else {}
    step, steps = last.get("step", 0), config.train.steps
    held = holder(directory)
    state = "finished" if step >= steps else "stopped"
    if held:
        state = "running"
    elif not rows and not warm:
        state = "not started"
    return {
        "state": state,
        "held_by": held,
        "step": step,
        "steps": steps,
        "warm_start": warm[-1]["step"] if warm else 0,
        "warm_start_steps": config.sft.steps,
        "objective": config.objective.name,
        "objective_label": config.objective.label(),
        "seed": config.seed,
        "written": _written(directory).isoformat(" ", "seconds"),
        "metrics": {name: last[name] for name in _SHOWN if name in last},
        "evaluation": _last_evaluation(rows),
    }


def _written(directory: Path) -> datetime.datetime:
    """Return when a file of a run was last written."""
    times = []
    for path in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary one, just renamed
            times.append(path.stat().st_mtime)
    return datetime.datetime.fromtimestamp(max(times))


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Return the config fields that differ between two runs, and metrics of both.

    The metrics are those of a few steps that both runs have logged.
    """
    configs = [assembly.load_stored(run) for run in (one, other)]
    changes = [
        {"name": name, "values": [old, new]}
        for name, old, new in settings.difference(*configs)
        if name not in ("run_dir", "name")
    ]
    logs = [{row["step"]: row for row in read_metrics(run)} for run in (one, other)]
    steps = _spread(sorted(logs[0].keys() & logs[1].keys()))
    curves = {
        name: [[log[step].get(name) for step in steps] for log in logs]
        for name in _CURVES
        if any(name in row for log in logs for row in log.values())
    }
    return {"config": changes, "steps": steps, "metrics": curves}


def _run(folder: Path, name: str) -> Path:
    for path in (folder / name, Path(name)):
        if (path / "config.yaml").is_file():
            return path
    runs = [str(path.relative_to(folder)) for path in find(folder)]
    raise unknown("--compare", name, runs, "run")


def _last_evaluation(rows: list[dict]) -> dict[str, float]:
    for row in reversed(rows):
        found = {
            name.removeprefix("eval/"): value
            for name, value in row.items()
            if name.startswith("eval/") and not name.endswith(("_low", "_high"))
        }
        if found:
            return {"step": row["step"]} | found
    return {}


def _spread(steps: list[int]) -> list[int]:
    """Return at most `_POINTS` evenly spread steps, the first and last included."""
    if len(steps) <= _POINTS:
        return steps
    last = len(steps) - 1
    return [steps[round(i * last / (_POINTS - 1))] for i in range(_POINTS)]


def _show(report: list[dict], folder: Path, console: Console) -> None:
    if not report:
        console.print(f"{folder}: holds no run", highlight=False)
        return
    table = terminal.table(
        "run", "state", "step", "objective", "seed", "reward", "pass@1", "written"
    )
    for row in report:
        path = Path(row["run"])
        name = path.name if path == folder else str(path.relative_to(folder))
        if row["state"] == "unreadable":
            table.add_row(name, "unreadable")
            console.print(f"{name}: {row['why']}", highlight=False, markup=False)
            continue
        held = row["held_by"]
        table.add_row(
            name,
            f"{row['state']}, {held}" if held else row["state"],
            _progress(row),
            row["objective_label"],
            str(row["seed"]),
            _number(row["metrics"].get("reward")),
            _number(row["evaluation"].get("pass@1")),
            row["written"][len("2000-") : len("2000-01-01 00:00")],
        )
    terminal.print_table(console, table)


def _progress(row: dict) -> str:
    done, of = row["warm_start"], row["warm_start_steps"]
    if not row["step"] and done < of:
        return f"warm start {done}/{of}"
    return f"{row['step']}/{row['steps']}"


def _show_comparison(report: dict, names: list[str], console: Console) -> None:
    table = terminal.table("config", *names)
    for change in report["config"]:
        table.add_row(change["name"], *map(str, change["values"]))
    if report["config"]:
        terminal.print_table(console, table)
    else:
        console.print("the configs are the same")
    if not report["steps"]:
        console.print("there is no step that both have logged")
        return
    table = terminal.table(
        "metric", "run", *(f"step {step}" for step in report["steps"])
    )
    for metric, curves in report["metrics"].items():
        for name, values in zip(names, curves, strict=True):
            table.add_row(metric, name, *map(_number, values))
    terminal.print_table(console, table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
