"""Estimators of the log family: rejection sampling, maximum likelihood, log-odds."""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import baselines
from jaxrl_surrogate.objectives.estimators import counts
from jaxrl_surrogate.objectives.weight_table import WeightTable


def rejection_sampling(group_size: int) -> WeightTable:
    """Z = R M / m: the mean score of the correct answers, 0 where none is correct.

    (Davis and Recht, arXiv 2510.13651; RAFT, and STaR with a mean per prompt.)
    h_M'(p) = (1 - q^M) / p, the series of 1 / p cut at order M. The limit of the
    objective is log p.
    """
    return WeightTable(np.zeros(group_size), _rejection_gap(group_size))


def rejection_control(group_size: int) -> WeightTable:
    """Z = R M / m - 1, and -1 for all where none is correct.

    The control variate is the mean score of all samples, in every group. Unlike `maxrl`
    it keeps all-incorrect groups and with them the last order of the series.
    h_M'(p) = (1 - q^M) / p.
    """
    gap = _rejection_gap(group_size)
    return WeightTable(-np.ones(group_size), gap - 1)


def rejection_loo(group_size: int) -> WeightTable:
    """Z = M / (S + 1) (R - S / (M - 1)): rejection sampling, leave-one-out baseline.

    h_M'(p) = (1 - q^M) / p. Needs M >= 2.
    """
    return baselines.leave_one_out(_rejection_gap(group_size))


def best_of_n_sft(group_size: int) -> WeightTable:
    """Imitation of one best sample per group, an incorrect one if none is correct.

    The weights are the mean over the choice of that sample: Z = R M / m, and 1 for all
    if none is correct.  h_M'(p) = (1 - q^(M-1)) / p: imitating incorrect samples costs
    the last order of the series. Needs M >= 2, as imitating the only sample has a mean
    update of 0.
    """
    counts.needs_others("best_of_n_sft", group_size)
    wrong = np.zeros(group_size)
    wrong[0] = 1.0
    return WeightTable(wrong, _rejection_gap(group_size))


def maxrl(group_size: int) -> WeightTable:
    """Z = (R - m / M) / (m / M), 0 where none is correct (MaxRL, 2602.02710, alg. 1).

    h_M'(p) = (1 - q^(M-1)) / p: centring costs the last order of rejection sampling.
    """
    counts.needs_others("maxrl", group_size)
    count = np.arange(group_size + 1)
    return counts.centred(group_size, counts.divide(group_size - count, count))


def truncated_maxrl(group_size: int, order: int) -> WeightTable:
    """MaxRL cut after T terms: 1 for a correct sample, and for an incorrect one

        Z = -sum_{k=2}^T C(F - 1, k - 1) / C(M - 1, k - 1), F = M - m incorrect ones.

    They ascend the series of the log-likelihood up to order T, 1 <= T <= M (MaxRL,
    arXiv 2602.02710).  h_M'(p) = (1 - q^T) / p. T = 1 is `reinforce`, and T = M has the
    objective of rejection sampling.
    """
    counts.check_integer("order", order)
    if order > group_size:
        raise FieldError(
            "order",
            order,
            problem=f"groups of {group_size} reach order {group_size}",
            remedy="take larger groups",
        )
    wrong = np.zeros(group_size)
    for k in range(2, order + 1):
        wrong -= counts.subset_miss(group_size - 1, k - 1)
    return WeightTable(wrong + 0.0, np.ones(group_size))


def two_sided_rejection(group_size: int) -> WeightTable:
    """The mean score of correct samples minus that of incorrect ones.

    Z = M / m for a correct sample, -M / (M - m) for an incorrect one.

    h_M'(p) = (1 - q^M) / p + (1 - p^M) / q. The limit of the objective is the log-odds,
    log(p / q). Groups that are all correct or all incorrect have weights too;
    `variance_grpo` is the same without them.
    """
    right = _rejection_gap(group_size)
    return WeightTable(-right[::-1], right)


def tsallis(group_size: int, r: float = 0.5) -> WeightTable:
    """Z = d_S (R - S / (M - 1)), d the series of p^-r about 1, cut at order M.

    (The family of arXiv 2604.25907; the weights for M samples are derived here.)
        d_s = Gamma(M + r) Gamma(s + 1) / (Gamma(M) Gamma(s + 1 + r))
        h_M'(p) = sum_{j<M} (r)_j / j! q^j
    r >= 0; r = 0 is RLOO, r = 1 `rejection_loo`. Needs M >= 2.
    """
    counts.check_at_least("r", r)
    factors = 1 + r / np.arange(1, group_size)
    return baselines.leave_one_out(np.append(np.cumprod(factors[::-1])[::-1], 1.0))


def mmpo(group_size: int, order: int | None = None) -> WeightTable:
    """Z = d_S (R - S / (M - 1)) for the sum of pass@1 .. pass@T (arXiv 2608.02149).

    d_s = sum_{k<=T} k C(M - 1 - s, k - 1) / C(M - 1, k - 1); T = M by default.
    h_M'(p) = sum_{k<=T} k q^(k-1). For T = M the limit of the objective is -1 / p, up
    to a constant.
    """
    order = group_size if order is None else order
    counts.check_integer("order", order)
    if order > group_size:
        raise FieldError(
            "order",
            order,
            problem=f"groups of {group_size} serve pass@k up to k = {group_size}",
        )
    gap = np.zeros(group_size)
    for k in range(1, order + 1):
        gap += k * counts.subset_miss(group_size - 1, k - 1)
    return baselines.leave_one_out(gap)


def _rejection_gap(group_size: int) -> np.ndarray:
    return group_size / np.arange(1, group_size + 1)


METHODS = (
    rejection_sampling,
    rejection_control,
    rejection_loo,
    best_of_n_sft,
    maxrl,
    truncated_maxrl,
    two_sided_rejection,
    tsallis,
    mmpo,
)
