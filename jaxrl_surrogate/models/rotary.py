"""Rotary position embeddings (Su et al., arXiv 2104.09864, section 3.2)."""

import jax
import jax.numpy as jnp


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Turn feature pairs of each head by angles proportional to the position.

    The pairs are (i, i + H/2), the layout of the published Llama and Qwen weights.

    Args:
      x: (..., N, H), H even, any float dtype.
      positions: (...) int32, of the same rank as x less two; size-1 axes broadcast.
      theta: base of the frequencies.

    Returns:
      (..., N, H) in the dtype of x; the angles are computed in float32.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.tensordot(positions.astype(jnp.float32), frequencies, axes=0)
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned.astype(x.dtype)
