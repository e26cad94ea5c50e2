"""The field's estimators on binary rewards, each defined once, as its weight table.

Conventions: a group of M samples has m correct ones; the update is the mean over the
group of Z_i times the score of sample i, so methods published as sums are multiplied by
M. R is a sample's own reward, S the number of correct answers among the others, q = 1 -
p. A method in count form gives a correct sample A+(m) and an incorrect one A-(m), that
is b[s] = A+(s + 1) and a[s] = A-(s). Each docstring ends with the exact slope of the
objective the method ascends, h_M'(p).

A method refuses a group size at which its weights would all be zero: a centred method
at M = 1, GRPO for pass@k at k >= M. A run with such settings would train nothing.

Not here, as they are not functions of one group's counts: deviations over the whole
batch, groups that are sampled until they are mixed, and rejection until a number of
correct answers is found (docs/theory.md says what those ascend).
"""

from jaxrl_surrogate.objectives.estimators import (
    at_k,
    likelihood,
    mean_reward,
    risk,
    shaped,
)

# By name, in the order of THEORY: pass@1, log family, softmax, pass@k, shaping.
METHODS = {
    method.__name__: method
    for module in (mean_reward, likelihood, risk, at_k, shaped)
    for method in module.METHODS
}
