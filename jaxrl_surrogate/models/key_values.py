"""Keys and values of attention, and their order in memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class KeyValues(NamedTuple):
    """Keys and values of one layer or, with a leading L axis, of all of them.

    Positions are the last axis of keys and the last but one of values: both products
    of decoding, scores over positions and sums over them, then read memory in order. On
    a CPU, keys laid out like values make the scores of one token four times slower.
    """

    keys: jax.Array  # prompts: (G, K, H, P); completions: (G, M, K, H, S)
    values: jax.Array  # prompts: (G, K, P, H); completions: (G, M, K, S, H)

    @classmethod
    def of(cls, keys: jax.Array, values: jax.Array) -> "KeyValues":
        """From (G, M, T, K, H) each, the order in which projections make them."""
        return cls(jnp.moveaxis(keys, 2, 4), jnp.moveaxis(values, 2, 3))

    @classmethod
    def empty(
        cls, leading: tuple[int, ...], size: int, width: int, dtype: str
    ) -> "KeyValues":
        """Zeros with room for `size` positions; leading (.., K), width H."""
        return cls(
            jnp.zeros((*leading, width, size), dtype),
            jnp.zeros((*leading, size, width), dtype),
        )

    def write(
        self, new: "KeyValues", position: jax.Array, layer: jax.Array | None = None
    ) -> "KeyValues":
        """Put the positions of `new` at `position`, into `layer` where all are held."""
        zero = jnp.zeros_like(position)
        leading = () if layer is None else (layer,)

        def put(held, part, axis):
            part = part.reshape((1,) * len(leading) + part.shape)
            start = [*leading, *[zero] * (held.ndim - len(leading))]
            start[axis] = position
            return jax.lax.dynamic_update_slice(held, part, start)

        return KeyValues(put(self.keys, new.keys, -1), put(self.values, new.values, -2))

    def layer(self, index: jax.Array, size: int) -> "KeyValues":
        """The first `size` positions of one layer, where all layers are held."""

        def take(held, axis):
            sizes = [1, *held.shape[1:]]
            sizes[axis] = size
            start = [index, *[jnp.zeros_like(index)] * (held.ndim - 1)]
            return jnp.squeeze(jax.lax.dynamic_slice(held, start, sizes), 0)

        return KeyValues(take(self.keys, -1), take(self.values, -2))

    def grow(self, size: int) -> "KeyValues":
        """The same with room for `size` positions."""

        def pad(held, axis):
            widths = [(0, 0)] * held.ndim
            widths[axis] = (0, size - held.shape[axis])
            return jnp.pad(held, widths)

        return KeyValues(pad(self.keys, -1), pad(self.values, -2))
