"""Bias and variance of a table, and what larger groups and other baselines buy.

Units. All is measured in the gradient of a prompt's logit, log(p / q), per unit: a
correct sample has the score q, an incorrect one -p, the mean update is p q h_M'(p), and
one prompt's worth of pass@1 is p q. These stay finite for every named surrogate. Beside
this scalar part, a large policy has scores in many other directions: noise of mean zero
and second moment v per sample, whatever the reward (THEORY 6.2). One group's update has

    variance = Var[(1/M) sum_i Z_i (R_i - p)] + v / M E[Z^2]

and G groups divide it by G. v = 0 is a policy with one parameter, exactly; for large
models the second part is nearly all of it.
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
    """E[Z^2] of one sample at success rates p (any shape), float64.

    E over S ~ Bin(M - 1, p) of q a_S^2 + p b_S^2. The least for a gap is p q E[d_S^2].

    >>> from jaxrl_surrogate.objectives import advantages
    >>> float(second_moment(advantages.table("reinforce", 1), 0.25))
    0.25
    """
    p = np.asarray(p, np.float64)
    wrong, right = (np.asarray(x, np.float64) for x in (table.incorrect, table.correct))
    others = bernstein.basis(table.group_size - 1, p)
    return (1 - p) * (others @ wrong**2) + p * (others @ right**2)


def scalar_variance(table: WeightTable, p: np.ndarray) -> np.ndarray:
    """Var[(1/M) sum_i Z_i (R_i - p)] of one group: a policy with one parameter.

    Exact: the sum over counts m ~ Bin(M, p). Divide by (p q)^2 for the gradient in p
    itself, whose mean is h_M'.
    """
    p = np.asarray(p, np.float64)
    size = table.group_size
    m = np.arange(size + 1)
    # The entries that no group of count m needs meet a factor 0.
    right = m / size * np.append(0.0, np.asarray(table.correct, np.float64))
    wrong = (1 - m / size) * np.append(np.asarray(table.incorrect, np.float64), 0.0)
    update = (1 - p)[..., None] * right - p[..., None] * wrong
    counts = bernstein.basis(size, p)
    mean = (counts * update).sum(-1)
    return (counts * (update - mean[..., None]) ** 2).sum(-1)


def bias(table: WeightTable, surrogate: Surrogate, p: np.ndarray) -> np.ndarray:
    """p q (h_M'(p) - h'(p)): how far the mean update is off, in units of the logit.

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
    """Means over a prior, in the units of this module, of one group's update."""

    group_size: int
    signal: float  # root mean square of p q h'
    rms_bias: float  # root mean square of p q (h_M' - h')
    worst_bias: float  # largest |p q (h_M' - h')| at a point of the prior
    worst_bias_at: float
    scalar_variance: float  # mean Var[(1/M) sum Z (R - p)]
    score_variance: float  # mean E[Z^2] / M, for v = 1

    def mean_squared_error(self, num_samples: int, score_noise: float) -> float:
        """Of the mean update of a prompt that gets `num_samples` samples, in groups.

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
    """The bias of a table against the surrogate asked for, and its noise.

    Args:
      table: of group size M.
      surrogate: h.
      prior: where p lies: (alpha, beta), or (points, weights); uniform by default.

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
    """One way to train a surrogate, and what it costs; or why there is none."""

    method: str
    baseline: str
    group_size: int
    result: BiasVariance | None  # None where the combination is refused
    refused: str = ""  # the reason


def frontier(
    surrogate: Surrogate,
    methods: Sequence[str],
    group_sizes: Iterable[int],
    baselines: Sequence[str] = ("leave_one_out",),
    prior: priors.PriorLike | None = None,
) -> list[FrontierRow]:
    """Bias and noise of every method, group size and baseline: what M buys.

    Bias falls with M and is that of the method; noise is that of the baseline too. Per
    sample, M times `score_variance`, it tends to the mean of p q h'^2: for arcsin that
    is 1, while for log it grows with M, as the reach to hard prompts is paid in
    variance.

    Args:
      surrogate: h.
      methods: of `from_surrogate`.
      group_sizes: M.
      baselines: of `from_surrogate`; `min_variance` is the best of a prior.
      prior: where p lies, for means and for the methods and baselines that take one.

    Returns:
      A row for each combination, in the order of methods, baselines, group sizes.

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
