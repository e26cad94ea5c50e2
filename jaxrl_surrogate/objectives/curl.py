"""A test of whether a rule for weights has an objective on graded rewards.

A policy gives the reward levels x_1 .. x_L the probabilities p_1 .. p_L. The mean
update of a rule is sum_l F_l(p) grad p_l, where F_l is the mean weight of a sample of
level l among random others. It is the gradient of an objective J(p) if and only if F
has no curl on the simplex. As F is a polynomial in p, finitely many groups decide this.
Let D(x, y | c) be the weight of x minus that of y in a group of x, y and M - 2 others
c. The curl vanishes if and only if

    D(x, y | c) + D(y, z | c) + D(z, x | c) = 0

for all levels x, y, z and all c. Two levels have no such triple, so on binary rewards
every rule has an objective.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import check_group_size

_MOST_GROUPS = 20_000
# The allowed rounding of a float32 rule, as a fraction of the largest weight.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Circulation:
    """The largest curl of a rule, and the group where it was found."""

    share: float  # largest |sum of D| over the largest weight; 0 for a gradient
    levels: tuple[float, ...]  # the triple x, y, z where it is largest
    others: tuple[float, ...]  # the rewards of the M - 2 others there

    @property
    def has_objective(self) -> bool:
        """Whether the rule has an objective on these levels: the curl is rounding."""
        return self.share <= _ROUNDING

    def __str__(self) -> str:
        """Return the result as a sentence."""
        if self.has_objective:
            return "the gradient of an objective on these levels"
        return (
            f"the gradient of nothing on these levels: among others with rewards "
            f"{_shown(self.others)}, the preferences between {_shown(self.levels)} go "
            f"round in a circle by {self.share:.0%} of the largest weight"
        )


def circulation(
    rule: Callable[[jax.Array], jax.Array], levels: Sequence[float], group_size: int
) -> Circulation:
    """Return the largest curl of a rule over all groups of the given reward levels.

    Args:
      rule: a function of (M,) rewards to (M,) weights. A permutation of the rewards has
        to permute the weights in the same way. It is called with float64 JAX arrays and
        may use NumPy or JAX.
      levels: L different rewards; repeated ones are merged.
      group_size: M.

    Raises:
      FieldError: for fewer than two levels, for weights that are not finite or have
        another shape, or for more than 20000 groups.

    >>> grpo = lambda r: (r - r.mean()) / (r.std() + 1e-6)
    >>> circulation(grpo, [0.0, 0.5, 1.0], 4).has_objective
    False
    >>> circulation(grpo, [0.0, 1.0], 4).has_objective
    True
    """
    check_group_size(group_size)
    levels = tuple(sorted({float(x) for x in levels}))
    if len(levels) < 2 or not np.isfinite(levels).all():
        raise FieldError("levels", levels, "two or more different numbers")
    count = math.comb(group_size + len(levels) - 1, len(levels) - 1)
    if count > _MOST_GROUPS:
        raise FieldError(
            "levels",
            problem=f"groups of {group_size} with {len(levels)} levels are {count} "
            "different ones",
            expected=f"at most {_MOST_GROUPS}: take fewer levels or smaller groups",
        )
    worst = Circulation(0.0, levels[:3], ())
    if group_size < 2:
        return worst
    largest, found = 0.0, []
    for others in itertools.combinations_with_replacement(levels, group_size - 2):
        lead = {}
        for x, y in itertools.combinations(levels, 2):
            weights = _evaluate(rule, (x, y, *others))
            lead[x, y] = weights[0] - weights[1]
            largest = max(largest, float(np.abs(weights).max()))
        for x, y, z in itertools.combinations(levels, 3):
            found.append((abs(lead[x, y] + lead[y, z] - lead[x, z]), (x, y, z), others))
    if not found or not largest:
        return worst
    size, triple, others = max(found, key=lambda entry: entry[0])
    return Circulation(float(size / largest), triple, others)


def _evaluate(rule, rewards):
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        weights = np.asarray(rule(jnp.asarray(rewards, jnp.float64)), np.float64)
    if weights.shape != (len(rewards),) or not np.isfinite(weights).all():
        raise FieldError(
            "rule",
            expected=f"{len(rewards)} finite weights for the rewards "
            f"{_shown(rewards)}, got {weights}",
        )
    return weights


def _shown(values):
    return ", ".join(f"{x:g}" for x in values) or "none"
