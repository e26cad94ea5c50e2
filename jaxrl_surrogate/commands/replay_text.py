"""Prints the report on a run: tables, the meaning of their columns, conclusions."""

import math

import numpy as np
from rich.console import Console

from jaxrl_surrogate import terminal


def show(report: dict, objective: str, console: Console) -> None:
    """Print a report.

    Args:
      report: result of `replay.make_report`.
      objective: label of the run's nominal objective.
      console: where the report is printed.
    """
    first, last = report["steps"]
    console.print(
        f"{report['groups']} groups of steps {first} to {last}, objective "
        f"{objective}; {report['whole_groups']} kept all their samples",
        highlight=False,
    )
    table = terminal.table("objective", "mean", "first to last fifth of steps")
    for name, row in report["ledger"].items():
        table.add_row(
            name,
            _pair(row["mean"], row["error"]),
            _pair(row["change"], row["change_error"], "+"),
        )
    terminal.print_table(console, table)
    _say(
        console,
        "mean: over the prompts of all steps, each estimated from its group, ± its "
        "standard error; arcsin and log as far as groups of this size show them; "
        "trained: h_M, what the rule ascends. The last column: how the mean changed "
        "over the run.",
    )
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    found = report["effective"]
    if found is None:
        console.print(
            "all groups were all incorrect or all correct: they say nothing of what "
            "was optimised"
        )
        return
    table = terminal.table("others correct", "nominal gap", "applied gap", "departure")
    for count, nominal in enumerate(found["nominal_gap"]):
        table.add_row(
            str(count),
            f"{nominal:.4f}",
            f"{found['applied_gap'][count]:.4f}",
            _pair(found["departure"][count], found["departure_error"][count], "+"),
        )
    terminal.print_table(console, table)
    _say(
        console,
        "others correct: how many of the other samples of the group are. gap: the "
        "weight of a correct sample less that of an incorrect one beside them, which "
        "is what decides the objective; nominal: as the rule has it, applied: as the "
        "loss (ratios, clipping, KL, lengths) left it, over one factor for all. "
        "departure: applied over nominal, less 1; ? where too few groups were seen.",
    )
    console.print(_departure_in_words(found), highlight=False)
    console.print()
    table = terminal.table("p", "nominal slope of h", "effective slope of h")
    for p, nominal, slope, error in zip(
        found["p"],
        found["nominal_slope"],
        found["effective_slope"],
        found["effective_slope_error"],
        strict=True,
    ):
        table.add_row(f"{p:.2f}", f"{nominal:.4f}", _pair(slope, error))
    terminal.print_table(console, table)
    _say(
        console,
        "slope of h at p: how much the gradient of p counts for a prompt that is "
        "answered correctly with probability p, as asked for and as applied.",
    )
    bins = list(next(iter(report["rules"].values()))["mass"])
    table = terminal.table("rule", "cosine", "wasted", *bins)
    for name, row in report["rules"].items():
        shares = (f"{share:.0%}" for share in row["mass"].values())
        table.add_row(name, f"{row['cosine']:.3f}", f"{row['wasted']:.0%}", *shares)
    terminal.print_table(console, table)
    _say(
        console,
        "cosine: of the rule's weights with those of the run's own rule, over all "
        "samples logged; 1 is the same update up to a factor. wasted: samples of "
        "weight 0. The other columns: where the rule's weight lies, by the share of "
        "correct samples in a group.",
    )
    for name, row in report["rules"].items():
        if name != "its own":
            console.print(_rule_in_words(name, row), highlight=False, markup=False)


def _say(console: Console, legend: str) -> None:
    console.print(legend, highlight=False, markup=False)
    console.print()


def _departure_in_words(found: dict) -> str:
    """Say in one sentence whether the run ascended its nominal objective."""
    departure, error = np.array([found["departure"], found["departure_error"]], float)
    known = np.isfinite(departure) & np.isfinite(error)
    if not known.any():
        return "So too few groups were seen to compare weights with those asked for."
    sure = known & (np.abs(departure) > np.maximum(2 * error, 1e-3))
    if not sure.any():
        reach = float(np.max(np.abs(departure) + 2 * error, where=known, initial=0))
        return (
            "So the run ascended what it was asked to, as far as its groups tell: no "
            f"gap departs from it by more than its errors, {max(reach, 0.001):.1%} at "
            "most."
        )
    worst = int(np.argmax(np.where(sure, np.abs(departure), -1)))
    return (
        f"So the run ascended another objective than asked for: with {worst} others "
        f"correct the gap departs by {departure[worst]:+.1%} ± {error[worst]:.1%}."
    )


def _rule_in_words(name: str, row: dict) -> str:
    cosine = row["cosine"]
    if not math.isfinite(cosine):
        return f"{name} would have made no update of these groups."
    likeness = next(
        words
        for least, words in (
            (0.99, "nearly the same updates"),
            (0.9, "similar updates"),
            (-1.1, "clearly different updates"),
        )
        if cosine >= least
    )
    return f"{name} would have made {likeness} of these groups (cosine {cosine:.3f})."


def _pair(value: float, error: float, sign: str = "") -> str:
    if not math.isfinite(value):
        return "-"
    shown = f"{value:{sign}.4f}"
    return f"{shown} ± {error:.4f}" if math.isfinite(error) else f"{shown} ± ?"
