"""Estimators for pass@k = 1 - q^k, and GRPO on the best of k.

f(m) = C(M - m, k) / C(M, k) is the fraction of k-subsets without a correct answer.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import baselines
from jaxrl_surrogate.objectives.estimators import counts
from jaxrl_surrogate.objectives.estimators.mean_reward import grpo
from jaxrl_surrogate.objectives.weight_table import WeightTable


def group_max(group_size: int) -> WeightTable:
    """Z = M for every sample of a group with a correct answer: pass@M, no baseline.

    h_M'(p) = M q^(M-1).
    """
    wrong = np.full(group_size, float(group_size))
    wrong[0] = 0.0
    return WeightTable(wrong, np.full(group_size, float(group_size)))


def leave_one_out_max(group_size: int) -> WeightTable:
    """Z = M (max R - max of the others): pass@M (Tang et al., arXiv 2503.19595).

    Only a sample that is the single correct one of its group has a weight other than 0.
    h_M'(p) = M q^(M-1).
    """
    return pass_at_k(group_size, group_size)


def pkpo(group_size: int, k: int) -> WeightTable:
    """PKPO without a baseline (arXiv 2505.15201, eq. 8).

    Z = k for a correct sample, and k (1 - C(M-1-m, k-1) / C(M-1, k-1)) for others.

    This is k times the fraction of the k-subsets with the sample that contain a correct
    answer.  h_M'(p) = k q^(k-1); exact for 1 <= k <= M. k = 1 is REINFORCE.
    """
    counts.check_k("pkpo", k, group_size)
    wrong = k * (1 - counts.subset_miss(group_size - 1, k - 1))
    return WeightTable(wrong, np.full(group_size, float(k)))


def pkpo_loo(group_size: int, k: int) -> WeightTable:
    """`pkpo` minus M / (M - 1) k times the others' pass@k (2505.15201, eq. 29).

    h_M'(p) = k q^(k-1); exact for 1 <= k <= M - 1. k = 1 is RLOO.
    """
    counts.check_k("pkpo_loo", k, group_size, largest=group_size - 1)
    others = 1 - counts.subset_miss(group_size - 1, k)
    baseline = group_size / (group_size - 1) * k * others
    plain = pkpo(group_size, k)
    return WeightTable(plain.incorrect - baseline, plain.correct - baseline)


def pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = R k C(M - m, k - 1) / C(M - 1, k - 1): PKPO's leave-one-out-minus-one.

    It is eq. 33 of arXiv 2505.15201, times M. The weight of a correct sample is k times
    the probability that it is the only correct one among k samples. An incorrect sample
    has the weight 0.  h_M'(p) = k q^(k-1), the slope of 1 - q^k; exact for 1 <= k <= M.
    k = 1 is REINFORCE.
    """
    counts.check_k("pass_at_k", k, group_size)
    return WeightTable(np.zeros(group_size), _gap(group_size, k))


