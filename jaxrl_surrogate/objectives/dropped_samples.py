"""What a family ascends where samples are dropped for what they are.

A completion that is cut at the length limit and dropped (`train.overlong=mask`), or one
on which the verifier fails, leaves a smaller group, weighed by the table of its size.
Where dropping has nothing to do with the answer, each size keeps its objective. Where
it has, let f be the chance that a completion is kept and r the chance that a kept one
is correct. Among M samples n ~ Bin(M, f) are kept, each correct with chance r, and
scores have the means grad log(f r) and grad log(f (1 - r)), so that the mean update is

    E[g] = sum_n P(n) ( h_n'(r) grad r + w_n(r) grad log f )              n = 1 .. M

with h_n' the slope of the objective of size n and w_n(r) the mean weight of its
samples. Rules whose weights sum to 0 in every group have w_n = 0: they ascend the
success rate among kept completions, and nothing trains them to be kept. With REINFORCE
w_n = r h_n', which makes the whole P(n >= 1) / f times grad (f r), the gradient of the
success rate over all completions. Two gradients with factors of their own are in
general the gradient of no objective, which is why both are stated.
"""

import numpy as np

from jaxrl_surrogate.objectives.bernstein import basis
from jaxrl_surrogate.objectives.weight_table import TableFamily


def kept_update(family: TableFamily, kept: float, right: float) -> tuple[float, float]:
    """The factors of grad r and of grad log f in the mean update of a prompt.

    Groups are divided by the samples that they kept (`losses.token_weights`; its `dapo`
    counts a group by its tokens instead, and so by n more). What the mean over prompts
    divides by, those that kept any sample, is one factor more for all of them.

    Args:
      family: of the rule, whole groups of M.
      kept: f, in [0, 1].
      right: r among the kept, in [0, 1].

    >>> from jaxrl_surrogate.objectives import advantages, table_family
    >>> for name in ("rloo", "reinforce"):
    ...     found = kept_update(table_family(advantages.get(name).table, 4), 0.6, 0.5)
    ...     print(name, [round(float(factor), 4) for factor in found])
    rloo [0.8208, 0.0]
    reinforce [0.9744, 0.4872]
    """
    size = family.group_size
    sizes = basis(size, np.float64(kept))
    on_right = on_kept = 0.0
    for n in range(1, size + 1):
        table, others = family.table(n), basis(n - 1, np.float64(right))
        if_right, if_wrong = others @ table.correct, others @ table.incorrect
        on_right += sizes[n] * (if_right - if_wrong)
        on_kept += sizes[n] * (right * if_right + (1 - right) * if_wrong)
    return float(on_right), float(on_kept)
