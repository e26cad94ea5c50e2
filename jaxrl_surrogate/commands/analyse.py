"""`jaxrl objective NAME`: what a rule for weights optimises, or what it takes to."""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxrl_surrogate import objectives, terminal
from jaxrl_surrogate.commands import frontier
from jaxrl_surrogate.commands.replay import check_figure, finite
from jaxrl_surrogate.lab import figures
from jaxrl_surrogate.lab.analysis import RATES, Analysis, analyse, silent_share
from jaxrl_surrogate.objectives import (
    Circulation,
    Surrogate,
    WeightTable,
    advantages,
    baselines,
    circulation,
    from_surrogate,
    induced_surrogate,
    inverse,
    mixed_only,
    peers,
    surrogates,
    tabulate,
)
from jaxrl_surrogate.settings import SettingsError


def main(arguments: list[str], console: Console | None = None) -> int:
    """Print a report for each group size; returns the exit status.

    Raises:
      SettingsError: an unknown name, or a function that is not one of counts.
    """
    parser = argparse.ArgumentParser("jaxrl objective", description=__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        help=f"{', '.join(advantages.names())}; a peer's rule: "
        f"{', '.join(peers.names())}; or your own module:function of rewards (M,)",
    )
    parser.add_argument(
        "--from",
        dest="surrogate",
        help=f"weights from a surrogate: {', '.join(surrogates.names())}",
    )
    parser.add_argument("--group-size", type=int, nargs="+", default=[8])
    parser.add_argument("--param", action="append", default=[], help="such as k=4")
    parser.add_argument("--method", default="kantorovich", choices=inverse.methods())
    parser.add_argument(
        "--baseline", default="leave_one_out", choices=baselines.names()
    )
    parser.add_argument("--against", help="a surrogate to compare with, as NAME:k=4")
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        help="reward levels, such as 0 0.5 1: is there an objective on them?",
    )
    parser.add_argument(
        "--frontier",
        action="store_true",
        help="with --from: bias and noise of every method and baseline",
    )
    parser.add_argument(
        "--prior",
        type=float,
        nargs=2,
        metavar=("ALPHA", "BETA"),
        help="with --frontier: where success rates lie; default uniform",
    )
    parser.add_argument(
        "--dynamic-sampling",
        action="store_true",
        help="of mixed groups alone, as train.dynamic_sampling_rounds makes it",
    )
    parser.add_argument("--figure", type=Path, help="draw it: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    if (args.name is None) == (args.surrogate is None):
        parser.error("expected either a NAME or --from SURROGATE")
    if args.frontier and not args.surrogate:
        parser.error("--frontier: expected --from SURROGATE")
    if args.figure:
        check_figure(args.figure)
    against = _surrogate(args.against) if args.against else None
    if args.surrogate:
        wanted = _surrogate(":".join([args.surrogate, *args.param]))
        against = against or wanted
        if args.frontier:
            prior = tuple(args.prior) if args.prior else None
            return frontier.show(wanted, args.group_size, prior, args.json, console)

        def make_table(size: int) -> WeightTable:
            return from_surrogate(
                wanted, size, method=args.method, baseline=args.baseline
            )
    else:
        make_table = _rule(args.name, dict(map(_pair, args.param)))
    if args.dynamic_sampling:
        alone = make_table
        make_table = lambda size: mixed_only(alone(size))  # noqa: E731
    reports, graded = {}, {}
    for size in args.group_size:
        try:
            reports[size] = analyse(make_table(size), against)
            if args.levels:
                params = dict(map(_pair, args.param))
                rule = _on_graded(args.name, params, make_table(size))
                graded[size] = circulation(rule, args.levels, size)
        except ValueError as error:
            raise SettingsError(f"{args.name or args.surrogate}: {error}") from error
    if args.figure:
        figures.draw(_panels(reports, against), args.figure)
    if args.json:
        plain = {
            size: _plain(found, graded.get(size)) for size, found in reports.items()
        }
        print(json.dumps(finite(plain), indent=2))
        return 0
    console = console or terminal.console()
    for size, found in reports.items():
        _show(args.name or args.surrogate, size, found, console)
        if size in graded:
            levels = ", ".join(f"{level:g}" for level in args.levels)
            how = "" if args.name and ":" in args.name else " (weighed level by level)"
            console.print(f"rewards {levels}{how}: {graded[size]}", highlight=False)
    return 0


def _panels(
    reports: dict[int, Analysis], against: Surrogate | None
) -> list[figures.Panel]:
    """The gradient of a prompt's logit, and how often a group has none, against p."""
    p = np.concatenate([np.geomspace(1e-3, 0.02, 20), np.linspace(0.03, 0.999, 98)])
    weights, silent = [], []
    for size, found in reports.items():
        slope = induced_surrogate(found.table).slope(p)
        weights.append(figures.Curve(p, p * (1 - p) * slope, f"M = {size}"))
        silent.append(figures.Curve(p, silent_share(found.table, p), f"M = {size}"))
    if against is not None:
        wanted = p * (1 - p) * against.slope(p)
        weights.append(figures.Curve(p, wanted, "asked for", "reference"))
    return [
        figures.Panel(weights, "gradient of a logit", "p", "p q h_M'(p)"),
        figures.Panel(silent, "groups without a gradient", "p", "share"),
    ]


def _on_graded(name: str | None, params: dict, table: WeightTable) -> Callable:
    """What is done with graded rewards: a rule as it is, else the lift of a table."""
    if name is None or ":" not in name:
        return lambda rewards: objectives.graded.layer_cake(table, rewards)
    if not _is_peer(name):
        fn = _function(name)
        return lambda rewards: fn(rewards, **params)
    known, given = peers.split(name)
    rule = peers.rule(known, **(given | params))
    return lambda rewards: rule(np.asarray(rewards))


def _rule(name: str, params: dict) -> Callable[[int], WeightTable]:
    if ":" not in name or _is_peer(name):
        try:
            return advantages.get(name, **params).table
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from error
    fn = _function(name)
    return lambda size: tabulate(lambda rewards: fn(rewards, **params), size)


def _function(name: str) -> Callable:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{name}: {error}; expected a module that can be imported from here and a "
            "function in it"
        ) from error
    finally:
        sys.path.pop(0)


