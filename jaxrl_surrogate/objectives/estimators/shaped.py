"""Estimators with a factor that depends on the group's success rate t = m / M.

Such a factor is equivalent to a regulariser of the reward (arXiv 2510.23049). With A+
the weight of a correct sample and m ~ Bin(M, p), h_M'(p) = E[m A+] / (M p q) if the
weights of a group sum to zero.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.estimators import counts
from jaxrl_surrogate.objectives.estimators.mean_reward import grpo
from jaxrl_surrogate.objectives.weight_table import WeightTable


def focal_grpo(group_size: int, gamma: float = 1.0) -> WeightTable:
    """GRPO times (1 - t)^gamma: hard prompts weigh more (F-GRPO, arXiv 2602.06717).

    The limit of h_M' is q^gamma / sqrt(p q), the slope of the surrogate `focal`. At
    gamma = 1 that surrogate is half of GRPO's plus the reward's standard deviation.
    """
    counts.check_at_least("gamma", gamma)
    return _times(group_size, lambda t: (1 - t) ** gamma)


def easy_grpo(group_size: int, gamma: float = 1.0) -> WeightTable:
    """GRPO times t^gamma: easy prompts weigh more.

    The limit of h_M' is p^gamma / sqrt(p q). For gamma = 1 the surrogate is half of
    GRPO's minus the standard deviation of the reward (arXiv 2510.23049).
    """
    counts.check_at_least("gamma", gamma)
    return _times(group_size, lambda t: t**gamma)


def regularized_grpo(group_size: int, weight: float = 0.5) -> WeightTable:
    """GRPO times 1 + weight (1 - 2 t) / 2 (arXiv 2510.23049; the factor derived here).

    The limit of the objective is 2 arcsin sqrt(p) + weight sqrt(p q). |weight| is at
    most 2, so that no prompt has a negative weight.
    """
    counts.check_number("weight", weight)
    if not abs(weight) <= 2:
        raise FieldError(
            "weight",
            weight,
            "between -2 and 2",
            "beyond, easy or hard prompts would be trained against",
        )
    return _times(group_size, lambda t: 1 + weight * (1 - 2 * t) / 2)


def fade(group_size: int, alpha: float = 2.0, delta: float = 1.0) -> WeightTable:
    """Z = (1 - t)^(alpha-1) (R - t), divided by delta where negative (FADE).

    The paper is arXiv 2607.01490; the objective is derived here.
    h_M'(p) = E[t (1 - t)^alpha] (1 / p + 1 / (delta q)). For delta = 1 the limit is
    q^(alpha-1), the slope of pass@alpha over alpha, for any real alpha.
    """
    counts.needs_others("fade", group_size)
    counts.check_at_least("alpha", alpha, above=True)
    counts.check_at_least("delta", delta, above=True)
    rate = counts.rates(group_size)
    right = (1 - rate) ** alpha
    wrong = -counts.divide(rate * right, 1 - rate) / delta
    return counts.by_count(group_size, right, wrong)


def _times(group_size, factor):
    right = np.append(0.0, np.asarray(grpo(group_size).correct))
    return counts.centred(group_size, factor(counts.rates(group_size)) * right)


METHODS = (focal_grpo, easy_grpo, regularized_grpo, fade)
