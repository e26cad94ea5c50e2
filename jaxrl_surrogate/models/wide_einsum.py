"""Contractions that accumulate in float32 for inputs of any dtype."""

import jax
import jax.numpy as jnp


def wide_einsum(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute `jnp.einsum` of two arrays with float32 accumulation and output.

    Accelerators read bfloat16 inputs directly. On a CPU the inputs are converted to
    float32 first, which gives the same products: XLA's CPU backend fails at run time
    for some products of bfloat16 with float32 output (DotThunk, "unsupported element
    type").
    """

    def narrow(a, b):
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)

    if a.dtype == b.dtype == jnp.float32:
        return narrow(a, b)

    def widened(a, b):
        return jnp.einsum(equation, a.astype(jnp.float32), b.astype(jnp.float32))

    return jax.lax.platform_dependent(a, b, cpu=widened, default=narrow)
