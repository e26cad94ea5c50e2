"""Sampling on the device: prefill each prompt once, decode all completions together."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Completions, Prompts
from jaxrl_surrogate.models import DecoderConfig, KeyValues
from jaxrl_surrogate.models.layout import constrain, constrain_last
from jaxrl_surrogate.parallel import partition, placement
from jaxrl_surrogate.rollout.config import RolloutConfig
from jaxrl_surrogate.rollout.sampling import sample, sampling_logits
from jaxrl_surrogate.typed_fields import check_fields

# Positions of the decode loop's first segment. In each segment attention reads the
# cache up to the segment's end, not up to the longest completion allowed, so early
# tokens do not pay for positions that are not written yet. With unrolled layers the
# caches grow from segment to segment, because a CPU copies a slice before it reads it.
# Otherwise the whole cache is allocated at the start: to grow it, the old and the new
# cache would have to be in memory at the same time.
_SEGMENT = 128


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """The static settings of a compiled rollout. Hashable."""

    rollout: RolloutConfig
    stop_tokens: tuple[int, ...]  # a completion ends with the first of these
    unroll_layers: bool = False  # faster on a CPU; compile time then grows with depth

    def __post_init__(self):
        check_fields(self)

    def with_rollout(self, **fields: Any) -> "DecodeConfig":
        """Return a copy with other values for these fields of `RolloutConfig`."""
        rollout = dataclasses.replace(self.rollout, **fields)
        return dataclasses.replace(self, rollout=rollout)


@functools.partial(
    jax.jit, static_argnums=(0, 1, 5), compiler_options=models.AS_WRITTEN
)
def rollout(
    config: DecoderConfig,
    decode: DecodeConfig,
    params: models.Params,
    prompts: Prompts,
    key: jax.Array,
    mesh: jax.sharding.Mesh | None = None,
    policy_step: int | jax.Array = 0,
) -> Completions:
    """Sample M completions of each prompt in one compiled program.

    The loop ends as soon as all completions have ended. The uniform random number that
    chooses token t of sample m of a prompt depends only on (key, the prompt's id, m,
    t). A completion therefore does not depend on what it is batched with, as long as
    its logits do not.

    Args:
      config: the decoder's shape; static.
      decode: sizes, stop tokens and sampling distribution; static.
      params: parameters of the decoder, float32.
      prompts: G prompts.
      key: the random key of this step's rollout.
      mesh: the mesh that the arrays are on, None for one device; static. Parameters are
        cast to the compute dtype and gathered over fsdp and sequence before the prompts
        are read, so no decoding step gathers parameters. The cache is sharded over
        prompts, over completions of a group and over key-value heads. Without
        `gather_weights` the layers stay sharded, and every decoding step gathers each
        layer when it reaches it.
      policy_step: the training step after which the policy had these parameters, 0 for
        the initial policy; recorded with every completion.

    Returns:
      `Completions` of shape (G, M). The stop token is part of a completion, so the
      decision to stop is trained.
    """
    with placement.on(mesh, partition.DECODE_RULES):
        return _rollout(config, decode, params, prompts, key, policy_step)


def _rollout(config, decode, params, prompts, key, policy_step):
    shard_params = (
        models.shard_params if decode.rollout.gather_weights else models.shard_ends
    )
    params = shard_params(config, models.cast(params, config.compute_dtype))
    if decode.unroll_layers:
        params = models.unstack_layers(params)
    last, prefix = models.prefill(config, params, prompts.tokens, prompts.lengths)
    num_prompts = prompts.tokens.shape[0]
    shape = (num_prompts, decode.rollout.group_size)
    ends = _segment_ends(decode.rollout.max_completion_length)
    state = _State(
        position=jnp.int32(0),
        hidden=constrain_last(
            jnp.broadcast_to(last[:, None], (*shape, last.shape[-1])), "residual"
        ),
        cache=_empty_cache(
            config, decode, shape, ends[0] if decode.unroll_layers else ends[-1]
        ),
        lengths=jnp.zeros(shape, jnp.int32),
        ended=jnp.zeros(shape, bool),
        tokens=jnp.zeros((*shape, decode.rollout.max_completion_length), jnp.int32),
        logprobs=jnp.zeros((*shape, decode.rollout.max_completion_length), jnp.float32),
    )
    keys = rng.sample_keys(key, prompts.ids, decode.rollout.group_size)
    for end in ends:
        advance = functools.partial(_advance, config, decode, params, prefix, keys, end)

        def running(state, end=end):
            return (state.position < end) & ~state.ended.all()

        if decode.unroll_layers:
            grown = tuple(layer.grow(end) for layer in state.cache)
            state = dataclasses.replace(state, cache=grown)
        state = _constrain_state(decode, state)
        state = jax.lax.while_loop(running, advance, state)
    positions = jnp.arange(state.tokens.shape[-1])[None, None]
    return Completions(
        tokens=state.tokens,
        lengths=state.lengths,
        truncated=~state.ended,
        sampler_logprobs=state.logprobs,
        loss_mask=positions < state.lengths[..., None],
        policy_step=jnp.full_like(state.lengths, policy_step),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """The values that the decode loop carries from step to step."""

    position: jax.Array  # () int32, completion tokens sampled so far
    hidden: jax.Array  # (G, M, D), from which the next token is sampled
    cache: KeyValues | tuple[KeyValues, ...]
    lengths: jax.Array  # (G, M) int32
    ended: jax.Array  # (G, M) bool
    tokens: jax.Array  # (G, M, T) int32
    logprobs: jax.Array  # (G, M, T) float32


def _constrain_state(decode, state):
    """Shard the state over completions, and the cache over key-value heads as well."""
    stacked = () if decode.unroll_layers else (None,)
    cache = jax.tree.map(
        lambda x: constrain(x, *stacked, "batch", "samples", "kv_heads", None, None),
        state.cache,
    )
    rows = {
        name: constrain(value, "batch", "samples", *[None] * (value.ndim - 2))
        for name in ("lengths", "ended", "tokens", "logprobs")
        for value in [getattr(state, name)]
    }
    return dataclasses.replace(state, cache=cache, **rows)


def _advance(config, decode, params, prefix, keys, end, state: _State) -> _State:
    """Sample one token of every running completion, then run it through the model."""
    logits = models.output_logits(config, params, state.hidden)
    logits = sampling_logits(decode.rollout.sampling, logits)
    uniforms = jax.vmap(jax.vmap(lambda key: _uniform(key, state.position)))(keys)
    tokens, logprobs = sample(
        logits, uniforms, greedy=not decode.rollout.sampling.temperature
    )
    running = ~state.ended
    tokens = jnp.where(running, tokens, 0)
    stops = jnp.asarray(decode.stop_tokens, jnp.int32).reshape(1, 1, -1)
    hidden, cache = models.decode_token(
        config, params, tokens, state.position, prefix, state.cache, end
    )

    def record(buffer, new):
        new = jnp.where(running, new, 0)[..., None].astype(buffer.dtype)
        return jax.lax.dynamic_update_slice_in_dim(buffer, new, state.position, axis=2)

    return _State(
        position=state.position + 1,
        hidden=hidden,
        cache=cache,
        lengths=state.lengths + running,
        ended=state.ended | (tokens[..., None] == stops).any(-1),
        tokens=record(state.tokens, tokens),
        logprobs=record(state.logprobs, logprobs),
    )


def _uniform(key, position):
    return jax.random.uniform(rng.fold(key, position))


def _empty_cache(config, decode, shape, size):
    """Return an empty cache: stacked layers, or a tuple if layers are unrolled."""
    leading = (*shape, config.num_kv_heads)
    shape_of_one = (size, config.head_dim, config.compute_dtype)
    if decode.unroll_layers:
        return tuple(
            KeyValues.empty(leading, *shape_of_one) for _ in range(config.num_layers)
        )
    return KeyValues.empty((config.num_layers, *leading), *shape_of_one)


def _segment_ends(max_length):
    """Return the segments' ends. Each end is twice the last, so segments are few."""
    ends = [min(_SEGMENT, max_length)]
    while ends[-1] < max_length:
        ends.append(min(2 * ends[-1], max_length))
    return ends
