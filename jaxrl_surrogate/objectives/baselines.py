"""Baselines: which of the tables with one gap, and so one objective, to use.

Only the gap d_s = b_s - a_s enters the expected update; a_s is free and sets the noise.
"""

import numpy as np

from jaxrl_surrogate.objectives.names import nearest_name
from jaxrl_surrogate.objectives.weight_table import WeightTable


def none(gap: np.ndarray) -> WeightTable:
    """Z = R d_S: wrong samples count nothing. (M,) gap to a table."""
    return WeightTable(np.zeros(len(gap)), gap)


def leave_one_out(gap: np.ndarray) -> WeightTable:
    """Z = d_S (R - S / (M - 1)): the others' success rate as baseline.

    Unbiased for the objective of d, since S holds nothing of the sample's own reward.
    d = 1 is RLOO.

    Args:
      gap: (M,) float64, M >= 2.

    Raises:
      ValueError: at M = 1, where there are no others.
    """
    group_size = len(gap)
    if group_size < 2:
        raise ValueError(
            f"group_size={group_size}: a leave-one-out baseline compares a sample "
            "with the others of its group; take 2 or more samples, or no baseline"
        )
    others = np.arange(group_size) / (group_size - 1)
    # 0.0 - x, for zeros without a sign.
    return WeightTable(0.0 - gap * others, gap * (1 - others))


def apply(name: str, gap: np.ndarray) -> WeightTable:
    """The table of a gap with the baseline of a registered name.

    Raises:
      ValueError: for an unknown name, or a group size the baseline cannot serve.
    """
    if name not in _BASELINES:
        raise ValueError(nearest_name("baseline", name, names()))
    return _BASELINES[name](gap)


def names() -> tuple[str, ...]:
    """The registered names."""
    return tuple(_BASELINES)


_BASELINES = {baseline.__name__: baseline for baseline in (none, leave_one_out)}
