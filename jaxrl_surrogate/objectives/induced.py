"""From weights to the objective: the surrogate h_M that a weight table ascends.

Let a table with the gap d = b - a weigh groups of M independent samples that are each
correct with probability t. Its mean update is the gradient of h_M(t), with

    h_M'(t) = sum_s d_s C(M-1, s) t^s (1-t)^(M-1-s)                   s = 0 .. M-1

(Davis and Recht, arXiv 2510.13651). This is a polynomial of degree M - 1 or less, and
each such polynomial has exactly one gap. Its integral h_M is the Bernstein polynomial
of degree M whose coefficients are the running sums of d / M. The statement holds
on-policy, that is for the first update after sampling, and without clipping.
"""

import numpy as np

from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.surrogate import Surrogate
from jaxrl_surrogate.objectives.weight_table import WeightTable


def induced_surrogate(table: WeightTable) -> Surrogate:
    """Return the objective that a table ascends: h_M with h_M(0) = 0, and h_M'.

    NumPy input is evaluated in float64 from the logarithms of count probabilities. JAX
    input is evaluated by de Casteljau's recurrence, which costs O(M^2) and is stable in
    float32. Both are accurate for M of 512 and more.

    Args:
      table: a weight table of group size M.

    Returns:
      A surrogate, elementwise on [0, 1]. Its slope is a known polynomial, so the method
      `exact` of `from_surrogate` gives back the gap.

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
