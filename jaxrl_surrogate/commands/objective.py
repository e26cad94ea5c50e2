"""`jaxrl objective`: the objective of a rule for weights, or the one a run ascended."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxrl_surrogate.commands import analyse, replay
from jaxrl_surrogate.errors import FieldError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an analysis, of a report on a run, and of both."""
    groups = {
        "analysis": parser.add_argument_group("of a rule, or to a surrogate"),
        "report": parser.add_argument_group("of a run, and other rules on its groups"),
    }
    analyse.add_arguments(groups["analysis"])
    replay.add_arguments(groups["report"])
    parser.add_argument("--figure", type=Path, help="draw it: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(groups=groups)


def run(
    args: argparse.Namespace, overrides: Sequence[str], console: Console | None = None
) -> int:
    """Print an analysis, or with --replay a report on a run; return the exit status.

    Raises:
      FieldErrors: as `analyse.run` and `replay.run`; or an argument belongs to the
        other of the two.
    """
    unused = args.groups["report" if args.replay is None else "analysis"]
    for action in unused._group_actions:
        value = getattr(args, action.dest)
        if value != action.default:
            remedy = "give --replay RUN" if args.replay is None else "leave it out"
            problem = "is not of this report"
            name = (*action.option_strings, "NAME")[0]
            raise FieldError(name, value, problem=problem, remedy=remedy)
    return (analyse if args.replay is None else replay).run(args, console)
