"""A long axis of positions taken a block at a time, on every device at once."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models import layout


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Positions of an axis, grouped so that one block has some of each device's part.

    Where a mesh splits the axis, a contiguous block would lie on one device, and the
    others would wait.
    """

    size: int  # of the axis
    num_shards: int  # that the axis is split
    number: int  # of blocks
    width: int  # positions of one part in a block

    @classmethod
    def of(cls, size: int, largest: int) -> "Blocks":
        """As few blocks as hold at most `largest` positions of a device."""
        num_shards = layout.num_shards("positions", size)
        part = size // num_shards
        number = -(-part // largest)
        return cls(size, num_shards, number, largest if number > 1 else part)

    def split(self, x: jax.Array, axis: int) -> jax.Array:
        """Blocks in front, (number, ..., ways * width, ...); zeros pad the tail."""
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        part = self.size // self.num_shards
        x = x.reshape(*before, self.num_shards, part, *after)
        widths = [(0, 0)] * x.ndim
        widths[axis + 1] = (0, self.number * self.width - part)
        x = jnp.pad(x, widths)
        x = x.reshape(*before, self.num_shards, self.number, self.width, *after)
        x = jnp.moveaxis(x, axis + 1, 0)
        return x.reshape(self.number, *before, self.num_shards * self.width, *after)

    def join(self, x: jax.Array, axis: int) -> jax.Array:
        """What `split` undoes, without the padding; `axis` is that of the result."""
        before, after = x.shape[1 : axis + 1], x.shape[axis + 2 :]
        x = x.reshape(self.number, *before, self.num_shards, self.width, *after)
        x = jnp.moveaxis(x, 0, axis + 1)
        x = x.reshape(*before, self.num_shards, self.number * self.width, *after)
        x = jax.lax.slice_in_dim(x, 0, self.size // self.num_shards, axis=axis + 1)
        return x.reshape(*before, self.size, *after)
