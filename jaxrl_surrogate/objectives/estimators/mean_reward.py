"""Estimators of the pass@1 family: REINFORCE, its baselines and GRPO."""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import baselines
from jaxrl_surrogate.objectives.estimators import counts
from jaxrl_surrogate.objectives.weight_table import WeightTable


def reinforce(group_size: int) -> WeightTable:
    """Z = R (Williams, 1992; PSR of arXiv 2506.01347).  h_M'(p) = 1."""
    return WeightTable(np.zeros(group_size), np.ones(group_size))


def nsr(group_size: int) -> WeightTable:
    """Z = R - 1: negative samples alone (NSR, arXiv 2506.01347).

    h_M'(p) = 1 as for `reinforce`: the two differ in variance, not in their objective.
    """
    return WeightTable(-np.ones(group_size), np.zeros(group_size))


def w_reinforce(group_size: int, weight: float = 0.1) -> WeightTable:
    """Z = weight for a correct answer, -1 for an incorrect one (arXiv 2506.01347).

    h_M'(p) = 1 + weight.
    """
    counts.check_at_least("weight", weight)
    return WeightTable(-np.ones(group_size), np.full(group_size, float(weight)))


def rloo(group_size: int) -> WeightTable:
    """Z = R - S / (M - 1), with S of the others correct (RLOO, arXiv 2402.14740).

    h_M'(p) = 1. Needs M >= 2: one sample has no others.
    """
    return baselines.leave_one_out(np.ones(group_size))


def dr_grpo(group_size: int) -> WeightTable:
    """Z = R - m / M (Dr. GRPO, arXiv 2503.20783).  h_M'(p) = (M - 1) / M."""
    counts.needs_others("dr_grpo", group_size)
    return counts.centred(group_size, 1 - counts.rates(group_size))


def asymmetric_grpo(group_size: int, delta: float = 2.0) -> WeightTable:
    """Z = R - m / M, divided by delta where it is negative (FADE, arXiv 2607.01490).

    h_M'(p) = (M - 1) / M (q + p / delta): delta above 1 gives easy prompts less weight.
    """
    counts.needs_others("asymmetric_grpo", group_size)
    counts.check_at_least("delta", delta, above=True)
    rate = counts.rates(group_size)
    return counts.by_count(group_size, 1 - rate, -rate / delta)


def grpo(
    group_size: int,
    std: str = "population",
    epsilon: float = 0.0,
    epsilon_inside: bool = False,
) -> WeightTable:
    """Z = (R - m / M) / (std + epsilon), 0 in all-equal groups (arXiv 2402.03300).

    The paper does not define the deviation. Exact counts need no epsilon, so its
    default is 0. Published code uses the population deviation (Chen et al., 2508.10751)
    or the sample deviation (verl with epsilon 1e-6, TRL with 1e-4). With
    v = (m / M)(1 - m / M) and m ~ Bin(M, p), for the population deviation,
        h_M'(p) = E[v / (sqrt(v) + epsilon)] / (p q)
    Without epsilon it is constant for M = 2 and 3. It tends to 1 / sqrt(p q), the slope
    of 2 arcsin sqrt(p).

    Args:
      group_size: M >= 2.
      std: "population" divides squares by M, "sample" by M - 1 (torch.std).
      epsilon: 0 or more.
      epsilon_inside: whether to divide by sqrt(variance + epsilon), not std + epsilon.
    """
    if std not in ("population", "sample"):
        raise FieldError("std", std, "'population' or 'sample'")
    if not isinstance(epsilon_inside, bool):
        raise FieldError("epsilon_inside", epsilon_inside, "true or false")
    counts.check_at_least("epsilon", epsilon)
    counts.needs_others("grpo", group_size)
    count = np.arange(group_size + 1)
    variance = count * (group_size - count) / group_size**2
    if std == "sample":
        variance *= group_size / (group_size - 1)
    if epsilon_inside:
        scale = np.sqrt(variance + epsilon)
    else:
        scale = np.sqrt(variance) + epsilon
    right = counts.divide(1 - count / group_size, scale)
    return counts.centred(group_size, right)


def variance_grpo(group_size: int) -> WeightTable:
    """Z = (R - m / M) / ((m / M)(1 - m / M)): GRPO divided by the variance.

    h_M'(p) = (1 - p^M - q^M) / (p q). The limit of the objective is the log-odds,
    log(p / q).
    """
    counts.needs_others("variance_grpo", group_size)
    right = counts.divide(1.0, counts.rates(group_size))
    return counts.centred(group_size, right)


METHODS = (
    reinforce,
    nsr,
    w_reinforce,
    rloo,
    dr_grpo,
    asymmetric_grpo,
    grpo,
    variance_grpo,
)