def _is_peer(name: str) -> bool:
    try:
        return peers.knows(name)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error


def _surrogate(text: str) -> Surrogate:
    """`name` or `name:k=4:...`."""
    name, *params = text.split(":")
    try:
        return surrogates.get(name, **dict(map(_pair, params)))
    except ValueError as error:
        raise SettingsError(f"{text}: {error}") from error


def _pair(text: str) -> tuple[str, int | float | str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"{text}: expected NAME=VALUE, such as k=4")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _plain(found: Analysis, curl: Circulation | None) -> dict:
    certificate = found.certificate
    graded = None
    if curl is not None:
        graded = {"has_objective": curl.has_objective} | dataclasses.asdict(curl)
    return {
        "graded": graded,
        "correct": np.asarray(found.table.correct).tolist(),
        "incorrect": np.asarray(found.table.incorrect).tolist(),
        "p": list(RATES),
        "slope": found.slope.tolist(),
        "silent": found.silent.tolist(),
        "fits": [[fit.name, fit.scale, fit.distance] for fit in found.fits],
        "against": certificate.surrogate,
        "exact": certificate.exact,
        "slope_error": certificate.inside.slope,
        "value_error": certificate.inside.value,
        "decreasing": [list(part) for part in found.decreasing],
    }


def _show(name: str, size: int, found: Analysis, console: Console) -> None:
    console.print(f"{name}, groups of {size}", highlight=False, markup=False)
    table = terminal.table("right among others", "wrong sample", "right sample", "gap")
    shown = range(size) if size <= 16 else [*range(6), *range(size - 3, size)]
    for s in shown:
        if size > 16 and s == size - 3:
            table.add_row("...", "", "", "")
        table.add_row(
            str(s),
            f"{found.table.incorrect[s]:.4f}",
            f"{found.table.correct[s]:.4f}",
            f"{found.table.gap[s]:.4f}",
        )
    terminal.print_table(console, table)
    table = terminal.table("p", "slope of h_M", "of a logit, p q h_M'", "silent groups")
    for p, slope, silent in zip(RATES, found.slope, found.silent, strict=True):
        table.add_row(
            f"{p:.2f}", f"{slope:.4f}", f"{p * (1 - p) * slope:.4f}", f"{silent:.1%}"
        )
    terminal.print_table(console, table)
    nearest = ", ".join(
        f"{fit.scale:.3g} x {fit.name} ({fit.distance:.1%} off)"
        for fit in found.fits[:3]
    )
    console.print(f"nearest surrogates: {nearest}", highlight=False)
    console.print(str(found.certificate), highlight=False, markup=False)
    for low, high in found.decreasing:
        console.print(
            f"WARNING: h_M falls on ({low:.3g}, {high:.3g}): there the rule trains "
            "against right answers; in most cases this is a mistake in it",
            highlight=False,
        )
