"""The data classes that layers pass to each other: prompts, completions, batches.

Shapes use four letters: G prompts, M samples of each prompt, P prompt positions and T
completion positions.

All classes are frozen and registered as pytrees, so they pass through jit, sharding and
Orbax unchanged. Lengths are stored explicitly: no code compares tokens with a pad token
to find where a sequence ends.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
    """Tokenized prompts, padded on the right to a common length."""

    tokens: jax.Array  # (G, P) int32
    lengths: jax.Array  # (G,) int32, 1 <= length <= P
    ids: jax.Array  # (G,) uint32, position in the run's prompt stream


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Completions:
    """Sampled completions, M of each prompt.

    Only the tokens that the policy sampled (`loss_mask`) enter the loss and the token
    metrics. The model reads the other tokens of a completion, such as tool results or
    user turns, but they have no loss.
    """

    tokens: jax.Array  # (G, M, T) int32, 0 past the completion's end
    lengths: jax.Array  # (G, M) int32, 1 <= length <= T; a stop token is counted
    truncated: jax.Array  # (G, M) bool, True where T was reached without a stop token
    sampler_logprobs: jax.Array  # (G, M, T) float32, under the sampling distribution
    loss_mask: jax.Array  # (G, M, T) bool, True on tokens that the policy sampled
    policy_step: jax.Array  # (G, M) int32, the step whose update made the parameters

    @property
    def mask(self) -> jax.Array:
        """(G, M, T) bool, True on all tokens of a completion, also its stop token."""
        positions = jnp.arange(self.tokens.shape[-1])[None, None]
        return positions < self.lengths[..., None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The input of an update: prompts, completions and their rewards."""

    prompts: Prompts
    completions: Completions
    rewards: jax.Array  # (G, M) float32
    reward_mask: jax.Array  # (G, M) bool, False where verification gave no verdict


def batch_shapes(
    num_prompts: int, group_size: int, max_prompt_length: int, max_length: int
) -> Batch:
    """Return a `Batch` of `jax.ShapeDtypeStruct`; the arguments are G, M, P and T."""
    row, sample = (num_prompts,), (num_prompts, group_size)
    token, shape = (*sample, max_length), jax.ShapeDtypeStruct
    return Batch(
        prompts=Prompts(
            tokens=shape((num_prompts, max_prompt_length), jnp.int32),
            lengths=shape(row, jnp.int32),
            ids=shape(row, jnp.uint32),
        ),
        completions=Completions(
            tokens=shape(token, jnp.int32),
            lengths=shape(sample, jnp.int32),
            truncated=shape(sample, bool),
            sampler_logprobs=shape(token, jnp.float32),
            loss_mask=shape(token, bool),
            policy_step=shape(sample, jnp.int32),
        ),
        rewards=shape(sample, jnp.float32),
        reward_mask=shape(sample, bool),
    )
