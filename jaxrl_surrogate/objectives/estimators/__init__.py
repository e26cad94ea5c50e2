"""Published estimators on binary rewards, each defined once as a weight table.

Conventions. A group of M samples has m correct ones. The update is the mean over the
group of Z_i times the score of sample i, so methods that are published as sums are
multiplied by M. R is a sample's own reward, S the number of correct samples among the
others, p the probability that a sample is correct, and q = 1 - p. A method in count
form gives a correct sample A+(m) and an incorrect one A-(m), that is b[s] = A+(s + 1)
and a[s] = A-(s). Docstrings give h_M'(p), the exact slope of the objective that the
method ascends, and often its limit for large M.

A method raises an error for a group size at which all its weights would be zero, such
as M = 1 for a centred method or k >= M in GRPO for pass@k. Such a run would not train.

Methods that are not functions of one group's counts are not included: deviations over
the whole batch, sampling until groups are mixed, and rejection until a number of
correct answers is found. docs/theory.md gives their objectives.
"""

from jaxrl_surrogate.objectives.estimators import (
    at_k,
    likelihood,
    mean_reward,
    risk,
    shaped,
)

# By name, in the order pass@1, log family, softmax, pass@k, shaping.
METHODS = {
    method.__name__: method
    for module in (mean_reward, likelihood, risk, at_k, shaped)
    for method in module.METHODS
}
