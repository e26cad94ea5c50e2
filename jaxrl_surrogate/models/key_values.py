"""Keys and values of attention, and their layout in memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class KeyValues(NamedTuple):
    """Keys and values of one layer or, with a leading axis L, of all layers.

    Positions are the last axis of keys and the second to last axis of values. Both
    products of decoding, the scores and the weighted sums of values, then read memory
    in order. If keys had the layout of values, the scores of one token would take four
    times as long on a CPU.
    """

    keys: jax.Array  # prompts: (G, K, H, P); completions: (G, M, K, H, S)
    values: jax.Array  # prompts: (G, K, P, H); completions: (G, M, K, S, H)

    @classmethod
    def of(cls, keys: jax.Array, values: jax.Array) -> "KeyValues":
        """Make from keys and values (G, M, T, K, H), the layout of the projections."""
        return cls(jnp.moveaxis(keys, 2, 4), jnp.moveaxis(values, 2, 3))

    @classmethod
    def empty(
        cls, leading: tuple[int, ...], size: int, width: int, dtype: str
    ) -> "KeyValues":
        """Make zeros.

        Args:
          leading: the leading axes, (..., K).
          size: number of positions.
          width: H, the width of a head.
          dtype: of keys and values.
        """
        return cls(
            jnp.zeros((*leading, width, size), dtype),
            jnp.zeros((*leading, size, width), dtype),
        )

    def write(
        self, new: "KeyValues", position: jax.Array, layer: jax.Array | None = None
    ) -> "KeyValues":
        """Write the positions of `new` from `position` on.

        Args:
          new: keys and values of one layer.
          position: scalar int32.
          layer: scalar int32, the layer to write to if `self` holds all layers; None if
            it holds one layer.
        """
        zero = jnp.zeros_like(position)
        leading = () if layer is None else (layer,)

        def put(held, part, axis):
            part = part.reshape((1,) * len(leading) + part.shape)
            start = [*leading, *[zero] * (held.ndim - len(leading))]
            start[axis] = position
            return jax.lax.dynamic_update_slice(held, part, start)

        return KeyValues(put(self.keys, new.keys, -1), put(self.values, new.values, -2))

    def layer(self, index: jax.Array, size: int) -> "KeyValues":
        """Return the first `size` positions of one layer; `self` holds all layers."""

        def take(held, axis):
            sizes = [1, *held.shape[1:]]
            sizes[axis] = size
            start = [index, *[jnp.zeros_like(index)] * (held.ndim - 1)]
            return jnp.squeeze(jax.lax.dynamic_slice(held, start, sizes), 0)

        return KeyValues(take(self.keys, -1), take(self.values, -2))

    def grow(self, size: int) -> "KeyValues":
        """Pad with zeros to `size` positions."""

        def pad(held, axis):
            widths = [(0, 0)] * held.ndim
            widths[axis] = (0, size - held.shape[axis])
            return jnp.pad(held, widths)

        return KeyValues(pad(self.keys, -1), pad(self.values, -2))
