"""Token log-probabilities and advantages to a scalar loss.

Every term is a weighted sum over tokens whose weights are fixed before the first
micro-batch runs (`token_weights`): a micro-batch adds its part of the sum, so loss and
gradients do not depend on how a batch is cut.
"""

import dataclasses
import math
from typing import Annotated, Literal

import chex
import jax
import jax.numpy as jnp

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.typed_fields import check_fields

Metrics = dict[str, jax.Array]

# Differences of log-probabilities beyond this overflow or drown a batch; what they
# stand for, a token that one model all but excludes, is said as well by e**20.
_MAX_LOG_RATIO = 20.0


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which terms the loss has and how it is normalised."""

    policy: Annotated[
        Literal["policy_gradient", "ppo_clip"], "policy term of the loss", "numbers"
    ] = "policy_gradient"
    clip_low: Annotated[
        float, "ppo_clip: ratios are clipped below 1 - clip_low", "numbers"
    ] = 0.2
    clip_high: Annotated[
        float, "ppo_clip: ratios are clipped above 1 + clip_high", "numbers"
    ] = 0.2
    normalization: Annotated[
        Literal["sequence_sum", "dr_grpo", "grpo", "dapo"],
        "sequence_sum: sum over tokens, mean over samples and prompts; dr_grpo: the "
        "same divided by the longest completion allowed; grpo: mean over each "
        "completion's tokens; dapo: mean over all tokens of the batch",
        "kept",
    ] = "dr_grpo"
    kl_coef: Annotated[
        float, "weight of the KL to the reference model; 0 drops it", "numbers"
    ] = 0.0
    kl_estimator: Annotated[
        Literal["k1", "k2", "k3"],
        "estimator of the KL term, taken as a loss",
        "numbers",
    ] = "k3"
    entropy_coef: Annotated[
        float, "weight of the entropy bonus; 0 drops it", "numbers"
    ] = 0.0

    def __post_init__(self):
        check_fields(self)
        if not 0 <= self.clip_low <= 1:
            raise FieldError("clip_low", self.clip_low, "in [0, 1]")
        if self.clip_high < 0:
            raise FieldError("clip_high", self.clip_high, "0 or more")
        if not 0 <= self.kl_coef < math.inf:
            raise FieldError("kl_coef", self.kl_coef, "0 or more, finite")
        if not math.isfinite(self.entropy_coef):
            raise FieldError("entropy_coef", self.entropy_coef, "a finite number")


def token_weights(
    normalization: str, loss_mask: jax.Array, sample_mask: jax.Array
) -> jax.Array:
    """What one token counts in the loss of a whole batch.

    Only `sequence_sum` and `dr_grpo` keep the surrogate objective up to a constant: the
    gradient of E[h(p)] is a sum of token scores over each completion. `dapo` keeps it
    up to a factor that varies from batch to batch; `grpo` divides by the completion's
    own length, which pushes towards longer answers and is the gradient of no objective.

    Args:
      normalization: as `LossConfig.normalization`.
      loss_mask: (G, M, T) bool, tokens of completions that the policy chose; the others
        have weight 0 and are in no mean over tokens. `dr_grpo` divides by T as ever.
      sample_mask: (G, M) bool, samples that have a verdict.

    Returns:
      (G, M, T) float32, zero on everything masked. A group's samples share the weight
      of their prompt, so one that lost samples counts as much as a whole one; a prompt
      without any verdict counts nothing and is not in the mean.
    """
    _check_choice("normalization", normalization)
    chex.assert_rank([loss_mask, sample_mask], [3, 2])
    mask = (loss_mask & sample_mask[..., None]).astype(jnp.float32)
    if normalization == "dapo":
        return mask / jnp.maximum(mask.sum(), 1)
    group_sizes = sample_mask.sum(-1, keepdims=True)
    num_prompts = (group_sizes > 0).sum()
    per_sample = sample_mask / jnp.maximum(group_sizes * num_prompts, 1)
    weights = mask * per_sample[..., None]
    if normalization == "dr_grpo":
        return weights / mask.shape[-1]
    if normalization == "grpo":
        return weights / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return weights


def _check_choice(field: str, name: str) -> None:
    """Refuse what `LossConfig` would, where it is given alone."""
    LossConfig(**{field: name})


def policy_loss(
    config: LossConfig,
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The policy term: a sum over tokens with `weights`.

    policy_gradient: -A log pi, whose gradient at any parameters is the weighted score.
    ppo_clip (Schulman et al., arXiv 1707.06347, eq. 7; separate bounds as in DAPO,
    arXiv 2503.14476): -min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_old.

    Args:
      config: names the term and its bounds.
      logprobs: (G, M, T) float32, under the parameters being trained; -inf where the
        truncation of this policy excludes the token. Such a token was sampled by the
        policy before an update: its ratio is 0 and it has no score, so that it counts
        nothing. The weights of the others stay as they are.
      old_logprobs: (G, M, T) float32, `Completions.sampler_logprobs`: as the sampler
        gave them. The trainer does not compute them again, in later epochs either.
      advantages: (G, M) float32; no gradient flows into them.
      weights: (G, M, T) float32 from `token_weights`.

    Returns:
      The scalar loss and sums over tokens (mean over the batch once all are added):
      the shares of clipped and of excluded tokens, and the KL of the old to the new
      policy.
    """
    chex.assert_equal_shape([logprobs, old_logprobs, weights])
    chex.assert_rank(advantages, 2)
    advantages = jax.lax.stop_gradient(advantages)[..., None]
    excluded = _excluded(logprobs, weights)
    weights = jnp.where(excluded, 0, weights)
    counted = weights > 0
    log_ratio = jnp.where(counted, logprobs - old_logprobs, 0.0)
    log_ratio = jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    metrics = {
        "ratio_kl": jnp.where(counted, ratio - 1 - log_ratio, 0).sum(),
        "clip_fraction": jnp.float32(0),
        "excluded_fraction": excluded.sum().astype(jnp.float32),
    }
    if config.policy == "policy_gradient":
        # Masked positions hold anything, so they are cut before the product.
        gain = jnp.where(counted, logprobs, 0.0) * advantages
    else:
        # A choice, not jnp.minimum, which splits the gradient of equals: a ratio on a
        # bound, as 1 is on bounds of 0, is not yet clipped and has all of its gradient.
        bounded = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
        clipped = bounded * advantages < ratio * advantages
        gain = jnp.where(clipped, jax.lax.stop_gradient(bounded), ratio) * advantages
        metrics["clip_fraction"] = (counted & clipped).sum().astype(jnp.float32)
    return -(weights * gain).sum(), metrics


