"""Where activations lie: models say which axis is which, the caller says what it means.

On one device there is nothing to say. On a mesh the compiler has to be told: from the
parameters' shardings alone it may well keep a batch whole on every device and split the
width instead, which is correct and hundreds of times slower.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Protocol

import jax

# One device's part of a sum over experts: (rows, banks, first expert) to outputs.
ExpertsPart = Callable[
    [tuple[jax.Array, ...], tuple[jax.Array, ...], int | jax.Array], jax.Array
]


class Placement(Protocol):
    """What logical axes mean on some mesh; `parallel.placement` has it."""

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`x`, laid out with one logical axis or None for each dimension."""

    def num_shards(self, axis: str, size: int) -> int:
        """How many ways a dimension of that size is split."""

    def sum_over_experts(
        self,
        part: ExpertsPart,
        rows: tuple[jax.Array, ...],
        banks: tuple[jax.Array, ...],
        bank_axes: tuple[tuple[str | None, ...], ...],
    ) -> jax.Array:
        """`part` on every device with its experts, summed over all of them."""


_PLACEMENT: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
    "placement", default=None
)


@contextlib.contextmanager
def placed_by(placement: Placement | None) -> Iterator[None]:
    """Have the functions below ask `placement` while a function is traced.

    To be entered inside the traced function: what JAX caches is then always the same.
    """
    token = _PLACEMENT.set(placement)
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x`, laid out as its logical axes say; as it is outside `placed_by`.

    Args:
      x: any array.
      *axes: a name of the partition rules or None for each dimension.
    """
    placement = _PLACEMENT.get()
    return x if placement is None else placement.constrain(x, *axes)


def constrain_last(x: jax.Array, axis: str | None) -> jax.Array:
    """`constrain` an activation (G, N), (G, M, N) or (G, M, T, N) with N as `axis`."""
    return constrain(x, *("batch", "samples", "positions")[: x.ndim - 1], axis)


def num_shards(axis: str, size: int) -> int:
    """How many ways a dimension of that size is split; 1 outside `placed_by`."""
    placement = _PLACEMENT.get()
    return 1 if placement is None else placement.num_shards(axis, size)


def sum_over_experts(
    part: ExpertsPart,
    rows: tuple[jax.Array, ...],
    banks: tuple[jax.Array, ...],
    bank_axes: tuple[tuple[str | None, ...], ...],
) -> jax.Array:
    """Sum what a mixture's experts make of rows, wherever experts and rows are.

    Args:
      part: from rows, the banks of some neighbouring experts and the first one's number
        to what these experts contribute, of the first row array's shape.
      rows: arrays whose leading axes are those of an activation: (G, M, T, ...).
      banks: parameters with a leading axis of experts.
      bank_axes: logical axes of each bank.
    """
    placement = _PLACEMENT.get()
    if placement is None:
        return part(rows, banks, 0)
    return placement.sum_over_experts(part, rows, banks, bank_axes)
