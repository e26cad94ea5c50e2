"""Matrix products of groups of rows, with one matrix for each group."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def grouped_product(rows: jax.Array, banks: jax.Array, sizes: jax.Array) -> jax.Array:
    """Multiply each group of rows by its matrix.

    Args:
      rows: (N, D), sorted by group.
      banks: (B, D, F), the matrices of the first B groups.
      sizes: (E,) int32 with sum N and E >= B, the number of rows of each group.

    Returns:
      (N, F) in the dtype of rows, accumulated in float32. Rows of groups without a
      matrix are zero.
    """
    return _product(rows, banks, sizes, rows.dtype)


@jax.custom_vjp
def wide_grouped_product(
    rows: jax.Array, banks: jax.Array, sizes: jax.Array
) -> jax.Array:
    """Compute `grouped_product` with a float32 result that is not rounded.

    The gradient is that of `grouped_product`: the cotangent is rounded to the dtype of
    rows first. With a float32 cotangent both products of the backward pass would be in
    float32, which is several times slower on a TPU.
    """
    return _product(rows, banks, sizes, jnp.float32)


def _forward(rows, banks, sizes):
    return _product(rows, banks, sizes, jnp.float32), (rows, banks, sizes)


def _backward(kept, cotangent):
    rows, banks, sizes = kept
    _, pull = jax.vjp(lambda *of: grouped_product(*of, sizes), rows, banks)
    return *pull(cotangent.astype(rows.dtype)), None


wide_grouped_product.defvjp(_forward, _backward)


def _product(rows, banks, sizes, dtype: DTypeLike):
    mine = jnp.arange(rows.shape[0]) < sizes[: banks.shape[0]].sum()
    rows = jnp.where(mine[:, None], rows, 0)
    out = jax.lax.platform_dependent(
        rows,
        banks,
        sizes,
        tpu=functools.partial(_by_kernel, dtype),
        default=functools.partial(_by_ragged_dot, dtype),
    )
    return jnp.where(mine[:, None], out, 0)


def _by_ragged_dot(dtype, rows, banks, sizes):
    return jax.lax.ragged_dot(
        rows,
        banks,
        sizes[: banks.shape[0]],
        preferred_element_type=jnp.float32,
    ).astype(dtype)


def _by_kernel(dtype, rows, banks, sizes):
    """Compute the product with JAX's Pallas kernels for TPUs.

    XLA has no kernel for the gradient of the matrices. Without a kernel that gradient
    costs as much as the product of every row with every matrix.
    """
    from jax.experimental.pallas.ops.tpu.megablox import gmm

    count, groups = rows.shape[0], sizes.shape[0]
    height = _MANY_ROWS if count >= _MANY_ROWS * groups else _FEW_ROWS
    padding = -count % height
    if padding:  # added to the last group, and removed from the result
        rows = jnp.pad(rows, ((0, padding), (0, 0)))
        sizes = sizes.at[-1].add(padding)

    def tiles(rows, contracted, columns):
        return height, min(_WIDTH, contracted), min(_WIDTH, columns)

    out = gmm(rows, banks, sizes, preferred_element_type=dtype, tiling=tiles)
    return out[:count]


# Tile sizes of the kernel: rows for large and for small groups, and columns.
_MANY_ROWS, _FEW_ROWS, _WIDTH = 512, 128, 1024
