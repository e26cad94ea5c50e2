"""Sharding constraints on activations by logical axes; the caller provides the mesh.

Models call `constrain` with the logical axes of an activation, and `placed_by` sets the
`Placement` that maps them to a mesh. On one device there are no constraints. On a mesh
they are necessary: from the parameters' shardings alone the compiler may replicate the
batch on every device and shard the width instead, which is correct but hundreds of
times slower.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Protocol

import jax

# Computes one device's part of a sum over experts: (rows, banks, first expert) to
# outputs.
ExpertsPart = Callable[
    [tuple[jax.Array, ...], tuple[jax.Array, ...], int | jax.Array], jax.Array
]


class Placement(Protocol):
    """Maps logical axes to a mesh; `parallel.placement` implements it."""

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Constrain the sharding of `x` by a logical axis or None per dimension."""

    def num_shards(self, axis: str, size: int) -> int:
        """Return the number of shards of a dimension with this axis and size."""

    def sum_over_experts(
        self,
        part: ExpertsPart,
        rows: tuple[jax.Array, ...],
        banks: tuple[jax.Array, ...],
        bank_axes: tuple[tuple[str | None, ...], ...],
    ) -> jax.Array:
        """Run `part` on every device with its experts, and sum over all experts."""


_PLACEMENT: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
    "placement", default=None
)


@contextlib.contextmanager
def placed_by(placement: Placement | None) -> Iterator[None]:
    """Have the functions below use `placement` while a function is traced.

    Enter this context inside the traced function, so that the placement is a part of
    what JAX traces and caches.

    Args:
      placement: maps logical axes to a mesh; None sets no constraints.
    """
    token = _PLACEMENT.set(placement)
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain the sharding of `x` by its logical axes; no effect outside `placed_by`.

    Args:
      x: any array.
      *axes: for each dimension a name of the partition rules, or None.
    """
    placement = _PLACEMENT.get()
    return x if placement is None else placement.constrain(x, *axes)


def constrain_last(x: jax.Array, axis: str | None) -> jax.Array:
    """Constrain an activation (G, N), (G, M, N) or (G, M, T, N) whose N is `axis`."""
    return constrain(x, *("batch", "samples", "positions")[: x.ndim - 1], axis)


def num_shards(axis: str, size: int) -> int:
    """Return the number of shards of a dimension; 1 outside `placed_by`."""
    placement = _PLACEMENT.get()
    return 1 if placement is None else placement.num_shards(axis, size)


def sum_over_experts(
    part: ExpertsPart,
    rows: tuple[jax.Array, ...],
    banks: tuple[jax.Array, ...],
    bank_axes: tuple[tuple[str | None, ...], ...],
) -> jax.Array:
    """Sum the outputs of a mixture's experts for each row, on any mesh.

    Args:
      part: function of (rows, banks of consecutive experts, index of the first of these
        experts) that returns the sum of these experts' outputs, with the shape of the
        first row array.
      rows: arrays with the leading axes of an activation, (G, M, T, ...).
      banks: parameters with a leading axis of experts.
      bank_axes: logical axes of each bank.

    Returns:
      An array of the shape of the first row array.
    """
    placement = _PLACEMENT.get()
    if placement is None:
        return part(rows, banks, 0)
    return placement.sum_over_experts(part, rows, banks, bank_axes)
