"""Weight tables: the form in which the training step takes a binary-reward objective.

In a group of M completions with rewards R_i in {0, 1} and S_i = sum_{j != i} R_j,
sample i has the weight (the advantage)

    Z_i = (1 - R_i) a[S_i] + R_i b[S_i]

The lookup uses integer counts, so all-correct and all-incorrect groups get exactly the
entries of the table, without rounding noise. Tables are built in float64 NumPy. On the
device they are float32, unless 64-bit types are on.
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
    """A function of the (M,) rewards of one group to the (M,) weights of samples."""

    def __call__(self, rewards: jax.Array, /) -> jax.Array: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WeightTable:
    """The weights of samples in groups of M, by own reward and the others' count.

    A weight depends on the sample's own reward, 0 or 1, and on the number of correct
    samples among the other M - 1. Tables form a vector space: `+`, `-` and scalar `*`
    act on entries, and the objective of a mixture is the mixture of the objectives.

    >>> rloo = WeightTable(incorrect=[0.0, -0.5, -1.0], correct=[1.0, 0.5, 0.0])
    >>> rloo.group_size
    3
    >>> print(rloo(np.array([1.0, 0.0, 0.0])))
    [ 1.  -0.5 -0.5]
    """

    incorrect: Array  # (M,) float, a[s] of an incorrect sample beside s correct ones
    correct: Array  # (M,) float, b[s] of a correct sample beside s correct ones

    # Makes NumPy leave a product with a NumPy scalar on the left to `__rmul__`.
    __array_ufunc__ = None

    def __post_init__(self):
        _settle_entries(self, "WeightTable")

    @property
    def group_size(self) -> int:
        """The number of samples M of a group."""
        if self.incorrect.ndim != 1:
            raise ValueError(
                f"incorrect: expected one table of shape (M,), got "
                f"{self.incorrect.shape}; apply stacked tables under jax.vmap"
            )
        return self.incorrect.shape[0]

    @property
    def gap(self) -> Array:
        """(M,) d = b - a, the part of the table that determines the objective."""
        return self.correct - self.incorrect

    def __call__(self, rewards: Array) -> jax.Array:
        """Return the weight of every sample.

        Args:
          rewards: (..., M) bool, int or float, each 0 or 1.

        Returns:
          (..., M) in the type of the table on the device (float32). Inside `jax.jit`,
          where values cannot be checked, groups with another reward get NaN.

        Raises:
          ValueError: if groups have another size than the table, or if a reward is
            neither 0 nor 1. `objectives.graded` is for such rewards.
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
    """The tables of one method for every group size up to M, for the training step.

    A sample without a reward is dropped, and the table of the remaining size weighs its
    group. If dropping is independent of the answer, each size keeps its objective;
    `kept_update` analyses the other case. Build a family with `table_family`. Families
    can be added and scaled like tables.
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
        """The number of samples M of a group without dropped samples."""
        if self.incorrect.ndim != 2:
            raise ValueError(
                f"incorrect: expected one family of shape (M, M), got "
                f"{self.incorrect.shape}; apply stacked families under jax.vmap"
            )
        return self.incorrect.shape[0]

    def table(self, group_size: int | None = None) -> WeightTable:
        """Return the table of one group size, by default that of M.

        Raises:
          FieldError: for a size outside 1 .. M.
        """
        size = self.group_size if group_size is None else group_size
        if not 1 <= size <= self.group_size:
            raise FieldError("group_size", size, f"between 1 and {self.group_size}")
        row = size - 1
        return WeightTable(self.incorrect[row, :size], self.correct[row, :size])

    def __call__(self, rewards: Array, mask: Array | None = None) -> jax.Array:
        """Return the weight of every sample, by the table of its group's kept size.

        Args:
          rewards: (..., M) bool, int or float, each 0 or 1. On dropped samples they may
            have any value, including NaN.
          mask: (..., M) bool, False on samples that are dropped; None drops none.

        Returns:
          (..., M) in the type of the tables on the device (float32), 0 on dropped
          samples. Inside `jax.jit`, where values cannot be checked, the kept samples of
          groups with another reward get NaN.

        Raises:
          ValueError: if groups have another size than the family, if `mask` has another
            shape than `rewards`, or if the reward of a kept sample is neither 0 nor 1.
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
        """Return (..., M) weights, given (..., M) bool that is True on correct ones."""
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
    """Return the family of a method's tables for group sizes 1 to M.

    Args:
      make_table: a function of a group size to the method's table. It raises ValueError
        for a size that the method does not support (RLOO at 1, pass@k below k samples).
        Groups of such a size after dropping get weights of 0, and so no gradient.
      group_size: M, the size of a group without dropped samples.

    Returns:
      A family of float64 NumPy arrays. All families of one M have the same shapes and
      types, so a step that is compiled for one accepts any other.

    Raises:
      ValueError: if the method does not support M itself.

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
    """Raise FieldError for a group size that is not an integer of 1 or more."""
    if isinstance(group_size, bool) or not isinstance(group_size, (int, np.integer)):
        raise FieldError("group_size", group_size, "an integer")
    if group_size < 1:
        raise FieldError("group_size", group_size, "1 or more")


def _select(right, count, row, group_size, tables):
    """Return the weights from two lookups per group and a choice by the own reward.

    In a group with m correct samples, an incorrect sample has S = m and a correct one
    S = m - 1. If a group has no sample of one kind, its index is clipped to a valid one
    and the entry is not used. `row` is the offset of the group's table in the flattened
    entries.
    """
    last = group_size - 1
    lookup = {"mode": "promise_in_bounds"}
    incorrect = on_device(tables.incorrect).reshape(-1)
    correct = on_device(tables.correct).reshape(-1)
    if_wrong = incorrect.at[row + jnp.minimum(count, last)].get(**lookup)
    if_right = correct.at[row + jnp.maximum(count - 1, 0)].get(**lookup)
    return jnp.where(right, if_right, if_wrong)


def on_device(entries: Array) -> jax.Array:
    """Return the entries of a table as a JAX array in the float type of the device."""
    if isinstance(entries, np.ndarray):
        # A copy in the type of the device. JAX caches constants by the identity of a
        # read-only array, and would otherwise use the float32 constant of a table in a
        # program that is traced with 64-bit types on.
        entries = np.array(entries, jax.dtypes.canonicalize_dtype(entries.dtype))
    return jnp.asarray(entries)


def _settle_entries(tables, kind):
    """Convert lists and integer arrays to float64 NumPy; keep entries that JAX sets."""
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
    # JAX clamps gathers: another size would give incorrect weights without an error.
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
