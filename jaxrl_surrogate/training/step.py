"""The fused update: one jitted function from rewards to new parameters.

It computes advantages, token weights, loss and gradients, and takes an optimizer step.
The objective is usually data, a `TableFamily`: one compiled step serves every such
objective, and a schedule over objectives passes another table without recompilation. A
`GeneralRule`, any function of a group's rewards, is code: the step is compiled for it.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax

from jaxrl_surrogate import models
from jaxrl_surrogate.errors import FieldError, at_least
from jaxrl_surrogate.losses import (
    LossConfig,
    Metrics,
    applied_weights,
    token_weights,
    total_loss,
)
from jaxrl_surrogate.objectives import GeneralRule, graded
from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.parallel import partition, placement
from jaxrl_surrogate.rollout import SamplingConfig, sampling_logits
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.freezing import IsFrozen, merge, none_frozen
from jaxrl_surrogate.training.state import StateStep, TrainState, state_shardings
from jaxrl_surrogate.typed_fields import check_fields


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How an update is computed; it affects only memory, time and rounding."""

    microbatch_prompts: Annotated[
        int, "prompts per slice of gradient accumulation; 0: all", "operational"
    ] = 0
    logprob_chunk: Annotated[
        int, "tokens whose logits are in memory at once", "operational"
    ] = 1024
    remat: Annotated[
        Literal["none", "block"],
        "what the backward pass recomputes instead of keeping it",
        "operational",
    ] = "none"

    def __post_init__(self):
        check_fields(self)
        at_least(self, microbatch_prompts=0, logprob_chunk=1)


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """Settings that are fixed when the update is compiled."""

    loss: LossConfig
    sampling: SamplingConfig  # the policy whose log-probabilities are trained
    reward_mode: RewardMode = "binary"
    compute: ComputeConfig = ComputeConfig()

    def __post_init__(self):
        check_fields(self)


def make_update(
    config: models.DecoderConfig,
    update: UpdateConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
) -> StateStep:
    """Make the update `(state, batch, objective, ref_params) -> (state, metrics)`.

    The update is compiled once. It donates the state except for its frozen parameters.
    `objective` is a `TableFamily` or a `GeneralRule`. `ref_params` are the parameters
    of the KL term's reference model, or None if `kl_coef` is 0.

    Metrics are float32 scalars, except for "applied_weights", (G, M): the weight that
    each sample had in this update after clipping, normalisation and further loss terms
    (`losses.applied_weights`). An update whose loss or gradient is not finite changes
    neither parameters nor optimizer state, and `state.skipped` counts it.

    Args:
      config: the model.
      update: settings of loss, sampling distribution and computation.
      optimizer: the optimizer.
      mesh: the device mesh.
      is_frozen: the rule by which the parameters of the state were split.
    """
    shardings = state_shardings(config, optimizer, mesh, is_frozen)
    batches = partition.batch_sharding(mesh)
    whole = partition.replicated(mesh)
    reference = shardings.params if update.loss.kl_coef else None
    return StateStep(
        functools.partial(
            _update, config, update, optimizer, mesh, shardings.trainable
        ),
        shardings,
        (batches, whole, reference),
        whole,
    )


def _update(config, update, optimizer, mesh, *arguments):
    with placement.on(mesh, partition.COMPUTE_RULES):
        return _placed_update(config, update, optimizer, *arguments)


