"""Estimators that seek risk: softmax weights, and one-sided normalisation."""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.estimators import counts
from jaxrl_surrogate.objectives.weight_table import WeightTable


def softmax_grpo(group_size: int, tau: float = 1.0) -> WeightTable:
    """Z = M softmax(R / tau) - 1 (SoftmaxGRPO, arXiv 2608.09271, eq. 1).

    With c = e^(1/tau):  d_s = M [c / (M + (s + 1)(c - 1)) - 1 / (M + s (c - 1))] and
    h_M'(p) = E[d_S]; its limit is (c - 1) / (1 + p (c - 1)), the slope of
    log E[e^(R/tau)]. For large tau it tends to `dr_grpo` / tau, for small to `maxrl`.
    """
    counts.needs_others("softmax_grpo", group_size)
    counts.check_at_least("tau", tau, above=True)
    return counts.centred(group_size, _softmax_lead(group_size, 1 / tau))


def rs_grpo(group_size: int, beta: float = 2.0) -> WeightTable:
    """Z = (e^(beta R) / mean_j e^(beta R_j) - 1) / beta (RS-GRPO, arXiv 2509.24261).

    It is tau times SoftmaxGRPO at tau = 1 / beta. The limit of h_M' is
    (c - 1) / (beta (1 + p (c - 1))), c = e^beta, the slope of the surrogate `entropic`.
    beta < 0 avoids risk.
    """
    counts.needs_others("rs_grpo", group_size)
    counts.check_number("beta", beta)
    if beta == 0 or not abs(beta) <= 600:
        raise FieldError(
            "beta", beta, "between -600 and 600 and not 0 (the limit at 0 is dr_grpo)"
        )
    return counts.centred(group_size, _softmax_lead(group_size, beta) / beta)


def one_sided_grpo(group_size: int, epsilon: float = 0.0) -> WeightTable:
    """Z = (R - m / M) / (sqrt(m / M) + epsilon), 0 where none is correct.

    It is in the code of MaxRL (arXiv 2602.02710); the objective is derived here. With
    t = m / M and m ~ Bin(M, p):  h_M'(p) = E[t (1 - t) / (sqrt(t) + epsilon)] / (p q).
    Its limit is p^(-1/2), the slope of 2 sqrt(p).
    """
    counts.needs_others("one_sided_grpo", group_size)
    counts.check_at_least("epsilon", epsilon)
    rate = counts.rates(group_size)
    right = counts.divide(1 - rate, np.sqrt(rate) + epsilon)
    return counts.centred(group_size, right)


def _softmax_lead(group_size, beta):
    """Return (M + 1,) M softmax(beta R) - 1 of a correct sample, for m = 0 .. M."""
    count = np.arange(group_size + 1)
    share = count + (group_size - count) * np.exp(-beta)
    return counts.divide(group_size, share) - 1


METHODS = (softmax_grpo, rs_grpo, one_sided_grpo)
