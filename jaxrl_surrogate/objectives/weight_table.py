"""Weight tables: what a binary-reward objective is to the training step.

For a group of M responses with rewards R_i in {0, 1} and S_i = sum_{j != i} R_j,

    Z_i = (1 - R_i) a[S_i] + R_i b[S_i]

Everything here works on integer counts, so an all-correct or all-incorrect group gets
exactly the entries of the table and never rounding noise. Tables are built in float64
NumPy; on the device they are float32, unless 64-bit types are on.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import binary_rewards

Array = jax.Array | np.ndarray


class GroupFunction(Protocol):
    """An advantage: (M,) rewards of one group to the (M,) weights of its samples."""

    def __call__(self, rewards: jax.Array, /) -> jax.Array: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WeightTable:
    """Weights of one group size M: own reward and the others' count to a number.

    Tables form a vector space: `+`, `-` and scalar `*` act on entries, and the
    objective of a mixture is the mixture of the objectives.

    >>> rloo = WeightTable(incorrect=[0.0, -0.5, -1.0], correct=[1.0, 0.5, 0.0])
    >>> rloo.group_size
    3
    >>> print(rloo(np.array([1.0, 0.0, 0.0])))
    [ 1.  -0.5 -0.5]
    """

    incorrect: Array  # (M,) float, a[s] of an incorrect sample beside s correct ones
    correct: Array  # (M,) float, b[s] of a correct sample beside s correct ones

    # A NumPy scalar on the left must leave the product to `__rmul__`.
    __array_ufunc__ = None

    def __post_init__(self):
        _settle_entries(self, "WeightTable")

    @property
    def group_size(self) -> int:
        """The number of samples M of the groups this table weighs."""
        if self.incorrect.ndim != 1:
            raise ValueError(
                f"incorrect: expected one table of shape (M,), got "
                f"{self.incorrect.shape}; apply stacked tables under jax.vmap"
            )
        return self.incorrect.shape[0]

    @property
    def gap(self) -> Array:
        """(M,) d = b - a: the part of the table that sets the objective."""
        return self.correct - self.incorrect

    def __call__(self, rewards: Array) -> jax.Array:
        """The weight of every sample of whole groups.

        Args:
          rewards: (..., M), bool, int or float, each 0 or 1.

        Returns:
          (..., M) in the type of the table on the device (float32). Inside `jax.jit`,
          where nothing can be refused, NaN for groups with another reward.

        Raises:
          ValueError: where groups have another size than the table, or a reward is
            neither 0 nor 1: `objectives.graded` has what to do with those.
        """
        _check_groups(rewards, self.group_size, "WeightTable")
        right, sound = binary_rewards.settle(rewards, None)
        count = right.sum(-1, keepdims=True, dtype=jnp.int32)
        weights = _select(right, count, 0, self.group_size, self)
        return weights if sound is None else jnp.where(sound, weights, jnp.nan)

    def __add__(self, other: "WeightTable") -> "WeightTable":
        return _add(self, other)

    def __sub__(self, other: "WeightTable") -> "WeightTable":
        return _add(self, -1 * other)

    def __mul__(self, factor: float | jax.Array) -> "WeightTable":
        return _scale(self, factor)

    __rmul__ = __mul__


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TableFamily:
    """The tables of every group size up to M: what the training step takes.

    A sample without a verdict is dropped, and its group is weighed by the table of the
    size that is left, so that the objective stays the one asked for as long as what is
    dropped does not depend on the answer; `kept_update` is for where it does. Build it
    with `table_family`. Families add and scale like tables.
    """

    incorrect: (
        Array  # (M, M) float, row n - 1: a of group size n, zeros from column n on
    )
    correct: Array  # (M, M) float, row n - 1: b of group size n, zeros from column n on

    __array_ufunc__ = None

    def __post_init__(self):
        _settle_entries(self, "TableFamily")

    @property
    def group_size(self) -> int:
        """The size M of a group that lost no sample."""
        if self.incorrect.ndim != 2:
            raise ValueError(
                f"incorrect: expected one family of shape (M, M), got "
                f"{self.incorrect.shape}; apply stacked families under jax.vmap"
            )
        return self.incorrect.shape[0]

    def table(self, group_size: int | None = None) -> WeightTable:
        """The member of one group size; without an argument the full one."""
        size = self.group_size if group_size is None else group_size
        if not 1 <= size <= self.group_size:
            raise FieldError("group_size", size, f"between 1 and {self.group_size}")
        row = size - 1
        return WeightTable(self.incorrect[row, :size], self.correct[row, :size])

    def __call__(self, rewards: Array, mask: Array | None = None) -> jax.Array:
        """The weight of every sample, each group by its effective size.

        Args:
          rewards: (..., M), bool, int or float, each 0 or 1. Entries that are masked
            may hold anything, NaN included.
          mask: (..., M) bool, False on samples that are dropped; None drops none.

        Returns:
          (..., M) in the type of the tables on the device (float32), 0 where dropped.
          Inside `jax.jit`, NaN for groups with another reward, as for a table.

        Raises:
          ValueError: where groups have another size than the family, `mask` has
            another shape than `rewards`, or a reward that is not masked is neither 0
            nor 1.
        """
        size = self.group_size
        _check_groups(rewards, size, "TableFamily")
        if mask is not None and np.shape(mask) != np.shape(rewards):
            raise ValueError(
                f"mask: expected the shape of rewards, {np.shape(rewards)}, got "
                f"{np.shape(mask)}"
            )
        right, sound = binary_rewards.settle(rewards, mask)
        weights = self._of(right, mask)
        if sound is None:
            return weights
        dropped = False if mask is None else ~jnp.asarray(mask).astype(bool)
        return jnp.where(sound | dropped, weights, jnp.nan)

    def _of(self, right, mask):
        """(..., M) weights, from which samples are correct."""
        size = self.group_size
        if mask is None:
            count = right.sum(-1, keepdims=True, dtype=jnp.int32)
            return _select(right, count, (size - 1) * size, size, self)
        mask = jnp.asarray(mask).astype(bool)
        right &= mask
        count = right.sum(-1, keepdims=True, dtype=jnp.int32)
        left = mask.sum(-1, keepdims=True, dtype=jnp.int32)
        weights = _select(right, count, jnp.maximum(left - 1, 0) * size, size, self)
        return jnp.where(mask, weights, 0)

    def __add__(self, other: "TableFamily") -> "TableFamily":
        return _add(self, other)

    def __sub__(self, other: "TableFamily") -> "TableFamily":
        return _add(self, -1 * other)

    def __mul__(self, factor: float | jax.Array) -> "TableFamily":
        return _scale(self, factor)

    __rmul__ = __mul__


def table_family(
    make_table: Callable[[int], WeightTable], group_size: int
) -> TableFamily:
    """The tables of sizes 1 to M of one method, as the training step takes them.

    Args:
      make_table: the method's table of a given size. It raises ValueError for a size
        that the method cannot serve (RLOO at 1, pass@k below k samples); groups that
        shrink
        to such a size get zeros: no gradient.
      group_size: M, the size of a whole group.

    Returns:
      A family of float64 NumPy arrays. All families of one M have the same shapes and
      types, so a step that is compiled for one takes any other.

    Raises:
      ValueError: where the method cannot serve M itself.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> family = table_family(advantages.get("rloo").table, 3)
    >>> print(family(np.array([1.0, 0.0, 0.0]), mask=np.array([True, True, False])))
    [ 1. -1.  0.]
    """
    check_group_size(group_size)
    tables = {group_size: make_table(group_size)}
    for size in range(1, group_size):
        try:
            tables[size] = make_table(size)
        except ValueError:
            continue
    incorrect, correct = np.zeros((2, group_size, group_size))
    for size, table in tables.items():
        if table.group_size != size:
            raise ValueError(
                f"make_table({size}): expected a table of group size {size}, got one "
                f"of {table.group_size}"
            )
        incorrect[size - 1, :size] = table.incorrect
        correct[size - 1, :size] = table.correct
    return TableFamily(incorrect=incorrect, correct=correct)


def check_group_size(group_size: int) -> None:
    """Refuse what is not an integer of 1 or more (ValueError)."""
    if isinstance(group_size, bool) or not isinstance(group_size, (int, np.integer)):
        raise FieldError("group_size", group_size, "an integer")
    if group_size < 1:
        raise FieldError("group_size", group_size, "1 or more")


def _select(right, count, row, group_size, tables):
    """Look up two numbers a group, not one a sample, and choose by the own reward.

    An incorrect sample beside m correct ones has S = m, a correct one of m has S = m -
    1; the entry that no sample of the group needs may be any that exists. `row` is the
    offset of the group's table in the flattened entries.
    """
    last = group_size - 1
    lookup = {"mode": "promise_in_bounds"}
    incorrect = on_device(tables.incorrect).reshape(-1)
    correct = on_device(tables.correct).reshape(-1)
    if_wrong = incorrect.at[row + jnp.minimum(count, last)].get(**lookup)
    if_right = correct.at[row + jnp.maximum(count - 1, 0)].get(**lookup)
    return jnp.where(right, if_right, if_wrong)


def on_device(entries: Array) -> jax.Array:
    """Entries of a table in the float type that the device holds."""
    if isinstance(entries, np.ndarray):
        # A copy of the type that the device will hold: JAX keeps constants by the
        # identity of a read-only array, and would hand the float32 constant of a table
        # to a program that was traced with 64-bit types on.
        entries = np.array(entries, jax.dtypes.canonicalize_dtype(entries.dtype))
    return jnp.asarray(entries)


def _settle_entries(tables, kind):
    """Turn lists and integers into float64 NumPy; leave everything that JAX puts in."""
    for name in ("incorrect", "correct"):
        entries = getattr(tables, name)
        if isinstance(entries, (list, tuple, np.ndarray)):
            entries = np.asarray(entries)
            if entries.dtype.kind != "f":
                entries = entries.astype(np.float64)
            object.__setattr__(tables, name, entries)
    shapes = [getattr(x, "shape", None) for x in (tables.incorrect, tables.correct)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise ValueError(
            f"{kind}: incorrect has shape {shapes[0]} and correct {shapes[1]}; "
            "expected the same, one entry for every count of the others"
        )


def _check_groups(rewards, group_size, kind):
    # JAX clamps gathers: another size would return wrong weights without a word.
    shape = np.shape(rewards)
    if not shape or shape[-1] != group_size:
        raise ValueError(
            f"rewards of shape {shape}: this {kind} is for groups of "
            f"{group_size}; build it for the group size of the batch"
        )


def _add(one, other):
    if type(one) is not type(other):
        return NotImplemented
    if one.group_size != other.group_size:
        raise ValueError(
            f"group sizes {one.group_size} and {other.group_size}: only tables of one "
            "size add up"
        )
    return type(one)(one.incorrect + other.incorrect, one.correct + other.correct)


def _scale(tables, factor):
    if isinstance(factor, (WeightTable, TableFamily)) or np.ndim(factor) != 0:
        return NotImplemented
    return type(tables)(tables.incorrect * factor, tables.correct * factor)