def _placed_update(
    config, update, optimizer, shardings, state, batch, objective, ref_params
):
    compute_advantages = graded.get(update.reward_mode)
    if isinstance(objective, GeneralRule):
        advantages = objective(batch.rewards, batch.reward_mask)
    else:
        advantages = compute_advantages(objective, batch.rewards, batch.reward_mask)
    weights = token_weights(
        update.loss.normalization, batch.completions.loss_mask, batch.reward_mask
    )
    score = functools.partial(
        models.token_logprobs,
        config,
        logits_transform=functools.partial(sampling_logits, update.sampling),
        chunk=update.compute.logprob_chunk,
        remat=update.compute.remat == "block",
    )

    def loss(trainable, part):
        params = merge(trainable, state.frozen)
        batch, advantages, weights = part
        inputs = (batch.prompts.tokens, batch.prompts.lengths, batch.completions.tokens)
        scores = score(params, *inputs, entropy=update.loss.entropy_coef != 0)
        ref_logprobs = None
        if update.loss.kl_coef:
            ref_logprobs = jax.lax.stop_gradient(score(ref_params, *inputs).logprobs)
        old = batch.completions.sampler_logprobs
        value, metrics = total_loss(
            update.loss,
            scores.logprobs,
            old,
            advantages,
            weights,
            entropy=scores.entropy,
            ref_logprobs=ref_logprobs,
        )
        # Tokens with log-probability -inf have a metric of their own
        # ("excluded_fraction") and are left out of the difference.
        compared = (weights > 0) & ~jnp.isneginf(scores.logprobs)
        gap = jnp.where(compared, jnp.abs(scores.logprobs - old), 0)
        applied = applied_weights(
            update.loss, scores.logprobs, old, advantages, weights, ref_logprobs
        )
        return value, (metrics, gap.max(), applied)

    num_prompts = batch.rewards.shape[0]
    size = update.compute.microbatch_prompts or num_prompts
    if num_prompts % size:
        raise FieldError(
            "microbatch_prompts",
            size,
            f"a divisor of the {num_prompts} prompts of an update",
        )
    value, (sums, gaps, applied), grads = _accumulate(
        loss,
        state.trainable,
        (batch, advantages, weights),
        num_prompts // size,
        functools.partial(partition.constrain_tree, shardings=shardings),
    )
    sizes = batch.reward_mask.sum(-1, keepdims=True)
    state, metrics = apply_gradients(optimizer, state, grads, value)
    tokens = jnp.maximum((weights > 0).sum(), 1)
    metrics |= {name: total / tokens for name, total in sums.items()}
    metrics |= {
        "sampler_trainer_logprob_diff_max": gaps,
        "advantage_abs": jnp.abs(advantages).mean(),
        "applied_weights": applied * sizes * (sizes > 0).sum(),
    }
    return state, metrics


def _accumulate(loss, params, parts, num_parts, place):
    """Sum loss, metrics and gradients over slices of the leading axis of `parts`.

    Slice j of n has rows j, j + n, j + 2n, ... If the axis is sharded, each slice is
    then spread over all devices, which contiguous slices would not be. `place`
    constrains a tree of gradients to the shardings of `params`. The applied weights of
    single samples are returned for all slices, in the order of `parts`.
    """
    grad = jax.value_and_grad(loss, has_aux=True)
    if num_parts == 1:
        (value, aux), grads = grad(params, parts)
        return value, aux, place(grads)

    def split(leaf):
        rows = leaf.reshape(leaf.shape[0] // num_parts, num_parts, *leaf.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    def add(total, part):
        (value, (sums, gap, applied)), grads = grad(params, part)
        value_0, sums_0, gap_0, grads_0 = total
        sums, grads = jax.tree.map(jnp.add, (sums_0, grads_0), (sums, place(grads)))
        return (value_0 + value, sums, jnp.maximum(gap_0, gap), place(grads)), applied

    parts = jax.tree.map(split, parts)
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    (value, (sums, gap, _)), grads = jax.eval_shape(grad, params, first)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (value, sums, gap, grads)
    )
    (value, sums, gap, grads), applied = jax.lax.scan(add, zeros, parts)
    applied = jnp.moveaxis(applied, 0, 1).reshape(-1, *applied.shape[2:])
    return value, (sums, gap, applied), grads


def apply_gradients(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    grads: models.Params,
    loss: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Take an optimizer step, or skip it if the loss or its gradient is not finite.

    The gradient may be finite although the loss is not, because clipping and masks can
    remove a value from the gradient alone. Such a batch is skipped too.

    Args:
      optimizer: the optimizer.
      state: the train state.
      grads: gradients, with the tree of `state.trainable`.
      loss: () float32.

    Returns:
      The new state, and metrics: "loss", "grad_norm" (before clipping) and "skipped"
      (updates skipped so far).
    """
    norm = optax.tree.norm(grads)
    held, grads = offload.fetch(optimizer, state.opt_state, after=grads)
    updates, opt_state = optimizer.update(grads, held, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    trainable, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (trainable, opt_state),
        (state.trainable, held),
    )
    skipped = state.skipped + jnp.where(finite, 0, 1)
    state = TrainState(trainable, state.frozen, opt_state, state.step + 1, skipped)
    skipped = state.skipped.astype(jnp.float32)
    return state, {"loss": loss, "grad_norm": norm, "skipped": skipped}
