"""From weights to the objective: what any weight table ascends.

A table with the gap d = b - a, applied to groups of M independent samples that are each
right with probability t, ascends h_M with

    h_M'(t) = sum_s d_s C(M-1, s) t^s (1-t)^(M-1-s)                   s = 0 .. M-1

(Davis and Recht, arXiv 2510.13651), a polynomial of degree M - 1, and any such
polynomial has exactly one gap. Its integral is the Bernstein polynomial of degree M
whose coefficients are the running sums of d / M. Independent samples, on-policy, the
first update after sampling, no clipping.
"""

import numpy as np

from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.surrogate import Surrogate
from jaxrl_surrogate.objectives.weight_table import WeightTable


def induced_surrogate(table: WeightTable) -> Surrogate:
    """The objective that a table ascends: h_M with h_M(0) = 0, and h_M'.

    NumPy input is computed in float64 from probabilities of counts in log space, JAX
    input by de Casteljau's recurrence, O(M^2) and stable in float32; both hold for M of
    512 and more. All-zero gaps give the zero objective.

    Args:
      table: of group size M.

    Returns:
      A surrogate, elementwise on [0, 1], whose slope is a known polynomial: `exact`
      inverts it.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> h = induced_surrogate(advantages.table("rejection_sampling", 2))
    >>> h.slope(np.array([0.0, 0.5, 1.0])).tolist(), float(h.value(1.0))
    ([2.0, 1.5, 1.0], 1.5)
    """
    group_size = table.group_size
    gap = np.asarray(table.gap, np.float64)
    steps = np.concatenate([[0.0], np.cumsum(gap)]) / group_size
    return Surrogate(
        value=bernstein.polynomial(steps),
        slope=bernstein.polynomial(gap),
        name="induced",
        params={"group_size": group_size},
        bernstein=gap,
    )
