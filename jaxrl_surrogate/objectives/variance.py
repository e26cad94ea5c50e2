"""Bias and variance of a table, and their change with group size and baseline.

Units. All quantities are those of the gradient with respect to a prompt's logit,
log(p / q). In this unit a correct sample has the score q and an incorrect one -p, the
mean update is p q h_M'(p), and that of pass@1 is p q. They stay finite for every named
surrogate. Besides this scalar part, the samples of a large policy have scores in many
other directions, which are modelled as noise of mean zero and second moment v,
independent of the reward. The update of one group has

    variance = Var[(1/M) sum_i Z_i (R_i - p)] + v / M E[Z^2]

and the mean over G groups has 1 / G of it. v = 0 is exact for a policy with one
parameter. For large models the second part dominates.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from jaxrl_surrogate.objectives import bernstein, priors
from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.inverse import from_surrogate, options_of
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe
from jaxrl_surrogate.objectives.weight_table import WeightTable


def second_moment(table: WeightTable, p: np.ndarray) -> np.ndarray:
    """Return E[Z^2] of one sample at success rates p (any shape), in float64.

    It is the mean of q a_S^2 + p b_S^2 over S ~ Bin(M - 1, p). No table with the gap d
    has less than p q E[d_S^2].

    >>> from jaxrl_surrogate.objectives import advantages
    >>> float(second_moment(advantages.table("reinforce", 1), 0.25))
    0.25
    """
    p = np.asarray(p, np.float64)
    wrong, right = (np.asarray(x, np.float64) for x in (table.incorrect, table.correct))
    others = bernstein.basis(table.group_size - 1, p)
    return (1 - p) * (others @ wrong**2) + p * (others @ right**2)


def scalar_variance(table: WeightTable, p: np.ndarray) -> np.ndarray:
    """Return Var[(1/M) sum_i Z_i (R_i - p)] of one group at success rates p.

    This is the variance for a policy with one parameter, computed exactly as a sum over
    counts m ~ Bin(M, p). Divided by (p q)^2 it is that of the gradient in p, whose mean
    is h_M'.

    Args:
      table: of group size M.
      p: success rates, of any shape.

    Returns:
      float64 of the shape of p.
    """
    p = np.asarray(p, np.float64)
    size = table.group_size
    m = np.arange(size + 1)
    # The entries that no group of count m needs are multiplied by 0.
    right = m / size * np.append(0.0, np.asarray(table.correct, np.float64))
    wrong = (1 - m / size) * np.append(np.asarray(table.incorrect, np.float64), 0.0)
    update = (1 - p)[..., None] * right - p[..., None] * wrong
    counts = bernstein.basis(size, p)
    mean = (counts * update).sum(-1)
    return (counts * (update - mean[..., None]) ** 2).sum(-1)


def bias(table: WeightTable, surrogate: Surrogate, p: np.ndarray) -> np.ndarray:
    """Return p q (h_M'(p) - h'(p)), the bias of the mean update in units of the logit.

    Args:
      table: of group size M.
      surrogate: h.
      p: success rates, of any shape.

    Returns:
      float64 of the shape of p.

    Raises:
      ValueError: at a p where h' is not finite.
    """
    p = np.asarray(p, np.float64)
    with np.errstate(invalid="ignore"):
        slope = at(surrogate.slope, p)
    if not np.isfinite(slope).all():
        raise ValueError(
            f"p={p[~np.isfinite(slope)].flat[0]}: the slope of {describe(surrogate)} "
            "is not finite there; leave that point out"
        )
    return p * (1 - p) * (at(induced_surrogate(table).slope, p) - slope)


@dataclasses.dataclass(frozen=True)
class BiasVariance:
    """Bias and variance of one group's update over a prior, in the module's units."""

    group_size: int
    signal: float  # root mean square of p q h'
    rms_bias: float  # root mean square of p q (h_M' - h')
    worst_bias: float  # largest |p q (h_M' - h')| at a point of the prior
    worst_bias_at: float
    scalar_variance: float  # mean Var[(1/M) sum Z (R - p)]
    score_variance: float  # mean E[Z^2] / M, for v = 1

    def mean_squared_error(self, num_samples: int, score_noise: float) -> float:
        """Return the mean squared error of a prompt's update from N samples.

        Args:
          num_samples: N, split into N / M groups.
          score_noise: v.

        >>> error = BiasVariance(4, 1.0, 0.1, 0.2, 0.5, 0.4, 0.2)
        >>> round(error.mean_squared_error(8, 2.0), 6)
        0.41
        """
        groups = num_samples / self.group_size
        noise = self.scalar_variance + score_noise * self.score_variance
        return self.rms_bias**2 + noise / groups


def bias_variance(
    table: WeightTable,
    surrogate: Surrogate,
    prior: priors.PriorLike | None = None,
) -> BiasVariance:
    """Return the bias of a table relative to a surrogate, and its variance.

    Args:
      table: of group size M.
      surrogate: h.
      prior: the distribution of p: (alpha, beta), or (points, weights); uniform by
        default.

    Raises:
      ValueError: for a prior with a point where h' is not finite.

    >>> from jaxrl_surrogate.objectives import advantages, surrogates
    >>> found = bias_variance(advantages.table("rloo", 2), surrogates.identity())
    >>> found.rms_bias < 1e-15, round(found.score_variance, 6)
    (True, 0.166667)
    """
    size = table.group_size
    grid = priors.settle(prior, size + 128)
    used = grid.weights > 0
    grid = priors.Prior(grid.points[used], grid.weights[used])
    p = grid.points
    off = bias(table, surrogate, p)
    worst = int(np.argmax(np.abs(off)))
    wanted = p * (1 - p) * at(surrogate.slope, p)
    return BiasVariance(
        group_size=size,
        signal=math.sqrt(grid.mean(wanted**2)),
        rms_bias=math.sqrt(grid.mean(off**2)),
        worst_bias=float(np.abs(off[worst])),
        worst_bias_at=float(p[worst]),
        scalar_variance=grid.mean(scalar_variance(table, p)),
        score_variance=grid.mean(second_moment(table, p)) / size,
    )


@dataclasses.dataclass(frozen=True)
class FrontierRow:
    """A method, baseline and group size for a surrogate, with its bias and variance."""

    method: str
    baseline: str
    group_size: int
    result: BiasVariance | None  # None if the combination raises an error
    refused: str = ""  # the message of that error


def frontier(
    surrogate: Surrogate,
    methods: Sequence[str],
    group_sizes: Iterable[int],
    baselines: Sequence[str] = ("leave_one_out",),
    prior: priors.PriorLike | None = None,
) -> list[FrontierRow]:
    """Return the bias and variance of every method, baseline and group size.

    The bias depends on the method and decreases with M; the variance depends on the
    baseline too. M times `score_variance`, the variance per sample, tends to the mean
    of p q h'^2. For arcsin this is 1. For log it grows with M, as larger groups include
    harder prompts, whose weights have more variance.

    Args:
      surrogate: h.
      methods: names of methods of `from_surrogate`.
      group_sizes: values of M.
      baselines: names of baselines of `from_surrogate`; `min_variance` has the least
        variance under its prior.
      prior: the distribution of p, for the means and for the methods and baselines that
        take one; uniform by default.

    Returns:
      A row for each combination: group sizes vary fastest, then baselines, then
      methods.

    Raises:
      ValueError: for unknown names.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> rows = frontier(surrogates.get("pass_at_k", k=4), ["exact"], [2, 8])
    >>> [row.refused.split(":")[0] or row.result.rms_bias < 1e-12 for row in rows]
    ['group_size=2', True]
    """
    group_sizes = tuple(group_sizes)
    for method, baseline in itertools.product(methods, baselines):
        options_of(method, baseline)
    return [
        _row(surrogate, method, baseline, size, prior)
        for method, baseline, size in itertools.product(methods, baselines, group_sizes)
    ]


def _row(surrogate, method, baseline, size, prior):
    options = {}
    if prior is not None and "prior" in options_of(method, baseline):
        options["prior"] = prior
    try:
        table = from_surrogate(
            surrogate, size, method=method, baseline=baseline, **options
        )
    except ValueError as error:
        return FrontierRow(method, baseline, size, None, str(error))
    result = bias_variance(table, surrogate, prior)
    return FrontierRow(method, baseline, size, result)
