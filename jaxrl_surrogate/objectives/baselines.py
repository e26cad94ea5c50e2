"""Baselines: which of the tables with one gap, and so one objective, to use.

Only the gap d_s = b_s - a_s enters the expected update; a_s is free and sets the noise.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import bernstein, priors
from jaxrl_surrogate.objectives.names import check_parameters
from jaxrl_surrogate.objectives.weight_table import WeightTable


def none(gap: np.ndarray) -> WeightTable:
    """Z = R d_S: incorrect samples count nothing. (M,) gap to a table."""
    return WeightTable(np.zeros(len(gap)), gap)


def leave_one_out(gap: np.ndarray) -> WeightTable:
    """Z = d_S (R - S / (M - 1)): the others' success rate as baseline.

    Unbiased for the objective of d, since S holds nothing of the sample's own reward.
    d = 1 is RLOO.

    Args:
      gap: (M,) float64, M >= 2.

    Raises:
      FieldError: at M = 1, where there are no others.
    """
    group_size = len(gap)
    if group_size < 2:
        raise FieldError(
            "group_size",
            group_size,
            problem="a leave-one-out baseline compares a sample with the others of "
            "its group",
            remedy="take 2 or more samples, or no baseline",
        )
    others = np.arange(group_size) / (group_size - 1)
    # 0.0 - x, for zeros without a sign.
    return WeightTable(0.0 - gap * others, gap * (1 - others))


def zero_sum(gap: np.ndarray, tolerance: float = 1e-9) -> WeightTable:
    """Z = (R - m / M) M / (M - 1) e_{m-1}: the weights of every group sum to zero.

    Summing to zero in all-correct and all-incorrect groups leaves M - 1 free numbers
    for M
    gaps: h_M' must have degree M - 2 or less, and e are then its coefficients at that
    degree (THEORY F3, derived from p q h_M' in the basis of degree M). The table is the
    only one. The largest degree is why centring costs MaxRL (arXiv 2602.02710) the last
    order of rejection sampling, and why pass@M has no centred weights.

    Args:
      gap: (M,) float64, M >= 2.
      tolerance: how far the gap may move to the nearest that is attainable, as a share
        of the largest; with more than rounding the objective moves along.

    Raises:
      FieldError: at M = 1, and where the gap would have to move further.

    >>> print(zero_sum(np.array([1.0, 1.0, 1.0])).correct)
    [1.  0.5 0. ]
    """
    group_size = len(gap)
    if group_size < 2:
        raise FieldError(
            "group_size",
            group_size,
            problem="weights that sum to zero are all 0 in a group of 1",
            remedy="take 2 or more samples",
        )
    scale = np.abs(gap).max()
    reduced, error = bernstein.reduce(gap)
    if error > tolerance * scale:
        raise FieldError(
            "baseline",
            "zero_sum",
            problem=f"h_M' has degree {group_size - 1} here, and weights that sum to "
            f"zero in every group of {group_size} serve degree "
            f"{group_size - 2} and less",
            remedy=f"the nearest gap is off by {error / scale:.2g} of the largest. "
            "Take larger groups, baseline 'leave_one_out', or a tolerance "
            "above that (and another objective)",
        )
    count = np.arange(1, group_size)
    factor = group_size / (group_size - 1) * reduced
    right, wrong = np.zeros((2, group_size))
    right[:-1] = (1 - count / group_size) * factor
    wrong[1:] = 0.0 - count / group_size * factor
    return WeightTable(wrong, right)


def min_variance(
    gap: np.ndarray,
    prior: priors.PriorLike | None = None,
    score_noise: float = math.inf,
) -> WeightTable:
    """The baseline of least noise, mean over a prior of p.

    A sample's score is (R - p) g + noise, with g the gradient of the prompt's logit of
    p, and noise of mean zero and second moment `score_noise` |g|^2, independent of
    everything else. Infinite noise leaves E[Z^2] (THEORY 6.2), least for

        a_s = -E[p | s of the others correct] d_s    ( = -(s + alpha) / (M - 1 + alpha +
                                                         beta) d_s for a beta prior)

    Noise 0 is a policy with one parameter; between, a linear system with three
    diagonals. Never worse in the mean over its own prior than any other baseline.

    Args:
      gap: (M,) float64.
      prior: (alpha, beta), or (points, weights); uniform by default.
      score_noise: 0 or more; large policies, with scores of many directions, are near
        infinity.

    Raises:
      FieldError: for a negative noise, or a prior that makes a count impossible.
    """
    if not score_noise >= 0:
        raise FieldError(
            "score_noise", score_noise, "0 or more (inf: score noise alone)"
        )
    group_size = len(gap)
    if math.isinf(score_noise):
        expected = priors.posterior_mean(prior, group_size - 1)
        return WeightTable(0.0 - expected * gap, (1 - expected) * gap)
    wrong = _least_noise(gap, priors.settle(prior, group_size + 64), score_noise)
    return WeightTable(wrong, gap + wrong)


def _least_noise(gap, prior, score_noise):
    """Minimise E[((1/M) sum Z (R - p))^2] + (noise / M) E[Z^2] over a, exactly."""
    size = len(gap)
    p = prior.points
    q = 1 - p
    m = np.arange(size + 1)
    counts = prior.weights[:, None] * bernstein.basis(size, p)
    others = prior.weights[:, None] * bernstein.basis(size - 1, p)
    # The scalar part of a group with m correct ones is u[m] b_{m-1} q - w[m] a_m p.
    u, w = m / size, (size - m) / size
    up, cross, down = (x @ counts for x in (q * q, q * p, p * p))
    matrix = np.diag((w**2 * down)[:-1] + (u**2 * up)[1:])
    beside = -(u * w * cross)[1:-1]
    matrix += np.diag(beside, 1) + np.diag(beside, -1)
    target = -(u**2 * up)[1:] * gap
    target[1:] += (u * w * cross)[1:-1] * gap[:-1]
    # E[q a_S^2 + p (a_S + d_S)^2] over the others.
    matrix += score_noise / size * np.diag(others.sum(0))
    target -= score_noise / size * (p @ others) * gap
    return np.linalg.lstsq(matrix, target, rcond=None)[0]


def find(name: str) -> Callable[..., WeightTable]:
    """The baseline of a registered name: (M,) gap and options to a table.

    Raises:
      ValueError: for an unknown name.
    """
    if name not in _BASELINES:
        raise unknown("baseline", name, names())
    return _BASELINES[name]


def apply(name: str, gap: np.ndarray, **options) -> WeightTable:
    """The table of a gap with the baseline of a registered name.

    Raises:
      ValueError: for an unknown name or option, or a group size or gap that the
        baseline cannot serve.

    >>> print(apply("min_variance", np.ones(3), prior=(1, 1)).correct)
    [0.75 0.5  0.25]
    """
    make = find(name)
    check_parameters(make, name, options, given=("gap",))
    return make(gap, **options)


def names() -> tuple[str, ...]:
    """The registered names."""
    return tuple(_BASELINES)


_BASELINES = {
    baseline.__name__: baseline
    for baseline in (none, leave_one_out, zero_sum, min_variance)
}
