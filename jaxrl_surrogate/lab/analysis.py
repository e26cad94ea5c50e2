"""What a rule for weights optimises: the report of `jaxrl objective NAME`."""

import dataclasses

import numpy as np

from jaxrl_surrogate.objectives import (
    Certificate,
    Surrogate,
    WeightTable,
    certify,
    induced_surrogate,
    surrogates,
)
from jaxrl_surrogate.objectives.bernstein import basis

RATES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_GRID = (np.arange(400) + 0.5) / 400
# Surrogates that a rule is compared with.
_NAMED = (
    "identity",
    "log",
    "arcsin",
    "logit",
    "power:r=0.5",
    "pass_at_k:k=2",
    "pass_at_k:k=4",
    "pass_at_k:k=8",
    "arcsin_pass_at_k:k=2",
    "arcsin_pass_at_k:k=4",
    "arcsin_pass_at_k:k=8",
)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A named surrogate, times a factor, beside an objective."""

    name: str
    scale: float  # the best factor
    # |p q (h_M' - scale h')| over |p q h_M'|, root mean squares over p: 0 is the same
    distance: float


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What is known of a table."""

    table: WeightTable
    slope: np.ndarray  # h_M' at `RATES`
    silent: np.ndarray  # share of groups in which every weight is 0, at `RATES`
    fits: tuple[Fit, ...]  # all compared, the nearest first
    certificate: Certificate  # against the nearest, or what was asked for
    decreasing: tuple[tuple[float, float], ...]  # where h_M' < 0


def analyse(table: WeightTable, against: Surrogate | None = None) -> Analysis:
    """Describe the objective of a table.

    Args:
      table: of group size M.
      against: the surrogate it is meant for; without one, the nearest named one.
    """
    induced = induced_surrogate(table)
    rates = np.array(RATES)
    named = _named(table.group_size)
    fits = sorted(
        (fit(table, surrogate, shown) for shown, surrogate in named.items()),
        key=lambda found: found.distance,
    )
    if against is None:
        against = fits[0].scale * named[fits[0].name]
    certificate = certify(table, against)
    return Analysis(
        table=table,
        slope=induced.slope(rates),
        silent=silent_share(table, rates),
        fits=tuple(fits),
        certificate=certificate,
        decreasing=certificate.decreasing,
    )


def _named(group_size: int) -> dict[str, Surrogate]:
    """The surrogates to compare with, and log as far as this group size reaches."""
    orders = [order for order in (group_size - 1, group_size) if order > 1]
    shown = [*_NAMED, *(f"truncated_log:order={order}" for order in orders)]
    return {text: surrogates.parse(text) for text in shown}


def fit(table: WeightTable, surrogate: Surrogate, name: str) -> Fit:
    """The factor by which a surrogate is nearest to a table's objective.

    Errors are those of the gradient of a prompt's logit, p q h', which is finite for
    all named surrogates; p is uniform.
    """
    logit = _GRID * (1 - _GRID)
    ours = logit * induced_surrogate(table).slope(_GRID)
    theirs = logit * surrogate.slope(_GRID)
    scale = (ours @ theirs) / (theirs @ theirs)
    size = np.linalg.norm(ours)
    rest = np.linalg.norm(ours - scale * theirs)
    return Fit(name, float(scale), float(rest / size) if size else float("nan"))


def in_words(found: Analysis) -> list[str]:
    """What follows from the numbers, in plain sentences."""
    at = dict(zip(RATES, zip(found.slope, found.silent, strict=True), strict=True))
    (hard, hard_silent), (even, _), (easy, easy_silent) = at[0.1], at[0.5], at[0.9]
    lines = []
    if even > 0:
        hard, easy = hard / even, easy / even
        if hard > 1.05 * easy:
            tilt = "hard prompts count more than easy ones"
        elif easy > 1.05 * hard:
            tilt = "easy prompts count more than hard ones"
        elif hard > 1.05:
            tilt = "hard and easy prompts count more than those between"
        elif hard < 0.95:
            tilt = "prompts between hard and easy count most"
        else:
            tilt = "all prompts count alike"
        lines.append(
            f"So a prompt with p = 0.1 counts {hard:.2f} times and one with p = 0.9 "
            f"{easy:.2f} times as much as one with p = 0.5: {tilt}."
        )
    if max(hard_silent, easy_silent) >= 0.005:
        lines.append(
            f"At p = 0.1 {hard_silent:.0%} of the groups give no gradient, at p = 0.9 "
            f"{easy_silent:.0%}; larger groups waste fewer."
        )
    return lines


def silent_share(table: WeightTable, p: np.ndarray) -> np.ndarray:
    """At success rates p (N,): the share of groups whose weights are all 0."""
    size = table.group_size
    counts = np.arange(size + 1)
    right = np.concatenate([[0.0], table.correct])  # of a correct sample, by count
    wrong = np.concatenate([table.incorrect, [0.0]])
    silent = ((counts == 0) | (right == 0)) & ((counts == size) | (wrong == 0))
    return basis(size, p) @ silent
