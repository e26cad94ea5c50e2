"""`jaxrl objective --replay RUN`: the objective that a run ascended.

The report also tells what other rules would have made of the run's groups.
"""

import argparse
import dataclasses
import functools
import json
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxrl_surrogate import assembly, terminal
from jaxrl_surrogate.commands import replay_text as text
from jaxrl_surrogate.commands.rules import rule
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.lab import figures
from jaxrl_surrogate.lab.effective import effective_objective
from jaxrl_surrogate.lab.groups import Groups, read_groups
from jaxrl_surrogate.lab.ledger import ledger, trends, warnings
from jaxrl_surrogate.lab.replay import replay
from jaxrl_surrogate.objectives import WeightTable, mixed_only
from jaxrl_surrogate.telemetry.run_log import read_events, read_metrics

_RATES = np.array([0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98])


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments of a report to a parser."""
    parser.add_argument("--replay", metavar="RUN", help="run directory")
    parser.add_argument(
        "--as",
        dest="rules",
        default="",
        help="other rules by commas, parameters after colons: maxrl,pass_at_k:k=8",
    )
    parser.add_argument("--from-step", type=int, default=1, help="first step counted")


def run(args: argparse.Namespace, console: Console | None = None) -> int:
    """Print the report of a run and return the exit status.

    Args:
      args: parsed arguments of `jaxrl objective`.
      console: where text is printed; None: standard output.

    Raises:
      FieldErrors: the directory holds no run, or as `report_of`.
      ValueError: as `report_of`.
    """
    directory = Path(args.replay)
    if not (directory / "config.yaml").is_file():
        raise FieldError(
            "--replay",
            args.replay,
            "the directory of a run",
            problem="has no config.yaml",
        )
    if args.figure:
        check_figure(args.figure)
    config = assembly.load_stored(directory)
    report = report_of(config, directory, args.rules.split(","), args.from_step)
    if args.figure and report["effective"] is None:
        problem = "all groups were all incorrect or all correct"
        raise FieldError("--figure", problem=problem)
    if args.figure:
        figures.draw(_panels(report["effective"]), args.figure)
    if args.json:
        print(json.dumps(finite(report), indent=2))
        return 0
    text.show(report, config.objective.label(), console or terminal.console())
    return 0


def report_of(
    config: TrainConfig, directory: Path, rules: Sequence[str] = (), from_step: int = 1
) -> dict:
    """Return `make_report` of a run directory.

    Args:
      config: stored config of the run.
      directory: run directory.
      rules: names of other rules to compare with, as in `--as`; "" is skipped.
      from_step: first step whose groups count.

    Raises:
      FieldErrors: a rule is unknown, the run has graded rewards, or no group from
        `from_step` on kept all its samples.
      ValueError: the run has no step.
    """
    if config.objective.rewards != "binary":
        raise FieldError(
            "objective.rewards",
            config.objective.rewards,
            "binary",
            "a report is made from counts of correct answers, which say too little of "
            "graded ones",
        )
    rows = [row for row in read_metrics(directory) if row["step"] >= from_step]
    graded = max((row.get("graded", 0) for row in rows), default=0)
    if config.objective.kind == "function" and graded > 0:
        raise FieldError(
            "objective.kind",
            "function",
            problem=f"up to {graded:.0%} of a step's rewards are neither 0 nor 1, and "
            "a report is made from counts of correct answers, which say too little of "
            "graded ones",
        )
    groups = read_groups(directory, config.rollout.group_size)
    last = groups.step.max()
    groups = groups.where(groups.step >= from_step)
    if not len(groups):
        expected = f"at most {last}, the run's last step"
        raise FieldError("--from-step", from_step, expected)
    if not len(groups.whole):
        raise FieldError(
            str(directory),
            problem=f"from step {from_step} on no group kept all its "
            f"{groups.group_size} samples, and a report is made from those that did",
            remedy="a sample is lost where the verifier gives no verdict, or where "
            "train.overlong=mask drops it",
        )
    nominal = _nominal(config, groups)
    others = {name: _table(name, nominal.group_size) for name in rules if name}
    mixed = config.train.dynamic_sampling_rounds > 0
    if mixed:
        others = {name: mixed_only(table) for name, table in others.items()}
    report = make_report(groups, nominal, others, mixed)
    report["warnings"] += _notes(config) + _changes(directory, groups)
    if len(groups.whole) < len(groups):
        report["warnings"].append(
            f"{len(groups) - len(groups.whole)} of {len(groups)} groups lost samples "
            "and are in no estimate; where samples are lost for what they are, as with "
            "train.overlong=mask, the others do not speak for them"
        )
    if mixed:
        report["warnings"].append(
            "dynamic sampling replaced groups that were all correct or all incorrect: "
            "nominal is the objective of mixed groups, of this rule and of others, and "
            "estimates are of the groups that were trained with, nearer to p = 1/2 "
            "than the prompts are"
        )
    return report


def _changes(directory: Path, groups: Groups) -> list[str]:
    """Return warnings of objective fields that changed between the groups' steps."""
    found = [
        row
        for row in read_events(directory)
        if row.get("event") == "config"
        and row["name"].startswith("objective.")
        and groups.step.min() <= row["step"] < groups.step.max()
    ]
    return [
        f"after step {row['step']} {row['name']} was changed from {row['old']} to "
        f"{row['new']}: nominal is the objective as it is now, also for the steps "
        f"before; --from-step={row['step'] + 1} leaves them out"
        for row in found
    ]


