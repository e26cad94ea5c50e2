"""From logits to a token: temperature, truncation, and inverse-CDF sampling."""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.typed_fields import check_fields

_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """The sampling distribution: a softmax with temperature and truncation."""

    temperature: Annotated[float, "divides the logits; 0 is greedy", "kept"] = 1.0
    top_k: Annotated[int, "keep the k most likely tokens; 0 keeps all", "kept"] = 0
    top_p: Annotated[
        float, "keep the smallest set with this mass; 1 keeps all", "kept"
    ] = 1.0
    min_p: Annotated[
        float, "keep tokens at least this share of the likeliest", "kept"
    ] = 0.0

    def __post_init__(self):
        check_fields(self)
        if not 0 <= self.temperature < math.inf:
            raise FieldError("temperature", self.temperature, "0 (greedy) or more")
        if self.top_k < 0:
            raise FieldError("top_k", self.top_k, "0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise FieldError("top_p", self.top_p, "in (0, 1]")
        if not 0 <= self.min_p < 1:
            raise FieldError("min_p", self.min_p, "in [0, 1)")


def sampling_logits(config: SamplingConfig, logits: jax.Array) -> jax.Array:
    """Return the logits of the sampling distribution.

    The trainer applies this function as well, so that its log-probabilities are those
    of the policy that sampled: a truncated softmax is another policy than the full one.
    The truncations apply in the order top-k, top-p, min-p, each to the tokens that the
    previous one kept. Tokens tied with the last token kept are kept too.

    Args:
      config: the sampling distribution; temperature 0 does not scale the logits.
      logits: (..., V) float32.

    Returns:
      (..., V) float32, -inf on tokens that are never sampled.
    """
    if config.temperature not in (0, 1):
        logits = logits / config.temperature
    if config.top_k and config.top_k < logits.shape[-1]:
        kept = jax.lax.top_k(jax.lax.stop_gradient(logits), config.top_k)[0]
        logits = jnp.where(logits >= kept[..., -1:], logits, -jnp.inf)
    if config.top_p < 1:
        ordered = -jnp.sort(-jax.lax.stop_gradient(logits), axis=-1)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = (before < config.top_p).sum(-1, keepdims=True) - 1
        threshold = jnp.take_along_axis(ordered, last, axis=-1)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    if config.min_p > 0:
        highest = jax.lax.stop_gradient(logits).max(-1, keepdims=True)
        logits = jnp.where(logits >= highest + math.log(config.min_p), logits, -jnp.inf)
    return logits


def sample(
    logits: jax.Array, uniforms: jax.Array, *, greedy: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Draw a token from each row by inverting its cumulative distribution.

    This needs one uniform random number per row instead of noise over the whole
    vocabulary. The inversion first finds a block of the vocabulary and then a token in
    that block, so the only cumulative sum over all of V is that of the block sums.

    Args:
      logits: (..., V) float32, of the sampling distribution.
      uniforms: (...) float32 in [0, 1).
      greedy: take the most likely token, the first one among ties.

    Returns:
      Tokens (...) int32 and their log-probabilities (...) float32.
    """
    highest = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    if greedy:
        tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        total = weights.sum(-1)
    else:
        tokens, total = _invert(weights, uniforms)
    picked = jnp.take_along_axis(logits - highest, tokens[..., None], axis=-1)
    return tokens, picked[..., 0] - jnp.log(total)


def _invert(weights, uniforms):
    """Invert the cumulative distributions of unnormalised weights at quantiles.

    Args:
      weights: (..., V), unnormalised probabilities.
      uniforms: (...), the quantiles.

    Returns:
      Tokens (...) int32 and the sums of the weights (...).
    """
    padding = -weights.shape[-1] % _BLOCK
    weights = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, padding)])
    blocks = weights.reshape(*weights.shape[:-1], -1, _BLOCK)
    sums = blocks.sum(-1)
    bounds = jnp.cumsum(sums, axis=-1)
    total = bounds[..., -1]
    target = uniforms * total
    block = _first_above(bounds, target, sums)
    before = jnp.take_along_axis(bounds - sums, block[..., None], axis=-1)[..., 0]
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    token = _first_above(jnp.cumsum(inside, axis=-1), target - before, inside)
    return block * _BLOCK + token, total


def _first_above(bounds, target, weights):
    """Return the index (...) of the first cumulative bound (..., N) above target (...).

    Only indices with a positive weight are returned, so that rounding never picks a
    token that the truncation excluded. If no bound is above the target, the result is
    the last index with a positive weight.
    """
    size = bounds.shape[-1]
    positions = jnp.arange(size, dtype=jnp.int32)
    positions = positions.reshape((1,) * (bounds.ndim - 1) + (-1,))
    weighty = weights > 0
    above = jnp.where(weighty & (bounds > target[..., None]), positions, size)
    return jnp.minimum(above.min(-1), jnp.where(weighty, positions, 0).max(-1))
