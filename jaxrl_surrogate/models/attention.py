"""Attention of completions over their own tokens and over a prompt that they share.

A group's M completions have one prompt, so its keys and values are stored once and read
by all M. The softmax runs over two segments, the shared prefix and the completion's own
tokens, and is normalised jointly. Scores and softmax are always float32.

Axis letters: G prompts, M samples, T queries, S own keys, P prefix keys, K key-value
heads, R query heads per key-value head, H head width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models.blocks import Blocks
from jaxrl_surrogate.models.key_values import KeyValues
from jaxrl_surrogate.models.wide_einsum import wide_einsum

# Most queries that are processed at a time. Longer inputs are processed in blocks, each
# recomputed in the backward pass, so memory holds scores of (.., QUERY_BLOCK, S), not
# of (.., T, S).
QUERY_BLOCK = 512
_MASKED = -1e30


class Prefix(NamedTuple):
    """The keys and values of prompts, from a prefill."""

    cache: KeyValues  # (G, K, H, P) and (G, K, P, H); for all layers with a leading L
    lengths: jax.Array  # (G,) int32, numbers of valid positions


def attend(
    q: jax.Array,
    own: KeyValues,
    first: int | jax.Array,
    window: int | jax.Array | None,
    prefix: Prefix | None,
    *,
    scale: float | None = None,
    softcap: float = 0.0,
) -> jax.Array:
    """Compute causal attention over a shared prefix and the queries' own sequence.

    Args:
      q: (G, M, T, K, R, H) queries; query t is at own position `first + t`.
      own: keys and values of S own positions. Positions after the query are masked, so
        the tail of a cache may hold any finite values.
      first: own position of the first query, 0 if a whole sequence is processed.
      window: number of positions that a query attends to, itself included; None for
        all.
      prefix: keys and values of the prompt; None if there is no prompt.
      scale: factor of the scores; None for H ** -0.5.
      softcap: a cap c that turns scores s into c tanh(s / c); 0 for none.

    Returns:
      (G, M, T, K, R, H) in the dtype of q.
    """
    num_queries = q.shape[2]
    steps = first + jnp.arange(num_queries)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q = q * jnp.asarray(scale, q.dtype)
    blocks = Blocks.of(num_queries, QUERY_BLOCK)
    if blocks.number == 1:
        return _attend_block(q, own, steps, window, prefix, softcap)

    @jax.checkpoint
    def one_block(block, steps):
        return _attend_block(block, own, steps, window, prefix, softcap)

    parts = (blocks.split(q, 2), blocks.split(steps, 0))
    out = jax.lax.map(lambda pair: one_block(*pair), parts)
    return blocks.join(out, 2)


def _attend_block(q, own, steps, window, prefix, softcap):
    own_scores = _capped(wide_einsum("gmtkrh,gmkhs->gmktrs", q, own.keys), softcap)
    own_mask = _own_mask(steps, own.keys.shape[-1], window)
    own_scores = jnp.where(own_mask[None, None, None, :, None, :], own_scores, _MASKED)
    highest = own_scores.max(-1)  # (G, M, K, T, R)
    if prefix is not None:
        scores = wide_einsum("gmtkrh,gkhp->gkmtrp", q, prefix.cache.keys)
        scores = _capped(scores, softcap)
        mask = _prefix_mask(steps, scores.shape[-1], window, prefix)
        scores = jnp.where(mask[:, None, None, :, None, :], scores, _MASKED)
        highest = jnp.maximum(highest, jnp.swapaxes(scores.max(-1), 1, 2))
    # A constant shift does not change a softmax, so the shift has no gradient.
    highest = jax.lax.stop_gradient(highest)
    own_weights = jnp.exp(own_scores - highest[..., None])
    total = own_weights.sum(-1)
    out = wide_einsum("gmktrs,gmksh->gmktrh", own_weights.astype(q.dtype), own.values)
    if prefix is not None:
        weights = jnp.exp(scores - jnp.swapaxes(highest, 1, 2)[..., None])
        total += jnp.swapaxes(weights.sum(-1), 1, 2)
        out += wide_einsum(
            "gkmtrp,gkph->gmktrh", weights.astype(q.dtype), prefix.cache.values
        )
    out /= total[..., None]
    return jnp.moveaxis(out, 2, 3).astype(q.dtype)


def _capped(scores, softcap):
    return softcap * jnp.tanh(scores / softcap) if softcap else scores


def _own_mask(steps, num_keys, window):
    """Return the causal mask inside the window, (T, S) bool."""
    distance = steps[:, None] - jnp.arange(num_keys)[None]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)


def _prefix_mask(steps, num_keys, window, prefix):
    """Return the mask of the prefix, (G, T, P) bool, or (G, 1, P) without a window."""
    positions = jnp.arange(num_keys)[None, None]
    valid = positions < prefix.lengths[:, None, None]
    if window is None:
        return valid
    distance = prefix.lengths[:, None, None] + steps[None, :, None] - positions
    return valid & (distance < window)
