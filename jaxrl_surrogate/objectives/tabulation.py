"""From functions to tables: any advantage on binary rewards as its weight table."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import (
    GroupFunction,
    WeightTable,
    check_group_size,
)

# What rounding may move a weight by, as a share of the largest weight: float32
# functions of counts stay below, and a function that is not of counts is far above.
_ROUNDING = 1e-5
_PERMUTATIONS = 4


class NoTable(FieldError):
    """A function whose weights depend on more than own reward and count."""


def tabulate(advantage_fn: GroupFunction, group_size: int) -> WeightTable:
    """The weight table of any function of one group's binary rewards.

    The function is called on the M + 1 sorted reward vectors, in float64, and on random
    rearrangements of them (all vectors for M up to 6): what it returns must follow its
    input and depend on nothing but the own reward and the number of correct ones. It
    may be plain NumPy; as a table it then runs in the compiled step.

    Args:
      advantage_fn: (M,) float rewards in {0, 1} to (M,) finite weights. A named
        advantage gives its own float64 table without being called.
      group_size: M.

    Returns:
      The table, float64 NumPy, as exact as the function.

    Raises:
      ValueError: with the reward vector that shows it, where the function depends on
        more than counts (the place of a reward, the order of the group), returns other
        weights when it is called again (a state, random numbers), is not finite or
        returns another shape.

    >>> table = tabulate(lambda rewards: rewards - rewards.mean(), 4)
    >>> print(table.incorrect, table.correct)
    [ 0.   -0.25 -0.5  -0.75] [0.75 0.5  0.25 0.  ]
    """
    check_group_size(group_size)
    make_table = getattr(advantage_fn, "table", None)
    if make_table is not None:
        return make_table(group_size)
    incorrect, correct = np.zeros((2, group_size))
    for count in range(group_size + 1):
        rewards = (np.arange(group_size) < count).astype(np.float64)
        weights = _evaluate(advantage_fn, rewards)
        if count < group_size:
            incorrect[count] = weights[-1]
        if count > 0:
            correct[count - 1] = weights[0]
    table = WeightTable(incorrect, correct)
    _check_counts_only(advantage_fn, table)
    return table


def _evaluate(fn, rewards):
    """Call a user's function outside of any trace, in float64."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        weights = np.asarray(fn(jnp.asarray(rewards)), np.float64)
    if weights.shape != rewards.shape:
        raise FieldError(
            "advantage_fn",
            expected=f"weights of shape {rewards.shape} for the rewards of one group, "
            f"got {weights.shape}",
        )
    if not np.isfinite(weights).all():
        raise FieldError(
            "advantage_fn",
            problem=f"the weights of the rewards {rewards.astype(int)} are {weights}",
            expected="finite numbers (all-equal groups need a case of their own "
            "where a method divides by the deviation)",
        )
    return weights


def _check_counts_only(fn, table):
    scale = max(np.abs(table.incorrect).max(), np.abs(table.correct).max())

    def differ(one, other):
        return np.abs(one - other).max() > _ROUNDING * scale

    for rewards in _rearranged(table.group_size):
        weights, expected = _evaluate(fn, rewards), _expected(table, rewards)
        if not differ(weights, expected):
            continue
        again = _evaluate(fn, rewards)
        if differ(again, weights):
            raise FieldError(
                "advantage_fn",
                problem=f"not a function of its input. Rewards {rewards.astype(int)} "
                f"give the weights {weights}, and {again} when it is called "
                "again",
                remedy="leave out random numbers and state",
            )
        raise NoTable(
            "advantage_fn",
            problem="not a function of the own reward and the number of correct "
            f"answers. Rewards {rewards.astype(int)} give the weights "
            f"{weights}",
            remedy=f"the same rewards sorted give, in this order, {expected}. Weights "
            "that depend on a sample's place, or on the order of the rewards, "
            "are no table",
        )


def _expected(table, rewards):
    """What the table gives, on the host in float64."""
    right = rewards > 0.5
    count = right.sum()
    return np.where(
        right,
        table.correct[max(count - 1, 0)],
        table.incorrect[min(count, table.group_size - 1)],
    )


def _rearranged(size):
    """Reward vectors that test a function: all of a small group, else random ones."""
    if size <= 6:
        for number in range(2**size):
            yield (number >> np.arange(size) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(size)
    for count in range(size + 1):
        rewards = (np.arange(size) < count).astype(np.float64)
        yield rewards
        for _ in range(_PERMUTATIONS if 0 < count < size else 0):
            yield generator.permutation(rewards)
