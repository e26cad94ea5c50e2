"""The decoder's modules in Flax NNX: their parameters and their computations.

Parameters are stored in nested dicts of arrays. `models.forward` merges a module with
its parameters whenever it calls the module. Every parameter names its logical axes,
which `parallel.partition` maps to mesh axes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.experts import Experts
from jaxrl_surrogate.models.key_values import KeyValues
from jaxrl_surrogate.models.layout import constrain, constrain_last
from jaxrl_surrogate.models.rotary import rotate
from jaxrl_surrogate.models.wide_einsum import wide_einsum


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation (Zhang, Sennrich, arXiv 1910.07467) in float32."""

    def __init__(self, config: DecoderConfig, shape, axes):
        self.config, self.last = config, tuple(range(-len(shape), 0))
        start = jnp.zeros if config.zero_centred_norms else jnp.ones
        self.scale = nnx.Param(start(shape), logical_axes=axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x (..., *shape) over all axes of `shape` jointly."""
        wide = x.astype(jnp.float32)
        mean = jnp.square(wide).mean(self.last, keepdims=True)
        inverse = jax.lax.rsqrt(mean + self.config.norm_eps)
        scale = self.scale[...].astype(jnp.float32)
        if self.config.zero_centred_norms:
            scale = 1 + scale
        return (wide * inverse * _align(scale, x.ndim)).astype(x.dtype)


class Linear(nnx.Module):
    """A contraction of the last axes of x with the first axes of a kernel."""

    def __init__(self, shape, axes, num_in, *, bias, rngs, scale=1.0):
        fan_in = 1
        for size in shape[:num_in]:
            fan_in *= size
        init = jax.nn.initializers.truncated_normal(scale * fan_in**-0.5)
        self.num_in, self.axes = num_in, axes
        self.kernel = nnx.Param(init(rngs.params(), shape), logical_axes=axes)
        self.bias = (
            nnx.Param(jnp.zeros(shape[num_in:]), logical_axes=axes[num_in:])
            if bias
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Contract x with the kernel, in the dtype of x."""
        kernel = constrain(self.kernel[...].astype(x.dtype), *self.axes)
        out = jnp.tensordot(x, kernel, axes=self.num_in)
        if self.bias is not None:
            out += _align(self.bias[...].astype(x.dtype), out.ndim)
        return out


class Attention(nnx.Module):
    """Projections of grouped-query attention (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.config = c
        heads = (c.embed_dim, c.num_heads, c.head_dim)
        kv_heads = (c.embed_dim, c.num_kv_heads, c.head_dim)
        kv_axes = ("embed", "kv_heads", "head_dim")
        bias = c.attention_bias
        self.q = Linear(heads, ("embed", "heads", "head_dim"), 1, bias=bias, rngs=rngs)
        self.k = Linear(kv_heads, kv_axes, 1, bias=bias, rngs=rngs)
        self.v = Linear(kv_heads, kv_axes, 1, bias=bias, rngs=rngs)
        self.out = Linear(
            (*heads[1:], c.embed_dim), ("heads", "head_dim", "embed"), 2,
            bias=c.attention_out_bias, rngs=rngs, scale=(2 * c.num_layers) ** -0.5,
        )  # fmt: skip
        if c.qk_norm:
            # The axes of (heads, head_dim) that one norm covers.
            first = -1 if c.qk_norm_over == "head" else -2
            self.q_norm = RMSNorm(c, heads[first:], ("heads", "head_dim")[first:])
            self.k_norm = RMSNorm(c, kv_heads[first:], kv_axes[first:])

    def project(self, x: jax.Array, positions: jax.Array, frequencies: jax.Array):
        """Compute queries, keys and values with rotary position embeddings.

        Args:
          x: (G, M, T, D), input of the attention.
          positions: (G, 1, T) int32.
          frequencies: (H / 2,) float32 of this layer (see `rotary.frequencies`).

        Returns:
          q (G, M, T, K, R, H) and `KeyValues` of the T positions.
        """
        c = self.config
        q = constrain(self.q(x), "batch", "samples", "positions", "heads", None)
        k, v = (
            constrain(of(x), "batch", "samples", None, "kv_heads", None)
            for of in (self.k, self.v)
        )
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q, positions, frequencies)
        k = rotate(k, positions, frequencies)
        q = q.reshape(*q.shape[:3], c.num_kv_heads, c.queries_per_kv, c.head_dim)
        return q, KeyValues.of(k, v)

    def combine(self, out: jax.Array) -> jax.Array:
        """Project attention outputs (G, M, T, K, R, H) to (G, M, T, D)."""
        c = self.config
        return self.out(out.reshape(*out.shape[:3], c.num_heads, c.head_dim))


class GatedMLP(nnx.Module):
    """Gated linear unit (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.activation = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}[c.activation]
        shape, axes = (c.embed_dim, c.mlp_dim), ("embed", "mlp")
        self.gate = Linear(shape, axes, 1, bias=c.mlp_bias, rngs=rngs)
        self.up = Linear(shape, axes, 1, bias=c.mlp_bias, rngs=rngs)
        self.down = Linear(
            shape[::-1], axes[::-1], 1,
            bias=c.mlp_bias, rngs=rngs, scale=(2 * c.num_layers) ** -0.5,
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to x (..., D); the result has the shape and dtype of x."""
        gate, up = (constrain_last(of(x), "mlp") for of in (self.gate, self.up))
        return self.down(self.activation(gate) * up)


class Block(nnx.Module):
    """One transformer block, with norms at the places that `norm_placement` names."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.attention = Attention(c, rngs=rngs)
        self.mlp = (Experts if c.num_experts else GatedMLP)(c, rngs=rngs)
        if c.norm_placement != "post":
            self.attention_norm = RMSNorm(c, (c.embed_dim,), ("embed",))
            self.mlp_norm = RMSNorm(c, (c.embed_dim,), ("embed",))
        if c.norm_placement != "pre":
            self.attention_post_norm = RMSNorm(c, (c.embed_dim,), ("embed",))
            self.mlp_post_norm = RMSNorm(c, (c.embed_dim,), ("embed",))

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        frequencies: jax.Array,
        attend: Callable,
    ) -> tuple[jax.Array, object]:
        """Apply the block.

        Args:
          x: (G, M, T, D).
          positions: (G, 1, T) int32.
          frequencies: (H / 2,) float32 of this layer.
          attend: from queries and key-values to (attention output, value to keep). It
            decides which positions are attended to, so training, prefill and decoding
            run the same block.

        Returns:
          (G, M, T, D), and the value to keep that `attend` returned.
        """
        seen = self._read("attention_norm", x)
        q, key_values = self.attention.project(seen, positions, frequencies)
        out, kept = attend(q, key_values)
        x = x + self._added("attention_post_norm", self.attention.combine(out))
        read = self._read("mlp_norm", x)
        return x + self._added("mlp_post_norm", self.mlp(read)), kept

    def _read(self, norm, x):
        """Return the input of attention or MLP from the residual stream."""
        return constrain_last(getattr(self, norm, _same)(x), None)

    def _added(self, norm, out):
        """Return what attention or MLP adds to the residual stream."""
        return constrain_last(getattr(self, norm, _same)(out), "residual")


class Ends(nnx.Module):
    """The parts before and after the blocks: embedding, final norm and output head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.config = c
        init = jax.nn.initializers.truncated_normal(c.embed_dim**-0.5)
        shape, axes = (c.vocab_size, c.embed_dim), ("vocab", "embed")
        self.embedding = nnx.Param(init(rngs.params(), shape), logical_axes=axes)
        self.final_norm = RMSNorm(c, (c.embed_dim,), ("embed",))
        if not c.tie_embeddings:
            self.head = nnx.Param(init(rngs.params(), shape), logical_axes=axes)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Embed token ids (...) as (..., D) in the compute dtype."""
        x = self.embedding[...][tokens].astype(self.config.compute_dtype)
        if self.config.scale_embeddings:
            x *= jnp.asarray(self.config.embed_dim**0.5, x.dtype)
        # The first constraint keeps rows complete: the gradient of a lookup is a
        # scatter, which XLA would otherwise shard along the width and then reshard
        # along the vocabulary.
        return constrain_last(constrain_last(x, None), "residual")

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Compute logits (..., V) float32 from outputs of the last block (..., D)."""
        table = self.embedding if self.config.tie_embeddings else self.head
        hidden = constrain_last(self.final_norm(hidden), None)
        table = table[...].astype(hidden.dtype)
        logits = constrain_last(wide_einsum("...d,vd->...v", hidden, table), "vocab")
        cap = self.config.final_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits


def _same(x):
    return x


def _align(x: jax.Array, ndim: int) -> jax.Array:
    """Prepend axes of size 1; the tests forbid implicit rank promotion."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)
