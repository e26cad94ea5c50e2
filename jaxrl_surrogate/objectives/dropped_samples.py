"""The mean update where samples are dropped in a way that depends on the answer.

A sample is dropped if its completion is cut at the length limit
(`train.overlong=mask`) or if the verifier fails on it. Its group is then smaller and is
weighed by the table of its size. If dropping is independent of the
answer, the table of each size keeps its objective. Otherwise let f be the probability
that a completion is kept and r the probability that a kept one is correct. Among M
samples n ~ Bin(M, f) are kept, and each is correct with probability r. The mean scores
of correct and incorrect ones are grad log(f r) and grad log(f (1 - r)), and the mean
update is

    E[g] = sum_n P(n) ( h_n'(r) grad r + w_n(r) grad log f )              n = 1 .. M

Here h_n' is the slope of the objective of size n, and w_n(r) the mean weight of its
samples. Rules whose weights sum to 0 in every group have w_n = 0: they ascend the
success rate among kept completions, and nothing trains completions to be kept.
REINFORCE has w_n = r h_n', and its update is P(n >= 1) / f times grad (f r), the
gradient of the success rate over all completions. In general, a sum of the two
gradients with separate factors is not the gradient of an objective. `kept_update`
therefore returns both factors.
"""

import numpy as np

from jaxrl_surrogate.objectives.bernstein import basis
from jaxrl_surrogate.objectives.weight_table import TableFamily


def kept_update(family: TableFamily, kept: float, right: float) -> tuple[float, float]:
    """Return the factors of grad r and of grad log f in the mean update of a prompt.

    The update of a group is its mean over the samples that it kept, as in
    `losses.token_weights`. (The loss `dapo` weighs a group by its tokens instead, which
    adds a factor n.) The mean over prompts divides by the number of prompts that kept
    any sample, a common factor that is left out here.

    Args:
      family: the family of the rule, of group size M.
      kept: f, the probability that a completion is kept, in [0, 1].
      right: r, the probability that a kept completion is correct, in [0, 1].

    Returns:
      Two floats: sum_n P(n) h_n'(r) and sum_n P(n) w_n(r).

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
