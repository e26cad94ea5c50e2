"""Every registered rule and what it optimises, as one table: docs/objectives.md.

python -m jaxrl_surrogate.lab.catalogue docs/objectives.md            # write it
python -m jaxrl_surrogate.lab.catalogue docs/objectives.md --check    # is it current?
"""

import argparse
import inspect
import sys
from pathlib import Path

import numpy as np

from jaxrl_surrogate.lab.analysis import analyse
from jaxrl_surrogate.objectives import advantages, induced_surrogate, peers

_GROUP_SIZE = 8
_K = 4  # of rules that have a k
_RATES = np.array([0.02, 0.25, 0.75])


def table() -> str:
    """The Markdown of docs/objectives.md."""
    last = _GROUP_SIZE - 1
    rates = ", ".join(f"{p:g}" for p in _RATES)
    lines = [
        "# What every rule optimises",
        "",
        f"Groups of {_GROUP_SIZE}; k = {_K} where a rule has a k; other parameters at",
        "their defaults. The gap d_s is the weight of a right sample beside s right",
        "ones less that of a wrong one; h' is the exact slope of the objective. The",
        "nearest named surrogate, with its factor, is the best fit of p q h'; the",
        "percentage is what is left over. Made by",
        "`python -m jaxrl_surrogate.lab.catalogue docs/objectives.md`.",
        "",
        f"| rule | d_0 .. d_{last} | h' at p = {rates} | nearest surrogate |",
        "|---|---|---|---|",
    ]
    lines += [_row(name) for name in (*advantages.names(), *peers.names())]
    return "\n".join(lines) + "\n"


def _row(name):
    params = {"k": _K} if _has_k(name) else {}
    weights = advantages.get(name, **params).table(_GROUP_SIZE)
    gap = " ".join(_short(entry) for entry in weights.gap)
    slope = ", ".join(_short(h) for h in induced_surrogate(weights).slope(_RATES))
    nearest = analyse(weights).fits[0]
    fit = f"{_short(nearest.scale)} x {nearest.name} ({nearest.distance:.0%})"
    shown = f"`{name}`" + (f" k={_K}" if params else "")
    return f"| {shown} | {gap} | {slope} | {fit} |"


def _has_k(name):
    if ":" in name:
        return "k" in peers.parameters(name)
    return "k" in inspect.signature(getattr(advantages, name)).parameters


def _short(number):
    return f"{number + 0.0:.3g}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; returns the exit status, 1 where it is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(arguments)
    text = table()
    if not args.check:
        args.path.write_text(text, encoding="utf-8")
        return 0
    if args.path.is_file() and args.path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{args.path} is not current: run this again without --check")
    return 1


if __name__ == "__main__":
    sys.exit(main())
