"""A mixture of experts that replaces the MLP, without a capacity limit.

Every row is processed by its experts whatever else is in the batch, so a completion is
a function of its own tokens. With a capacity limit it would depend on other rows.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl_surrogate.models import layout
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.grouped_product import (
    grouped_product,
    wide_grouped_product,
)
from jaxrl_surrogate.models.layout import constrain, constrain_last
from jaxrl_surrogate.models.wide_einsum import wide_einsum

# Up to this number of rows, the time is that of reading the experts' weights, not that
# of the products: an accelerator does a few hundred operations per byte that it reads.
FEW_ROWS = 256

_IN = ("experts", "embed", "mlp")
_OUT = ("experts", "mlp", "embed")


class Experts(nnx.Module):
    """Gated MLPs of which each row uses a few (Shazeer et al., arXiv 1701.06538).

    The router is a softmax over all experts in float32. The k largest probabilities are
    the weights of a row's experts; with `normalize_experts` they are divided by their
    sum, as in Qwen3 (arXiv 2505.09388).
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.config = c
        self.activation = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}[c.activation]
        wide, narrow = c.embed_dim**-0.5, (2 * c.num_layers * c.mlp_dim) ** -0.5

        def param(shape, axes, scale):
            init = jax.nn.initializers.truncated_normal(scale)
            return nnx.Param(init(rngs.params(), shape), logical_axes=axes)

        bank = (c.num_experts, c.embed_dim, c.mlp_dim)
        self.router = param((c.embed_dim, c.num_experts), ("embed", None), wide)
        self.gate = param(bank, _IN, wide)
        self.up = param(bank, _IN, wide)
        self.down = param((bank[0], *bank[:0:-1]), _OUT, narrow)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to x (G, M, T, D); the result has the shape and dtype of x."""
        weights, chosen = self.route(x)
        banks = tuple(
            constrain(bank[...].astype(x.dtype), *axes)
            for bank, axes in ((self.gate, _IN), (self.up, _IN), (self.down, _OUT))
        )
        return layout.sum_over_experts(
            self._part, (x, weights, chosen), banks, (_IN, _IN, _OUT)
        )

    def route(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Choose the experts of each row of x (..., D).

        Returns:
          The experts' weights (..., k) float32 and indices (..., k) int32.
        """
        c = self.config
        # The router is rounded to the compute dtype as in a rollout. Otherwise sampler
        # and trainer could choose different experts.
        router = constrain(self.router[...].astype(x.dtype), None, None).astype(
            jnp.float32
        )
        scores = constrain_last(
            jnp.matmul(x.astype(jnp.float32), router, precision="highest"), None
        )
        weights, chosen = jax.lax.top_k(jax.nn.softmax(scores), c.experts_per_token)
        if c.normalize_experts:
            weights /= weights.sum(-1, keepdims=True)
        return weights, chosen

    def _part(self, rows, banks, first):
        """Sum the outputs of the experts `first`, `first + 1`, ... for each row.

        Args:
          rows: inputs (G, M, T, D), and weights and indices of experts (G, M, T, k).
          banks: gate, up and down matrices of these experts.
          first: index of the first of these experts.

        Returns:
          (G, M, T, D) in the dtype of the inputs.
        """
        few = rows[0].size // rows[0].shape[-1] <= FEW_ROWS
        return (self._all_of_all if few else self._sorted)(rows, banks, first)

    # Sampling has few rows and training many, and both must compute the same policy.
    # So both methods below multiply a hidden row by its expert's weight, round it once,
    # and sum over experts in float32.

    def _all_of_all(self, rows, banks, first):
        """Compute every expert on every row, with weight 0 if it was not chosen.

        For few rows, reading the experts takes longer than these products. XLA also
        reads one layer's part of the stacked layers in place, which a kernel cannot do.
        """
        x, weights, chosen = rows
        gate, up, down = banks
        flat = x.reshape(-1, x.shape[-1])
        numbers = first + jnp.arange(gate.shape[0], dtype=jnp.int32)
        mine = chosen.reshape(len(flat), -1, 1) == numbers[None, None]
        shares = jnp.where(mine, weights.reshape(len(flat), -1, 1), 0).sum(1)
        hidden = self.activation(jnp.einsum("nd,edf->enf", flat, gate))
        hidden *= jnp.einsum("nd,edf->enf", flat, up)
        hidden = (hidden * shares.T[..., None]).astype(x.dtype)
        out = wide_einsum("enf,efd->nd", hidden, down)
        return out.astype(x.dtype).reshape(x.shape)

    def _sorted(self, rows, banks, first):
        """Sort rows by expert, with those of other devices' experts last."""
        x, weights, chosen = rows
        gate, up, down = banks
        flat = x.reshape(-1, x.shape[-1])
        each = chosen.shape[-1]
        number = (chosen.reshape(-1) - first) % self.config.num_experts
        # With distinct keys the sort need not be stable: it compiles and runs faster.
        place = jnp.arange(number.size, dtype=jnp.int32)
        stable = self.config.num_experts * number.size >= 2**31
        key = number if stable else number * number.size + place
        order = jnp.argsort(key, stable=stable)
        sizes = jnp.bincount(number, length=self.config.num_experts).astype(jnp.int32)
        sorted_rows = flat[order // each]
        hidden = self.activation(grouped_product(sorted_rows, gate, sizes))
        hidden *= grouped_product(sorted_rows, up, sizes)
        shares = weights.reshape(-1)[order]
        hidden = (hidden * shares[:, None]).astype(x.dtype)
        out = wide_grouped_product(hidden, down, sizes)
        # Restore the order of the rows, so that experts are added in a fixed order.
        back = jnp.zeros_like(place).at[order].set(place, unique_indices=True)
        out = out[back].reshape(*weights.shape, -1).sum(-2)
        return out.astype(x.dtype).reshape(x.shape)
