"""Computes the objective of a weight table, for `jaxrl objective NAME`."""

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
# Surrogates that every rule is compared with.
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
    """The fit of a named surrogate, times a factor, to an objective."""

    name: str
    scale: float  # the best factor
    # |p q (h_M' - scale h')| / |p q h_M'|, root mean squares over p; 0: they are equal
    distance: float


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The objective h_M of a weight table, and how it compares with surrogates."""

    table: WeightTable
    slope: np.ndarray  # h_M' at `RATES`
    silent: np.ndarray  # share of groups in which every weight is 0, at `RATES`
    fits: tuple[Fit, ...]  # of all named surrogates, the nearest first
    certificate: Certificate  # against the surrogate asked for, or else the nearest
    decreasing: tuple[tuple[float, float], ...]  # intervals of p where h_M' < 0


def analyse(table: WeightTable, against: Surrogate | None = None) -> Analysis:
    """Analyse the objective of a weight table.

    Args:
      table: weight table of group size M.
      against: surrogate to certify the objective against; None takes the nearest named
        one, times its best factor.
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
    """Return the surrogates to compare with, log truncated to this group size too."""
    orders = [order for order in (group_size - 1, group_size) if order > 1]
    shown = [*_NAMED, *(f"truncated_log:order={order}" for order in orders)]
    return {text: surrogates.parse(text) for text in shown}


def fit(table: WeightTable, surrogate: Surrogate, name: str) -> Fit:
    """Fit a surrogate, times a factor, to a table's objective by least squares.

    The fit compares the gradient of a prompt's logit, p q h', which is finite for all
    named surrogates, over uniform p.

    Args:
      table: weight table of the objective.
      surrogate: the surrogate h.
      name: its name in the result.
    """
    logit = _GRID * (1 - _GRID)
    ours = logit * induced_surrogate(table).slope(_GRID)
    theirs = logit * surrogate.slope(_GRID)
    scale = (ours @ theirs) / (theirs @ theirs)
    size = np.linalg.norm(ours)
    rest = np.linalg.norm(ours - scale * theirs)
    return Fit(name, float(scale), float(rest / size) if size else float("nan"))


def in_words(found: Analysis) -> list[str]:
    """Return sentences that sum up an analysis for the user."""
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
    """Return the share (N,) of groups whose weights are all 0, at rates p (N,)."""
    size = table.group_size
    counts = np.arange(size + 1)
    right = np.concatenate([[0.0], table.correct])  # of a correct sample, by count
    wrong = np.concatenate([table.incorrect, [0.0]])
    silent = ((counts == 0) | (right == 0)) & ((counts == size) | (wrong == 0))
    return basis(size, p) @ silent