def _excluded(logprobs: jax.Array, weights: jax.Array) -> jax.Array:
    """Tokens of the loss that truncated sampling cannot produce any more."""
    return (weights > 0) & jnp.isneginf(logprobs)


def kl_penalty(
    estimator: str, logprobs: jax.Array, ref_logprobs: jax.Array
) -> jax.Array:
    """Per-token estimates of KL(pi || pi_ref) at sampled tokens (Schulman, 2020).

    With l = log pi - log pi_ref: k1 = l, k2 = l^2 / 2, k3 = exp(-l) - 1 + l. As a loss
    only k2 has the gradient of the KL in expectation; k1 has a gradient of mean zero,
    and k3 that of the reverse KL. k1 is offered for comparison with published recipes.

    Args:
      estimator: "k1", "k2" or "k3".
      logprobs: any shape, float32.
      ref_logprobs: the same shape.

    Returns:
      The same shape, float32.
    """
    _check_choice("kl_estimator", estimator)
    log_ratio = jnp.clip(logprobs - ref_logprobs, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * jnp.square(log_ratio)
    return jnp.exp(-log_ratio) - 1 + log_ratio


def term_metrics(config: LossConfig) -> tuple[str, ...]:
    """The metrics that the terms of this loss add to those of every step."""
    return (
        *["kl"] * (config.kl_coef != 0),
        *["entropy_exact"] * (config.entropy_coef != 0),
    )


def total_loss(
    config: LossConfig,
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    weights: jax.Array,
    *,
    entropy: jax.Array | None = None,
    ref_logprobs: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """All terms of the loss for a (micro-)batch.

    Args:
      config: terms and coefficients.
      logprobs, old_logprobs, advantages, weights: as for `policy_loss`.
      entropy: (G, M, T) float32, or None, which leaves the term and its metric out;
        it must be given where `entropy_coef` is not 0.
      ref_logprobs: (G, M, T) float32, or None, likewise of `kl_coef`.

    Returns:
      The scalar loss and metrics, each a sum over counted tokens.
    """
    loss, metrics = policy_loss(config, logprobs, old_logprobs, advantages, weights)
    weights = jnp.where(_excluded(logprobs, weights), 0, weights)
    counted = weights > 0
    if entropy is not None:
        entropy = jnp.where(counted, entropy, 0)
        loss -= config.entropy_coef * (weights * entropy).sum()
        metrics["entropy_exact"] = entropy.sum()
    if ref_logprobs is not None:
        kl = kl_penalty(
            config.kl_estimator,
            jnp.where(counted, logprobs, 0),
            jnp.where(counted, ref_logprobs, 0),
        )
        loss += config.kl_coef * (weights * kl).sum()
        metrics["kl"] = kl.sum()
    return loss, metrics


def applied_weights(
    config: LossConfig,
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    weights: jax.Array,
    ref_logprobs: jax.Array | None = None,
) -> jax.Array:
    """What an update really multiplies each sample's score with.

    The derivative of the loss by the log-probability of every token, summed over a
    sample's tokens and divided by the part that `sequence_sum` gives them: with that
    normalisation, policy_gradient and no other term it is the advantage itself.
    Clipping and exclusion set tokens to zero, ratios scale them, further terms add to
    them and length normalisation divides them; this shows all, as a mean over tokens.
    The entropy bonus is not a function of sampled log-probabilities and is left out.

    Args:
      config, logprobs, old_logprobs, advantages, weights, ref_logprobs: as for
        `total_loss`, of a whole batch or a slice of one.

    Returns:
      (G, M) float32: the sum over tokens of -d loss / d logprob over the number of
      counted tokens; 0 where none is. To be divided by the weight of a prompt's sample
      in the mean, 1 / (samples x prompts).
    """
    config = dataclasses.replace(config, entropy_coef=0.0)

    def loss(logprobs):
        return total_loss(
            config,
            logprobs,
            old_logprobs,
            advantages,
            weights,
            ref_logprobs=ref_logprobs,
        )[0]

    slopes = jax.grad(loss)(jax.lax.stop_gradient(logprobs))
    return -slopes.sum(-1) / jnp.maximum((weights > 0).sum(-1), 1)
