"""Processing a long axis of positions in blocks that use every device."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models import layout


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of an axis of positions, each with some positions of every device.

    If a mesh shards the axis, a contiguous block would be on one device, and the other
    devices would wait.
    """

    size: int  # size of the axis
    num_shards: int  # number of shards of the axis
    number: int  # number of blocks
    width: int  # positions of one shard in a block

    @classmethod
    def of(cls, size: int, largest: int) -> "Blocks":
        """Make as few blocks as possible with at most `largest` positions per shard.

        Args:
          size: size of the axis.
          largest: most positions of one shard in a block.
        """
        num_shards = layout.num_shards("positions", size)
        part = size // num_shards
        number = -(-part // largest)
        return cls(size, num_shards, number, largest if number > 1 else part)

    def split(self, x: jax.Array, axis: int) -> jax.Array:
        """Split an axis into blocks, padded with zeros at the end of each shard.

        Args:
          x: (..., size, ...).
          axis: the axis to split, 0 or more.

        Returns:
          (number, ..., num_shards * width, ...).
        """
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
        """Invert `split` and drop the padding; `axis` is that of the result."""
        before, after = x.shape[1 : axis + 1], x.shape[axis + 2 :]
        x = x.reshape(self.number, *before, self.num_shards, self.width, *after)
        x = jnp.moveaxis(x, 0, axis + 1)
        x = x.reshape(*before, self.num_shards, self.number * self.width, *after)
        x = jax.lax.slice_in_dim(x, 0, self.size // self.num_shards, axis=axis + 1)
        return x.reshape(*before, self.size, *after)
