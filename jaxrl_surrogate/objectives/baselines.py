"""Baselines: the choice among weight tables that share one gap, and so one objective.

In a table, a_s is the weight of an incorrect sample and b_s that of a correct one, each
beside s correct samples. The expected update depends on the gap d_s = b_s - a_s alone.
A baseline chooses a_s, which changes only the variance of the update.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import bernstein, priors
from jaxrl_surrogate.objectives.names import check_parameters
from jaxrl_surrogate.objectives.weight_table import WeightTable


def none(gap: np.ndarray) -> WeightTable:
    """Return the table with Z = R d_S, which gives incorrect samples the weight 0.

    Args:
      gap: (M,) float64.
    """
    return WeightTable(np.zeros(len(gap)), gap)


def leave_one_out(gap: np.ndarray) -> WeightTable:
    """Return Z = d_S (R - S / (M - 1)): the baseline is the others' success rate.

    R is a sample's own reward and S the number of correct samples among the others. As
    S does not depend on R, the baseline leaves the objective of d unchanged. A gap of
    ones gives RLOO.

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
    """Return Z = (R - m / M) M / (M - 1) e_{m-1}, weights that sum to 0 in every group.

    m is the number of correct samples in the group. All-correct and all-incorrect
    groups have weights of 0, which leaves M - 1 free numbers for the M entries of a
    gap. Such weights therefore exist only where h_M' has degree M - 2 or less. The e
    are the Bernstein coefficients of h_M' at that degree, and the table is
    unique. This is why centring costs MaxRL (arXiv 2602.02710) the last order of
    rejection sampling, and why pass@M has no centred weights.

    Args:
      gap: (M,) float64, M >= 2.
      tolerance: the largest allowed change of the gap to the nearest one that is
        attainable, as a fraction of its largest entry. A tolerance above rounding
        allows the objective to change too.

    Raises:
      FieldError: at M = 1, and where the gap would have to change by more.

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
    """Return the table of least variance, in the mean over a prior of p.

    The model of a sample's score is (R - p) g + noise. Here g is the gradient of the
    prompt's logit of p, and the noise is independent of everything else, with mean zero
    and second moment `score_noise` |g|^2. With infinite noise the variance is
    proportional to E[Z^2], which is least for

        a_s = -E[p | s of the others correct] d_s    ( = -(s + alpha) / (M - 1 + alpha +
                                                         beta) d_s for a beta prior)

    A noise of 0 describes a policy with one parameter. For finite noise the a_s solve a
    tridiagonal linear system. In the mean over its prior no baseline has less variance.

    Args:
      gap: (M,) float64.
      prior: (alpha, beta), or (points, weights); uniform by default.
      score_noise: 0 or more. Large policies, whose scores have many directions, are
        close to infinity.

    Raises:
      FieldError: for a negative noise, or for a prior under which some number of
        correct samples has probability 0.
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
    """Return the (M,) a that minimises E[((1/M) sum Z (R - p))^2] + noise E[Z^2] / M.

    M is the group size, and the minimum is exact.
    """
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
    """Return the baseline of a name: a function of an (M,) gap and options to a table.

    Raises:
      ValueError: for an unknown name.
    """
    if name not in _BASELINES:
        raise unknown("baseline", name, names())
    return _BASELINES[name]


def apply(name: str, gap: np.ndarray, **options) -> WeightTable:
    """Return the table of an (M,) gap with the baseline of a registered name.

    Raises:
      ValueError: for an unknown name or option, or a group size or gap that the
        baseline does not support.

    >>> print(apply("min_variance", np.ones(3), prior=(1, 1)).correct)
    [0.75 0.5  0.25]
    """
    make = find(name)
    check_parameters(make, name, options, given=("gap",))
    return make(gap, **options)


def names() -> tuple[str, ...]:
    """Return the registered names of baselines."""
    return tuple(_BASELINES)


_BASELINES = {
    baseline.__name__: baseline
    for baseline in (none, leave_one_out, zero_sum, min_variance)
}
