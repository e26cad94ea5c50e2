"""The same logits by every pass of the decoder: whole, and a token at a time."""

import functools

import jax
import jax.numpy as jnp

from jaxrl_surrogate import models


def decode_all(config, params, tokens, prefix, last):
    """(G, M, T, D) hidden states from which each token is predicted, one at a time."""
    leading, length = (*tokens.shape[:2], config.num_kv_heads), tokens.shape[2]
    one = models.KeyValues.empty(leading, length, config.head_dim, config.compute_dtype)
    # What a cache holds past the written positions must not matter.
    one = models.KeyValues(one.keys + 7, one.values - 3).grow(length + 2)
    cache = (one,) * config.num_layers
    if not isinstance(params["layers"], tuple):
        cache = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cache)

    def step(carry, t):
        hidden, cache = carry
        new = models.decode_token(
            config, params, tokens[..., t], t, prefix, cache, length + 1
        )
        return new, hidden

    first = jnp.broadcast_to(last[:, None], (*tokens.shape[:2], last.shape[-1]))
    positions = jnp.arange(length, dtype=jnp.int32)
    _, hidden = jax.lax.scan(step, (first, cache), positions)
    return jnp.moveaxis(hidden, 0, 2)


@functools.partial(jax.jit, static_argnums=(0, 5))
def all_passes(config, params, prompts, lengths, tokens, unrolled=True):
    """Logits (G, M, T, V) of every way to compute them, unrolled layers on request."""
    head = functools.partial(models.output_logits, config, params)
    last, prefix = models.prefill(config, params, prompts, lengths)
    extended = models.forward_completions(config, params, tokens, prefix)
    first = jnp.broadcast_to(last[:, None, None], (*tokens.shape[:2], 1, last.shape[1]))
    found = {
        "extend": head(jnp.concatenate([first, extended[:, :, :-1]], axis=2)),
        "decode": head(decode_all(config, params, tokens, prefix, last)),
    }
    if unrolled:
        params = models.unstack_layers(params)
        last, prefix = models.prefill(config, params, prompts, lengths)
        hidden = decode_all(config, params, tokens, prefix, last)
        found["decode_unrolled"] = head(hidden)
    return found
