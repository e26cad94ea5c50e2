"""Writes docs/objectives.md: a table of every registered rule and its objective.

python -m jaxrl_surrogate.lab.catalogue docs/objectives.md            # write it
python -m jaxrl_surrogate.lab.catalogue docs/objectives.md --check    # is it current?
"""

import inspect
import re
import sys

import numpy as np

from jaxrl_surrogate.lab import stored
from jaxrl_surrogate.lab.analysis import analyse
from jaxrl_surrogate.objectives import (
    advantages,
    induced_surrogate,
    mixed_groups,
    mixed_only,
    names,
    other_trainers,
    variance,
)
from jaxrl_surrogate.objectives.bernstein import basis
from jaxrl_surrogate.objectives.estimators import METHODS

_GROUP_SIZE = 8
_SHOWN = {"k": 4, "order": 4}  # values of parameters without a default
_RATES = np.array([0.02, 0.25, 0.75])


def table() -> str:
    """Return the Markdown of docs/objectives.md."""
    last = _GROUP_SIZE - 1
    rates = ", ".join(f"{p:g}" for p in _RATES)
    lines = [
        "# What every rule optimises",
        "",
        f"Groups of {_GROUP_SIZE}; parameters at their defaults, as shown where they",
        "have none. The gap d_s is the weight of a correct sample beside s correct",
        "ones less that of an incorrect one; h' is the exact slope of the objective.",
        "The nearest named surrogate, with its factor, is the best fit of p q h'; the",
        "percentage is what is left over. Noise is E[Z^2] over its least, p q E[d^2],",
        "which no weights with this objective go below. Rules with one gap differ in",
        "noise alone. With dynamic sampling (groups that are all correct or all",
        "incorrect are replaced by other prompts') h' is that of mixed groups; where",
        "it falls, a run is refused. Made by",
        "`python -m jaxrl_surrogate.lab.catalogue docs/objectives.md`.",
        "",
        f"| rule | d_0 .. d_{last} | h' at p = {rates} | nearest surrogate "
        f"| noise at p = {rates} | h' with dynamic sampling | arXiv |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name) for name in (*advantages.names(), *other_trainers.names())]
    return "\n".join(lines) + "\n"


def _row(name):
    params = {
        field: _SHOWN[field]
        for field, default in advantages.parameters(name).items()
        if default is inspect.Parameter.empty
    }
    weights = advantages.get(name, **params).table(_GROUP_SIZE)
    gap = " ".join(_short(entry) for entry in weights.gap)
    slope = ", ".join(_short(h) for h in induced_surrogate(weights).slope(_RATES))
    nearest = analyse(weights).fits[0]
    fit = f"{_short(nearest.scale)} x {nearest.name} ({nearest.distance:.0%})"
    shown = f"`{names.spell(name, params)}`"
    moment = variance.second_moment(weights, _RATES)
    least = _RATES * (1 - _RATES) * (basis(_GROUP_SIZE - 1, _RATES) @ weights.gap**2)
    noise = ", ".join(_short(x) for x in moment / least)
    cells = (shown, gap, slope, fit, noise, _mixed(weights), _sources(name))
    return f"| {' | '.join(cells)} |"


def _mixed(weights):
    """Describe the slope of the objective of mixed groups, or say it is the same."""
    change = mixed_groups.change(weights)
    if change is None:
        return "the same"
    slope = induced_surrogate(mixed_only(weights)).slope(_RATES)
    falls = f", falls: {_short(change.lowest)} at p = {change.lowest_at:.2g}"
    return ", ".join(map(_short, slope)) + (falls if change.falls else "")


def _sources(name):
    """Return the arXiv numbers in a rule's docstring, or that it is a trainer's."""
    if name in other_trainers.names():
        return "the trainer's code"
    text = inspect.getdoc(METHODS[name])
    return ", ".join(dict.fromkeys(re.findall(r"\d{4}\.\d{5}", text)))


def _short(number):
    return f"{number + 0.0:.3g}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; return the exit status, 1 if it is out of date."""
    return stored.main(__doc__.splitlines()[0], table, arguments)


if __name__ == "__main__":
    sys.exit(main())
