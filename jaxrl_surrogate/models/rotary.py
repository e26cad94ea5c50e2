"""Rotary position embeddings (Su et al., arXiv 2104.09864, section 3.2)."""

import math

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models.config import UNLIMITED, DecoderConfig


def frequencies(config: DecoderConfig, window: int | jax.Array | None) -> jax.Array:
    """Return a layer's rotary frequencies, in radians per position.

    Args:
      config: has the base and the scaling: "linear" divides all frequencies, "llama3"
        only the low ones (Grattafiori et al., arXiv 2407.21783, section 3.2 gives the
        base, and the published configs give the rest).
      window: the layer's window; it decides the base if layers with a window have
        their own.

    Returns:
      (H / 2,) float32, one for each feature pair.
    """
    everywhere = _shrunk(config, _powers(config.rope_theta, config.head_dim))
    if not config.rope_local_theta:
        return everywhere
    local = _powers(config.rope_local_theta, config.head_dim)
    return jnp.where(jnp.asarray(window) < UNLIMITED, local, everywhere)


def _powers(theta, width):
    half = width // 2
    return theta ** (-jnp.arange(half, dtype=jnp.float32) / half)


def _shrunk(config, full):
    if config.rope_scaling == "none":
        return full
    divided = full / config.rope_factor
    if config.rope_scaling == "linear":
        return divided
    # Full turns of each pair within the original length. Between the two bounds the
    # frequencies are interpolated linearly.
    turns = config.rope_original_length * full / (2 * math.pi)
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return kept * full + (1 - kept) * divided


def rotate(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotate the feature pairs of each head by angles proportional to the position.

    The pairs are (i, i + H/2), as in the published Llama and Qwen weights.

    Args:
      x: (..., N, H), H even, any float dtype.
      positions: (...) int32, of the rank of x minus two; axes of size 1 broadcast.
      frequencies: (H / 2,) float32, of this layer.

    Returns:
      (..., N, H) in the dtype of x; the angles are computed in float32.
    """
    angles = jnp.tensordot(positions.astype(jnp.float32), frequencies, axes=0)
    cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return turned.astype(x.dtype)
