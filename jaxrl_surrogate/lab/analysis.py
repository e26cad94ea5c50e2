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
# Surrogates that a rule is compared with, by the name shown.
_NAMED = {
    "identity": ("identity", {}),
    "log": ("log", {}),
    "arcsin": ("arcsin", {}),
    "logit": ("logit", {}),
    "power r=0.5": ("power", {"r": 0.5}),
    "pass_at_k k=2": ("pass_at_k", {"k": 2}),
    "pass_at_k k=4": ("pass_at_k", {"k": 4}),
    "pass_at_k k=8": ("pass_at_k", {"k": 8}),
    "arcsin_pass_at_k k=2": ("arcsin_pass_at_k", {"k": 2}),
    "arcsin_pass_at_k k=4": ("arcsin_pass_at_k", {"k": 4}),
    "arcsin_pass_at_k k=8": ("arcsin_pass_at_k", {"k": 8}),
}


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
    cut = {f"truncated_log order={n}": ("truncated_log", {"order": n}) for n in orders}
    return {
        shown: surrogates.get(name, **params)
        for shown, (name, params) in (_NAMED | cut).items()
    }


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


def silent_share(table: WeightTable, p: np.ndarray) -> np.ndarray:
    """At success rates p (N,): the share of groups whose weights are all 0."""
    size = table.group_size
    counts = np.arange(size + 1)
    right = np.concatenate([[0.0], table.correct])  # of a right sample, by count
    wrong = np.concatenate([table.incorrect, [0.0]])
    silent = ((counts == 0) | (right == 0)) & ((counts == size) | (wrong == 0))
    return basis(size, p) @ silent
