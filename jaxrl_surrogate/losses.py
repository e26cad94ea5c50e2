"""The scalar loss, computed from token log-probabilities and advantages.

Every term is a weighted sum over tokens. The weights of a whole batch are computed
before its first micro-batch runs (`token_weights`), and each micro-batch adds its part
of the sum. So the loss and its gradient do not depend on how a batch is split.
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

# Log ratios are clipped to this size. Larger ones overflow or dominate a batch, and
# e**20 already says that one of the two models practically excludes the token.
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
    """Return the weight of each token in the loss of a whole batch.

    The gradient of the surrogate objective E[h(p)] is a sum of token scores over each
    completion. `sequence_sum` and `dr_grpo` keep this gradient up to a constant, and
    `dapo` up to a factor that varies from batch to batch. `grpo` divides by the length
    of each completion, which favours longer completions; the result is the gradient of
    no objective.

    Args:
      normalization: one of the values of `LossConfig.normalization`.
      loss_mask: (G, M, T) bool, True on tokens that the policy sampled. Other tokens
        have weight 0 and are left out of means over tokens; `dr_grpo` divides by T
        whatever the mask is.
      sample_mask: (G, M) bool, True on samples that have a reward.

    Returns:
      (G, M, T) float32, zero on masked tokens and samples. Except for `dapo`, the loss
      is a mean over prompts of a mean over their samples, so a group that lost samples
      counts as much as a complete one. A prompt none of whose samples has a reward has
      weight zero and is not counted in the mean over prompts.
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
    """Raise the error that `LossConfig` raises for this value of a field."""
    LossConfig(**{field: name})


def policy_loss(
    config: LossConfig,
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Return the policy term of the loss, a sum over tokens with `weights`.

    policy_gradient: -A log pi, whose gradient is -A times the score of the token.
    ppo_clip (Schulman et al., arXiv 1707.06347, eq. 7; separate bounds as in DAPO,
    arXiv 2503.14476): -min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_old.

    Args:
      config: the name of the term and its bounds.
      logprobs: (G, M, T) float32, under the parameters being trained; -inf where
        truncated sampling (such as top-p) from these parameters excludes the token.
        The policy before an update sampled such a token. Its ratio is 0 and it has no
        score, so it adds nothing to the loss; the weights of other tokens do not
        change.
      old_logprobs: (G, M, T) float32, `Completions.sampler_logprobs` as the sampler
        returned them. The trainer never recomputes them, not even in later epochs.
      advantages: (G, M) float32; no gradient flows into them.
      weights: (G, M, T) float32 from `token_weights`.

    Returns:
      The scalar loss, and metrics as sums over tokens: the KL of the old to the new
      policy ("ratio_kl") and the numbers of clipped and of excluded tokens. The caller
      adds them over micro-batches and divides by the number of tokens.
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
        # Log-probabilities are arbitrary at masked positions, so they become 0 first.
        gain = jnp.where(counted, logprobs, 0.0) * advantages
    else:
        # jnp.where, not jnp.minimum, which halves the gradient where both sides are
        # equal. A ratio exactly on a bound is not clipped and keeps its full gradient;
        # with bounds of 0, a ratio of 1 is such a case.
        bounded = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
        clipped = bounded * advantages < ratio * advantages
        gain = jnp.where(clipped, jax.lax.stop_gradient(bounded), ratio) * advantages
        metrics["clip_fraction"] = (counted & clipped).sum().astype(jnp.float32)
    return -(weights * gain).sum(), metrics


def _excluded(logprobs: jax.Array, weights: jax.Array) -> jax.Array:
    """Return a mask of tokens that truncated sampling from this policy excludes."""
    return (weights > 0) & jnp.isneginf(logprobs)


def kl_penalty(
    estimator: str, logprobs: jax.Array, ref_logprobs: jax.Array
) -> jax.Array:
    """Return per-token estimates of KL(pi || pi_ref) at sampled tokens.

    With l = log pi - log pi_ref: k1 = l, k2 = l^2 / 2, k3 = exp(-l) - 1 + l (Schulman,
    2020). Used as a loss, only k2 has the gradient of the KL in expectation. The
    gradient of k1 has mean zero, and that of k3 is the gradient of the reverse KL. k1
    exists for comparison with published recipes.

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
    """Return the names of the metrics that optional terms of this loss add."""
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
    """Return the sum of all loss terms for a batch or micro-batch.

    Args:
      config: terms and coefficients.
      logprobs, old_logprobs, advantages, weights: as for `policy_loss`.
      entropy: (G, M, T) float32, the entropy of the policy at each token. None leaves
        out the entropy bonus and its metric. It must be given if `entropy_coef` is
        not 0.
      ref_logprobs: (G, M, T) float32, under the reference model. None leaves out the
        KL term and its metric. It must be given if `kl_coef` is not 0.

    Returns:
      The scalar loss, and metrics that are sums over tokens with a nonzero weight.
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
    """Return the factor by which an update multiplies the score of each sample.

    The factor is -d loss / d logprob, averaged over the tokens of a sample. It shows
    what the loss makes of the advantages: clipping and exclusion set tokens to zero,
    ratios scale them, the KL term adds to them and length normalisation divides them.
    With `sequence_sum`, policy_gradient and no other term, the factor is the advantage
    times the sample's weight in the mean, 1 / (samples x prompts); callers divide by
    this weight. The entropy bonus is left out, because it is not a function of the
    log-probabilities of sampled tokens.

    Args:
      config, logprobs, old_logprobs, advantages, weights, ref_logprobs: as for
        `total_loss`, of a whole batch or a slice of one.

    Returns:
      (G, M) float32: the sum over tokens of -d loss / d logprob, divided by the number
      of tokens with a nonzero weight; 0 for a sample without such tokens.
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
