"""Contractions whose sums are float32 whatever the inputs are."""

import jax
import jax.numpy as jnp


def wide_einsum(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` with float32 sums and float32 output.

    On an accelerator bfloat16 inputs are read as they are. XLA's CPU backend refuses
    some shapes of bfloat16 x bfloat16 to float32 when the program runs (DotThunk,
    "unsupported element type"), so there the inputs are widened first: same products.
    """

    def narrow(a, b):
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)

    if a.dtype == b.dtype == jnp.float32:
        return narrow(a, b)

    def widened(a, b):
        return jnp.einsum(equation, a.astype(jnp.float32), b.astype(jnp.float32))

    return jax.lax.platform_dependent(a, b, cpu=widened, default=narrow)
