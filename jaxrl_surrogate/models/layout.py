"""Where activations lie: models say which axis is which, the caller says what it means.

On one device there is nothing to say. On a mesh the compiler has to be told: from the
parameters' shardings alone it may well keep a batch whole on every device and split the
width instead, which is right and hundreds of times slower.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

Place = Callable[..., jax.Array]

_PLACE: contextvars.ContextVar[Place | None] = contextvars.ContextVar(
    "place", default=None
)


@contextlib.contextmanager
def placed_by(place: Place | None) -> Iterator[None]:
    """Have `pin` call `place(x, *logical_axes)` while a function is traced.

    To be entered inside the traced function: what JAX caches is then always the same.
    """
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def pin(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x`, laid out as its logical axes say; as it is outside `placed_by`.

    Args:
      x: any array.
      *axes: a name of the partition rules or None for each dimension.
    """
    place = _PLACE.get()
    return x if place is None else place(x, *axes)


def pin_last(x: jax.Array, axis: str | None) -> jax.Array:
    """`pin` an activation (G, ..., N): the batch first, `axis` last, else whole."""
    return pin(x, "batch", *[None] * (x.ndim - 2), axis)