def rloo_pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = d_S (R - S / (M - 1)), d_s = k C(M - 1 - s, k - 1) / C(M - 1, k - 1).

    This adds the leave-one-out baseline to `pass_at_k`: the same objective with less
    variance.  h_M'(p) = k q^(k-1); exact for 1 <= k <= M, M >= 2. k = 1 is RLOO.
    """
    counts.check_k("rloo_pass_at_k", k, group_size)
    return baselines.leave_one_out(_gap(group_size, k))


def centred_pass_at_k(group_size: int, k: int) -> WeightTable:
    """A+ = k C(M - m, k) / C(M - 1, k): the unbiased weights that sum to zero.

    h_M'(p) = k q^(k-1); exact for 1 <= k <= M - 1, and the only such table. k = 1 is
    RLOO.
    """
    counts.check_k("centred_pass_at_k", k, group_size, largest=group_size - 1)
    right = k * group_size / (group_size - k) * counts.subset_miss(group_size, k)
    return counts.centred(group_size, right)


def dr_grpo_pass_at_k(group_size: int, k: int) -> WeightTable:
    """A+ = f(m): `grpo_pass_at_k` without the deviation.

    h_M'(p) = (M - k) / M q^(k-1): pass@k itself, up to (M - k) / (M k). k <= M - 1;
    k = 1 is Dr. GRPO.
    """
    counts.check_k("dr_grpo_pass_at_k", k, group_size, largest=group_size - 1)
    return counts.centred(group_size, counts.subset_miss(group_size, k))


def grpo_pass_at_k(group_size: int, k: int, epsilon: float = 0.0) -> WeightTable:
    """GRPO on the best of k, averaged over all k-subsets (Chen et al., eqs. 11-15).

    The paper is arXiv 2508.10751. Its code adds epsilon = 1e-6 to the deviation.
        A+ = f / (sqrt(f (1 - f)) + epsilon),  A- = -m / (M - m) A+,  0 where f is 0 or
        1;  h_M'(p) = E[m A+] / (M p q)
    The limit is q^(k/2-1) / sqrt(1 - q^k), the slope of (2 / k) arcsin sqrt(1 - q^k).
    k = 1 is GRPO with the population deviation.

    Args:
      group_size: M.
      k: 1 <= k <= M - 1. At k = M there is a single subset, so every weight would be 0,
        which raises an error.
      epsilon: 0 or more.
    """
    counts.check_at_least("epsilon", epsilon)
    counts.check_k("grpo_pass_at_k", k, group_size, largest=group_size - 1)
    miss = counts.subset_miss(group_size, k)
    right = counts.divide(miss, np.sqrt(miss * (1 - miss)) + epsilon)
    return counts.centred(group_size, right)


def full_sampling_pass_at_k(group_size: int, k: int) -> WeightTable:
    """GRPO over B = M / k disjoint groups of k, each with the reward of its best.

    (arXiv 2508.10751, eqs. 3-5.) The weights are the mean over all ways to form the
    groups, which has the objective of one way and less variance. A+(m) =
    E[sqrt((B - U) / U)], where U is the number of groups of k that contain one of the
    m correct answers.  h_M'(p) = q^(k-1) h'(1 - q^k), with h of GRPO at group size B.

    Args:
      group_size: M, a multiple of k, 2 k or more.
      k: 1 or more; 1 is GRPO with the population deviation.
    """
    counts.check_integer("k", k)
    if group_size % k or group_size < 2 * k:
        larger = max(2, -(-group_size // k)) * k
        raise FieldError(
            "k",
            k,
            problem="full_sampling_pass_at_k compares groups of k among the "
            f"{group_size} samples",
            expected=f"a group size that is a multiple of k, {2 * k} or more, such as "
            f"{larger}",
        )
    blocks = group_size // k
    reached = np.arange(1, blocks + 1)
    lead = np.sqrt((blocks - reached) / reached)
    right = np.zeros(group_size + 1)
    # P(U = u) for u = 0 .. B, one correct answer placed after another.
    share = np.zeros(blocks + 1)
    share[0] = 1.0
    places = k * np.arange(blocks + 1)
    for m in range(group_size):
        joins = share * np.maximum(places - m, 0) / (group_size - m)
        share = joins + np.append(0.0, share * (group_size - places))[:-1] / (
            group_size - m
        )
        right[m + 1] = share[1:] @ lead
    return counts.centred(group_size, right)


def plugin_pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = k (1 - t)^(k-1) (R - t) M / (M - 1), t = m / M: the slope at the group mean.

    (The recipe of arXiv 2510.23049 for pass@k.) It is biased for small groups, as a
    sample's own success lowers its weight. k may be above M.
    h_M'(p) = E[t k (1 - t)^k] M / ((M - 1) p q).
    """
    counts.needs_others("plugin_pass_at_k", group_size)
    counts.check_integer("k", k)
    rate = counts.rates(group_size)
    right = k * (1 - rate) ** k * group_size / (group_size - 1)
    return counts.centred(group_size, right)


def plugin_loo_pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = k (1 - t)^(k-1) (R - t), t = S / (M - 1): the slope at the others' mean.

    h_M'(p) is the Bernstein polynomial of k q^(k-1) of degree M - 1. k may be above M.
    """
    counts.check_integer("k", k)
    others = np.arange(group_size) / max(group_size - 1, 1)
    return baselines.leave_one_out(k * (1 - others) ** (k - 1))


def combined_pass_at_k(group_size: int, k: int) -> WeightTable:
    """t times `grpo_pass_at_k` plus 1 - t times `grpo`, t = m / M (2508.10751, eq. 18).

    h_M'(p) = E[m A+] / (M p q), with A+ of this method; k <= M - 1.
    """
    counts.check_k("combined_pass_at_k", k, group_size, largest=group_size - 1)
    rate = counts.rates(group_size)[1:]
    at_k = np.asarray(grpo_pass_at_k(group_size, k).correct)
    at_one = np.asarray(grpo(group_size).correct)
    right = rate * at_k + (1 - rate) * at_one
    return counts.centred(group_size, np.append(0.0, right))


def _gap(group_size, k):
    """Return the (M,) gap k C(M - 1 - s, k - 1) / C(M - 1, k - 1) of pass@k."""
    return k * counts.subset_miss(group_size - 1, k - 1)


METHODS = (
    group_max,
    leave_one_out_max,
    pkpo,
    pkpo_loo,
    pass_at_k,
    rloo_pass_at_k,
    centred_pass_at_k,
    dr_grpo_pass_at_k,
    grpo_pass_at_k,
    full_sampling_pass_at_k,
    plugin_pass_at_k,
    plugin_loo_pass_at_k,
    combined_pass_at_k,
)
