"""Log-probabilities of completion tokens without the logits of a whole batch.

The logits of all positions would be (G, M, T, V), with a large V. Positions are
therefore processed in chunks along T, and each chunk's logits are recomputed in the
backward pass, so memory holds the logits of one chunk only.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_surrogate.models import layout
from jaxrl_surrogate.models.blocks import Blocks
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.forward import (
    Params,
    forward_completions,
    output_logits,
    prefill,
    shard_ends,
)


class TokenScores(NamedTuple):
    """Scores of completion tokens. Entries past a completion's end are undefined."""

    logprobs: jax.Array  # (G, M, T) float32
    entropy: jax.Array | None  # (G, M, T) float32, of the distribution of each token


def token_logprobs(
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
    """Compute log-probabilities of completions, with each prompt computed once.

    Args:
      config: the decoder's shape; static.
      params: parameters of the decoder.
      prompt_tokens: (G, P) int32, padded on the right.
      prompt_lengths: (G,) int32.
      tokens: (G, M, T) int32, the completions.
      logits_transform: from logits (..., V) to the logits of the sampling distribution
        (temperature, truncation), so that sampler and trainer use the same one.
      chunk: most tokens whose logits are in memory at a time; a chunk has at least one
        position of every completion.
      entropy: also compute entropies.
      remat: recompute each block in the backward pass instead of storing activations.

    Returns:
      `TokenScores` of shape (G, M, T).
    """
    params = shard_ends(config, params)
    last, prefix = prefill(config, params, prompt_tokens, prompt_lengths, remat=remat)

    @jax.checkpoint
    def scores(hidden, targets):
        logits = logits_transform(output_logits(config, params, hidden))
        return _score(logits, targets, entropy)

    # Each token is predicted from the one before it, and the first token of each
    # completion from the prompt's last token. The last token predicts nothing.
    first = scores(last[:, None, None], tokens[..., :1])
    num_prompts, num_samples, num_tokens = tokens.shape
    if num_tokens == 1:
        return jax.tree.map(lambda head: jnp.broadcast_to(head, tokens.shape), first)
    # A mesh that shards the positions needs shards of equal size.
    num_shards = layout.num_shards("positions", num_tokens)
    read = tokens if num_shards > 1 else tokens[..., :-1]
    hidden = forward_completions(config, params, read, prefix, remat=remat)
    largest = max(1, chunk // max(1, num_prompts * num_samples * num_shards))
    blocks = Blocks.of(read.shape[-1], largest)
    targets = jnp.roll(tokens, -1, axis=-1)[..., : read.shape[-1]]
    parts = (blocks.split(hidden, 2), blocks.split(targets, 2))
    out = jax.lax.map(lambda pair: scores(*pair), parts)
    return jax.tree.map(
        lambda head, leaf: jnp.concatenate(
            [
                jnp.broadcast_to(head, (num_prompts, num_samples, 1)),
                blocks.join(leaf, 2)[..., : num_tokens - 1],
            ],
            axis=-1,
        ),
        first,
        out,
    )


def _score(logits: jax.Array, targets: jax.Array, entropy: bool) -> TokenScores:
    """Return the log-softmax of (..., V) at targets (...), and its entropy on request.

    The target's logit is selected by comparison and not by a gather. Its gradient is
    then a fused select, and a sharded vocabulary axis is not gathered.
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
