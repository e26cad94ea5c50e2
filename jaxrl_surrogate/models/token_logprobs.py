"""Log-probabilities of completion tokens without the logits of a whole batch.

The vocabulary is the widest axis of a language model: logits of all positions would be
(G, M, T, V). Positions are taken in chunks along T, and a chunk's logits are computed
again in the backward pass, so the memory held is (G, M, chunk, V).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.forward import (
    Params,
    extend,
    lay_out_ends,
    output_logits,
    prefill,
)


class TokenScores(NamedTuple):
    """Scores of completion tokens; what lies past a completion's end means nothing."""

    logprobs: jax.Array  # (G, M, T) float32
    entropy: jax.Array | None  # (G, M, T) float32, of the distribution of each token


def completion_scores(
    config: DecoderConfig,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_lengths: jax.Array,
    tokens: jax.Array,
    *,
    logits_transform: Callable[[jax.Array], jax.Array] = lambda logits: logits,
    chunk: int = 1024,
    entropy: bool = False,
    remat: bool = False,
) -> TokenScores:
    """Score completions with teacher forcing, each prompt computed once for its group.

    Args:
      config: static.
      params: parameters of the decoder.
      prompt_tokens: (G, P) int32, padded on the right.
      prompt_lengths: (G,) int32.
      tokens: (G, M, T) int32.
      logits_transform: from logits (..., V) to the logits of the distribution that was
        sampled (temperature, truncation), so that both sides speak of the same one.
      chunk: tokens whose logits are in memory at once, rounded to whole positions.
      entropy: also compute entropies.
      remat: recompute each block in the backward pass.

    Returns:
      `TokenScores`.
    """
    params = lay_out_ends(config, params)
    last, prefix = prefill(config, params, prompt_tokens, prompt_lengths, remat=remat)
    num_prompts, num_samples, num_tokens = tokens.shape
    first = jnp.broadcast_to(
        last[:, None, None], (num_prompts, num_samples, 1, last.shape[-1])
    )
    # Position t is predicted from the token before it; the last token predicts nothing.
    if num_tokens > 1:
        rest = extend(config, params, tokens[..., :-1], prefix, remat=remat)
        hidden = jnp.concatenate([first, rest], axis=2)
    else:
        hidden = first

    def scores(hidden, targets):
        logits = logits_transform(output_logits(config, params, hidden))
        return _score(logits, targets, entropy)

    width = max(1, min(num_tokens, chunk // max(1, num_prompts * num_samples)))
    num_chunks = -(-num_tokens // width)
    padding = num_chunks * width - num_tokens
    hidden = jnp.pad(hidden, [(0, 0), (0, 0), (0, padding), (0, 0)])
    targets = jnp.pad(tokens, [(0, 0), (0, 0), (0, padding)])
    chunks = (
        jnp.moveaxis(hidden.reshape(*tokens.shape[:2], num_chunks, width, -1), 2, 0),
        jnp.moveaxis(targets.reshape(*tokens.shape[:2], num_chunks, width), 2, 0),
    )
    out = jax.lax.map(lambda pair: jax.checkpoint(scores)(*pair), chunks)
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 0, 2).reshape(*tokens.shape[:2], -1)[
            :, :, :num_tokens
        ],
        out,
    )


def _score(logits: jax.Array, targets: jax.Array, entropy: bool) -> TokenScores:
    """Log-softmax of (..., V) at targets (...), and its entropy on request.

    The target is picked by comparison, not by a gather: its gradient is then a fused
    select, and a vocabulary that is sharded stays where it is.
    """
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    vocabulary = jnp.arange(logits.shape[-1], dtype=targets.dtype)
    chosen = vocabulary.reshape((1,) * targets.ndim + (-1,)) == targets[..., None]
    picked = jnp.where(chosen, logits, 0).sum(-1)
    spread = None
    if entropy:
        probabilities = jnp.exp(logits - normalizer[..., None])
        kept = jnp.where(probabilities > 0, logits, 0)  # -inf where truncated
        spread = normalizer - (probabilities * kept).sum(-1)
    return TokenScores(picked - normalizer, spread)