def _notes(config: TrainConfig) -> list[str]:
    """Return the notes on the config's objective, or the error that now refuses it."""
    try:
        return list(assembly.objective_notes(config))
    except FieldErrors as error:
        return [str(error)]


def store_report(config: TrainConfig, directory: Path) -> list[str]:
    """Write a run's report to `objective.json` and return lines to print.

    The lines are the warnings of the report, or the reason why there is none: a missing
    report is no error of the run.
    """
    rewards = config.objective.rewards
    if rewards != "binary":
        return [
            f"no objective.json: objective.rewards={rewards} trains on the values of "
            "rewards, and a report is made from counts of correct answers"
        ]
    try:
        report = report_of(config, directory)
    except ValueError as error:
        return [f"warning: no objective.json: {error}"]
    path = directory / "objective.json"
    path.write_text(json.dumps(finite(report), indent=2) + "\n", encoding="utf-8")
    return [f"warning: {warning}" for warning in report["warnings"]]


def make_report(
    groups: Groups,
    nominal: WeightTable,
    others: dict[str, WeightTable],
    mixed: bool = False,
) -> dict:
    """Return what `jaxrl objective --replay` prints, as plain numbers and lists.

    Args:
      groups: groups of the run.
      nominal: weight table that the run was given, group size M.
      others: tables of other rules by name, of the same group size.
      mixed: whether dynamic sampling replaced groups that were not mixed; the tables
        then have weights of 0 for such groups.
    """
    trend = trends(groups, nominal)
    report = {
        "groups": len(groups),
        "whole_groups": len(groups.whole),
        "steps": [int(groups.step.min()), int(groups.step.max())],
        "ledger": {
            name: dataclasses.asdict(estimate)
            | {"change": trend[name].mean, "change_error": trend[name].error}
            for name, estimate in ledger(groups, nominal).items()
        },
        "warnings": warnings(trend),
        "effective": _effective(groups, nominal, mixed),
        "rules": {
            name: dataclasses.asdict(replay(groups, nominal, table))
            for name, table in ({"its own": nominal} | others).items()
        },
    }
    return report


def _effective(groups: Groups, nominal: WeightTable, mixed: bool) -> dict | None:
    """Return the effective objective; None if no group is mixed to estimate it from."""
    correct = groups.whole.correct
    if not ((correct > 0) & (correct < nominal.group_size)).any():
        return None
    found = effective_objective(groups, nominal, mixed)
    departure, error = found.departure()
    nominal, effective, slope_error = found.slopes(_RATES)
    return {
        "scale": found.scale,
        "groups_by_count": found.groups.tolist(),
        "nominal_gap": np.asarray(found.nominal.gap).tolist(),
        "applied_gap": (found.applied.gap / found.scale).tolist(),
        "departure": departure.tolist(),
        "departure_error": error.tolist(),
        "p": _RATES.tolist(),
        "nominal_slope": nominal.tolist(),
        "effective_slope": effective.tolist(),
        "effective_slope_error": slope_error.tolist(),
    }


def _nominal(config: TrainConfig, groups: Groups) -> WeightTable:
    """Return the table a run was given; for a schedule, the mean over the groups."""
    schedule = assembly.build_objective(config)
    steps, counts = np.unique(groups.step, return_counts=True)
    parts = [
        float(count / len(groups)) * schedule(int(step)).table()
        for step, count in zip(steps, counts, strict=True)
    ]
    return functools.reduce(operator.add, parts)


def _table(name: str, group_size: int) -> WeightTable:
    """Return the weight table of a rule that `--as` names."""
    try:
        return rule(name).table(group_size)
    except ValueError as error:
        raise FieldError("--as", name, problem=str(error)) from error


def _panels(found: dict) -> list[figures.Panel]:
    """Return panels of effective and nominal slope over p, and departure by count."""
    p = np.array(found["p"])
    nominal = figures.Curve(p, np.array(found["nominal_slope"]), "nominal", "reference")
    applied = figures.Curve(
        p,
        np.array(found["effective_slope"]),
        "effective, ± 2 standard errors",
        error=2 * np.array(found["effective_slope_error"]),
    )
    departure = np.array(found["departure"], float)
    error = np.array(found["departure_error"], float)
    known = np.isfinite(departure) & np.isfinite(error)
    counts = np.arange(len(departure))[known]
    reach = max(
        0.05, 1.1 * np.max(np.abs(departure) + 2 * error, where=known, initial=0)
    )
    by_count = figures.Curve(
        counts, departure[known], "± 2 standard errors", "points", 2 * error[known]
    )
    level = figures.Curve(counts, 0.0 * counts, "as asked for", "reference")
    return [
        figures.Panel([applied, nominal], "slope of the objective", "p", "h_M'(p)"),
        figures.Panel(
            [by_count, level],
            "departure of the applied weights",
            "correct answers among the others",
            "gap applied / gap asked for - 1",
            # A minimum range keeps rounding errors from filling the panel.
            y_range=(-reach, reach),
        ),
    ]


def check_figure(path: Path) -> None:
    """Check that a figure can be written, before anything is computed.

    Raises:
      FieldErrors: as `figures.check_path`.
    """
    try:
        figures.check_path(path)
    except FieldError as error:
        raise error.at("--figure") from error


def finite(value: object) -> object:
    """Replace floats that are not finite by None, because JSON has no NaN.

    Dicts and lists are copied; other values are returned unchanged.
    """
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
