"""A mixture of experts in the place of the MLP: no row is lost to a limit.

Every row goes to its experts whatever else is in the batch, so that a completion is a
function of its own tokens: a capacity limit would make it depend on its neighbours.
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

# Up to so many rows a device waits for the experts' weights, not for its products: a
# chip does a few hundred operations in the time it reads a byte.
FEW_ROWS = 256

_IN = ("experts", "embed", "mlp")
_OUT = ("experts", "mlp", "embed")


class Experts(nnx.Module):
    """Gated MLPs of which each row uses a few (Shazeer et al., arXiv 1701.06538).

    The router is a softmax over all experts in float32; the k largest are kept and,
    with `normalize_experts`, divided by their sum, as in Qwen3 (arXiv 2505.09388).
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
        """(G, M, T, D) to (G, M, T, D)."""
        weights, chosen = self.route(x)
        banks = tuple(
            constrain(bank[...].astype(x.dtype), *axes)
            for bank, axes in ((self.gate, _IN), (self.up, _IN), (self.down, _OUT))
        )
        return layout.sum_over_experts(
            self._part, (x, weights, chosen), banks, (_IN, _IN, _OUT)
        )

    def route(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights (..., k) float32 and numbers (..., k) int32 of each row's experts."""
        c = self.config
        # Rounded as a rollout holds it, or sampler and trainer would choose otherwise.
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
        """What the experts `first`, `first + 1`, ... of the banks add to their rows."""
        few = rows[0].size // rows[0].shape[-1] <= FEW_ROWS
        return (self._all_of_all if few else self._sorted)(rows, banks, first)

    # Both give a hidden row its expert's weight, round it once, and add up experts in
    # float32: sampling has few rows, training many, and their policies must agree.

    def _all_of_all(self, rows, banks, first):
        """Every expert on every row; only what was chosen has a weight.

        Reading the experts takes longer than that for few rows, and XLA reads a layer's
        part of all layers in place, which a kernel cannot.
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
        """Rows sorted by expert, those of other devices' experts last."""
        x, weights, chosen = rows
        gate, up, down = banks
        flat = x.reshape(-1, x.shape[-1])
        each = chosen.shape[-1]
        number = (chosen.reshape(-1) - first) % self.config.num_experts
        # Distinct keys: a sort that need not be stable compiles and runs faster.
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
        # Back in the order of the rows: each one's experts are added in a fixed order.
        back = jnp.zeros_like(place).at[order].set(place, unique_indices=True)
        out = out[back].reshape(*weights.shape, -1).sum(-2)
        return out.astype(x.dtype).reshape(x.shape)
