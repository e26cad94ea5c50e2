"""From functions to tables: the weight table of an advantage on binary rewards."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import (
    GroupFunction,
    WeightTable,
    check_group_size,
)

# The allowed rounding of a weight, as a fraction of the largest weight. Functions of
# counts stay below it in float32, and other functions are far above it.
_ROUNDING = 1e-5
_PERMUTATIONS = 4


class NoTable(FieldError):
    """The error for weights that depend on more than the own reward and the count."""


def tabulate(advantage_fn: GroupFunction, group_size: int) -> WeightTable:
    """Return the weight table of a function of one group's binary rewards.

    The function is called in float64 on the M + 1 sorted reward vectors and on random
    permutations of them (on all vectors for M up to 6). Each weight may depend only on
    the sample's own reward and on the number of correct samples. The function may use
    plain NumPy: the compiled step applies its table.

    Args:
      advantage_fn: a function of (M,) float rewards in {0, 1} to (M,) finite weights. A
        named advantage is not called; its own table is returned.
      group_size: M.

    Returns:
      The table, in float64 NumPy.

    Raises:
      ValueError: if the weights depend on more than counts (on the place of a reward or
        the order of the group), differ when the function is called again (because of a
        state or random numbers), are not finite or have another shape. Except for a
        shape, the message has a reward vector that shows it.

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
    """Return the weights of a user's function, called outside of any trace in float64.

    Raises:
      FieldError: for weights of another shape or that are not finite.
    """
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
    """Return the (M,) weights of the table, computed on the host in float64."""
    right = rewards > 0.5
    count = right.sum()
    return np.where(
        right,
        table.correct[max(count - 1, 0)],
        table.incorrect[min(count, table.group_size - 1)],
    )


def _rearranged(size):
    """Yield the (M,) rewards that test a function: all for M up to 6, else random."""
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
