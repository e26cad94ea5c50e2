"""Products of sorted rows with one matrix for each group of rows."""

import jax
import jax.numpy as jnp


def grouped_product(rows: jax.Array, banks: jax.Array, sizes: jax.Array) -> jax.Array:
    """Multiply neighbouring groups of rows by their matrices.

    Args:
      rows: (N, D), the first group first.
      banks: (B, D, F), matrices of the first B groups.
      sizes: (E,) int32 with sum N, rows of each group, E >= B.

    Returns:
      (N, F) in the dtype of rows, accumulated in float32; rows of groups B and further
      are zero.
    """
    mine = jnp.arange(rows.shape[0]) < sizes[: banks.shape[0]].sum()
    rows = jnp.where(mine[:, None], rows, 0)
    out = jax.lax.platform_dependent(
        rows, banks, sizes, tpu=_by_kernel, default=_by_ragged_dot
    )
    return jnp.where(mine[:, None], out, 0).astype(rows.dtype)


def _by_ragged_dot(rows, banks, sizes):
    return jax.lax.ragged_dot(
        rows,
        banks,
        sizes[: banks.shape[0]],
        preferred_element_type=jnp.float32,
    ).astype(rows.dtype)


def _by_kernel(rows, banks, sizes):
    """JAX's kernels for TPUs: XLA's own has none for the gradient of the matrices.

    Without one, that gradient costs as much as if every row met every matrix.
    """
    from jax.experimental.pallas.ops.tpu.megablox import gmm

    count, groups = rows.shape[0], sizes.shape[0]
    height = _MANY_ROWS if count >= _MANY_ROWS * groups else _FEW_ROWS
    padding = -count % height
    if padding:  # more rows of the last group, cut off again
        rows = jnp.pad(rows, ((0, padding), (0, 0)))
        sizes = sizes.at[-1].add(padding)

    def tiles(rows, contracted, columns):
        return height, min(_WIDTH, contracted), min(_WIDTH, columns)

    out = gmm(rows, banks, sizes, preferred_element_type=rows.dtype, tiling=tiles)
    return out[:count]


# What a kernel handles at once: rows where groups are large or small, and columns.
_MANY_ROWS, _FEW_ROWS, _WIDTH = 512, 128, 1024
