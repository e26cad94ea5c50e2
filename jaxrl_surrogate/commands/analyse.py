"""`jaxrl objective NAME` or `--from SURROGATE`: the objective that weights ascend.

It analyses a rule that maps rewards to weights, or the weights made for a surrogate h.
"""

import argparse
import dataclasses
import functools
import json

import numpy as np
from rich.console import Console

from jaxrl_surrogate import objectives, terminal
from jaxrl_surrogate.commands import frontier, rules
from jaxrl_surrogate.commands.replay import check_figure, finite
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab import figures
from jaxrl_surrogate.lab.analysis import (
    RATES,
    Analysis,
    analyse,
    in_words,
    silent_share,
)
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
    other_trainers,
    surrogates,
)


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments of an analysis to a parser."""
    parser.add_argument(
        "name",
        nargs="?",
        help=f"{', '.join(advantages.names())}; another trainer's rule: "
        f"{', '.join(other_trainers.names())}; or your own file.py:function of "
        "rewards (M,). Parameters follow the name, each after a colon: pass_at_k:k=4",
    )
    parser.add_argument(
        "--from",
        dest="surrogate",
        help=f"weights from a surrogate: {', '.join(surrogates.names())}; parameters "
        "as for NAME: arcsin_pass_at_k:k=4",
    )
    parser.add_argument("--group-size", type=int, nargs="+", default=[8])
    parser.add_argument("--param", help=argparse.SUPPRESS)
    parser.add_argument("--method", default="kantorovich", choices=inverse.methods())
    parser.add_argument(
        "--baseline", default="leave_one_out", choices=baselines.names()
    )
    parser.add_argument(
        "--against", help="a surrogate to compare with, such as log or pass_at_k:k=4"
    )
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


def run(args: argparse.Namespace, console: Console | None = None) -> int:
    """Print the analysis of each group size and return the exit status.

    Args:
      args: parsed arguments of `jaxrl objective`.
      console: where text is printed; None: standard output.

    Raises:
      FieldErrors: a name is unknown, arguments do not go together, or the weights of a
        user's function do not depend on the number of correct samples alone.
    """
    if (args.name is None) == (args.surrogate is None):
        expected = "either a NAME, or --from SURROGATE, or --replay RUN"
        raise FieldError("jaxrl objective", expected=expected)
    if args.param:
        example = f"{args.name or args.surrogate}:{args.param}"
        problem = f"parameters follow the name, as {example}"
        raise FieldError("--param", args.param, problem=problem)
    if args.frontier and not args.surrogate:
        raise FieldError("--frontier", expected="--from SURROGATE")
    if args.figure:
        check_figure(args.figure)
    against = rules.surrogate(args.against) if args.against else None
    graded_rule = None
    if args.surrogate:
        wanted = rules.surrogate(args.surrogate)
        against = against or wanted
        if args.frontier:
            prior = tuple(args.prior) if args.prior else None
            return frontier.show(wanted, args.group_size, prior, args.json, console)

        def make_table(size: int) -> WeightTable:
            return from_surrogate(
                wanted, size, method=args.method, baseline=args.baseline
            )
    else:
        rule = rules.rule(args.name)
        make_table, graded_rule = rule.table, rule.graded
    if args.dynamic_sampling:
        alone = make_table
        make_table = lambda size: mixed_only(alone(size))  # noqa: E731
    reports, graded = {}, {}
    for size in args.group_size:
        try:
            reports[size] = analyse(make_table(size), against)
            if args.levels:
                lifted = functools.partial(
                    objectives.graded.layer_cake, make_table(size)
                )
                weigh = graded_rule or lifted
                graded[size] = circulation(weigh, args.levels, size)
        except ValueError as error:
            name = args.name or args.surrogate
            raise FieldError(name, problem=str(error)) from error
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
            how = "" if graded_rule else " (weighed level by level)"
            console.print(f"rewards {levels}{how}: {graded[size]}", highlight=False)
    return 0


def _panels(
    reports: dict[int, Analysis], against: Surrogate | None
) -> list[figures.Panel]:
    """Return panels over p: gradient of a prompt's logit, groups without a gradient."""
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
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    say(f"{name}, groups of {size}")
    table = terminal.table(
        "others correct", "weight if incorrect", "weight if correct", "gap"
    )
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
    say(
        f"others correct: how many of the other {size - 1} samples of the group are. "
        "weight: what the sample's log-probability gradient is multiplied with. gap: "
        "the second weight less the first; the gaps alone decide what is optimised, "
        "the rest is noise."
    )
    console.print()
    table = terminal.table("p", "h_M'(p)", "p (1 - p) h_M'(p)", "groups of weight 0")
    for p, slope, silent in zip(RATES, found.slope, found.silent, strict=True):
        table.add_row(
            f"{p:.2f}", f"{slope:.4f}", f"{p * (1 - p) * slope:.4f}", f"{silent:.1%}"
        )
    terminal.print_table(console, table)
    say(
        "p: the probability that a completion of a prompt is correct. h_M'(p): how "
        "much the gradient of p counts; the rule ascends the mean of h_M(p) over "
        "prompts. p (1 - p) h_M'(p): the same in the logit log(p / (1 - p)), the size "
        "of a prompt's update. groups of weight 0: the share of groups that give no "
        "gradient, as all their weights are 0."
    )
    for sentence in in_words(found):
        say(sentence)
    console.print()
    nearest = ", ".join(
        f"{fit.scale:.3g} x {fit.name} ({fit.distance:.1%} off)"
        for fit in found.fits[:3]
    )
    say(f"nearest surrogates: {nearest}")
    say(str(found.certificate))
    for low, high in found.decreasing:
        say(
            f"WARNING: h_M falls on ({low:.3g}, {high:.3g}): there the rule trains "
            "against correct answers; in most cases this is a mistake in it"
        )
