"""The records that cross layers. Axis letters: G prompts, M samples of each, P prompt
positions, T completion positions.

All are frozen and registered as pytrees, so they pass through jit, sharding and Orbax
unchanged. Lengths are explicit everywhere: no array is ever compared with a pad token.
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

    What the policy chose is trained and measured; other tokens of a completion (results
    of tools, turns of a user) are read by the model and count in no loss.
    """

    tokens: jax.Array  # (G, M, T) int32, 0 past the completion's end
    lengths: jax.Array  # (G, M) int32, 1 <= length <= T; a stop token is counted
    truncated: jax.Array  # (G, M) bool, True where T was reached without a stop token
    sampler_logprobs: jax.Array  # (G, M, T) float32, under the sampling distribution
    loss_mask: jax.Array  # (G, M, T) bool, True on tokens that the policy chose
    policy_step: jax.Array  # (G, M) int32, the step after which it had these parameters

    @property
    def mask(self) -> jax.Array:
        """(G, M, T) bool: True on tokens of the completion, its stop token included."""
        positions = jnp.arange(self.tokens.shape[-1])[None, None]
        return positions < self.lengths[..., None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """What the update consumes: completions with their verified rewards."""

    prompts: Prompts
    completions: Completions
    rewards: jax.Array  # (G, M) float32
    reward_mask: jax.Array  # (G, M) bool, False where verification gave no verdict


def batch_shapes(
    num_prompts: int, group_size: int, max_prompt_length: int, max_length: int
) -> Batch:
    """Shapes and dtypes of a step's batch: G, M, P and T in this order."""
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
