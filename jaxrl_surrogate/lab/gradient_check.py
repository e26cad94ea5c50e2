"""Checks on a tiny model that the training step ascends E[h_M(p)].

The vocabulary and completions are so small that every completion of a prompt can be
enumerated. The probability p_x of a correct answer is then a differentiable sum, and

    J = mean over prompts x of h_M(p_x)

has an exact gradient by autodiff, where h_M is the `induced_surrogate` of the
objective's table. It is compared with the mean gradient of the step that trains:
`rollout`, verification by look-up, `make_update` with the loss normalised as
`sequence_sum`, and SGD with learning rate 1, whose parameter change is the gradient.
The difference must vanish as 1 / sqrt(samples); an incorrect weight leaves a bias.

    python -m jaxrl_surrogate.lab.gradient_check
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_surrogate import models, parallel, rng
from jaxrl_surrogate.batch import Batch, Prompts
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.objectives import (
    TableFamily,
    WeightTable,
    advantages,
    from_surrogate,
    induced_surrogate,
    surrogates,
    table_family,
)
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.rollout import (
    DecodeConfig,
    RolloutConfig,
    SamplingConfig,
    rollout,
    sampling_logits,
)
from jaxrl_surrogate.training.state import new_state
from jaxrl_surrogate.training.step import UpdateConfig, make_update

_STOP = 0  # the token that ends a completion


@dataclasses.dataclass(frozen=True)
class World:
    """A policy, prompts and their correct answers, all small enough to enumerate."""

    config: models.DecoderConfig
    params: models.Params
    sampling: SamplingConfig
    prompts: Prompts  # (X, ...), one row for each different prompt
    tokens: np.ndarray  # (Y, T) int32, all possible completions, padded with zeros
    lengths: np.ndarray  # (Y,) int32
    right: np.ndarray  # (X, Y) bool, whether a completion is correct

    @property
    def max_length(self) -> int:
        """T, the length of the longest completion."""
        return self.tokens.shape[1]

    def success_rates(self, params: models.Params) -> jax.Array:
        """Return p_x (X,), the probability of a correct answer to each prompt.

        The result is differentiable in `params`.
        """
        shape = (len(self.right), *self.tokens.shape)
        scores = models.token_logprobs(
            self.config,
            params,
            self.prompts.tokens,
            self.prompts.lengths,
            jnp.broadcast_to(self.tokens, shape),
            logits_transform=lambda logits: sampling_logits(self.sampling, logits),
        )
        written = np.arange(self.max_length)[None, None] < self.lengths[None, :, None]
        logprobs = jnp.where(written, scores.logprobs, 0).sum(-1)
        return jnp.where(self.right, jnp.exp(logprobs), 0).sum(-1)

    def verify(self, prompt_rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return rewards (G, M) float32, 1 for correct completions and 0 for others.

        Args:
          prompt_rows: (G,) int, rows of `prompts`.
          tokens: (G, M, T) int, completions of these prompts.
        """
        table = np.zeros((len(self.right), self.config.vocab_size**self.max_length))
        table[:, self._codes(self.tokens)] = self.right
        return table[prompt_rows[:, None], self._codes(tokens)].astype(np.float32)

    def _codes(self, tokens):
        """Encode completions (..., T) as integers (...); padding tokens are 0."""
        return tokens @ self.config.vocab_size ** np.arange(self.max_length)


def make_world(
    seed: int,
    *,
    vocab_size: int = 5,
    max_length: int = 3,
    num_prompts: int = 2,
    right_share: float = 0.3,
    sampling: SamplingConfig | None = None,
) -> World:
    """Draw a random policy of one layer, prompts, and random sets of correct answers.

    Args:
      seed: seed of policy, prompts and correct answers.
      vocab_size: V; there are about V^T completions.
      max_length: T, the length of the longest completion.
      num_prompts: X.
      right_share: expected share of completions that are correct, for each prompt.
      sampling: settings of the sampling distribution; None: the defaults.
    """
    config = models.DecoderConfig(
        vocab_size=vocab_size,
        num_layers=1,
        embed_dim=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=8,
    )
    random = np.random.default_rng(seed)
    params = models.init_params(config, rng.stream_key(seed, "init"))
    # A new policy is nearly uniform; larger parameters make p differ by prompt.
    params = jax.tree.map(lambda leaf: 1.5 * leaf, params)
    rows = [
        completion
        for length in range(1, max_length + 1)
        for completion in itertools.product(range(vocab_size), repeat=length)
        if _STOP not in completion[:-1]
        and (length == max_length or completion[-1] == _STOP)
    ]
    tokens = np.zeros((len(rows), max_length), np.int32)
    for row, completion in zip(tokens, rows, strict=True):
        row[: len(completion)] = completion
    prompts = Prompts(
        tokens=random.integers(vocab_size, size=(num_prompts, 2), dtype=np.int32),
        lengths=np.resize(np.array([2, 1], np.int32), num_prompts),
        ids=np.arange(num_prompts, dtype=np.uint32),
    )
    return World(
        config=config,
        params=params,
        sampling=sampling or SamplingConfig(),
        prompts=prompts,
        tokens=tokens,
        lengths=np.array([len(row) for row in rows], np.int32),
        right=random.random((num_prompts, len(rows))) < right_share,
    )


def objectives(group_size: int) -> dict[str, TableFamily]:
    """Return the weight tables of the five objectives that are checked, by name."""
    named = {
        "rloo": advantages.get("rloo"),
        "grpo": advantages.get("grpo"),
        "rejection_sampling": advantages.get("rejection_sampling"),
        "rloo_pass_at_k:k=2": advantages.get("rloo_pass_at_k", k=2),
    }
    families = {
        name: table_family(method.table, group_size) for name, method in named.items()
    }
    log = surrogates.get("log")
    families["surrogate log"] = table_family(
        lambda size: from_surrogate(log, size), group_size
    )
    return families


def exact_gradient(world: World, table: WeightTable) -> np.ndarray:
    """Return the gradient (N,) of J = mean_x h_M(p_x) in all N parameters."""
    surrogate = induced_surrogate(table)

    def objective(params):
        return surrogate.value(world.success_rates(params)).mean()

    return _flat(jax.jit(jax.grad(objective))(world.params))


def step_gradients(
    world: World,
    families: Mapping[str, TableFamily],
    *,
    group_size: int,
    num_batches: int,
    copies: int = 256,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return the parameter change of a train step for batches of new rollouts.

    Args:
      world: result of `make_world`.
      families: weight tables by name; all get the same rollouts.
      group_size: M.
      num_batches: B, the number of independent batches.
      copies: number of groups of each prompt in a batch.
      seed: seed of the rollouts.

    Returns:
      For each objective an array (B, N) float64, the change of all N parameters by each
      batch. With learning rate 1 it is a gradient estimate.
    """
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    optimizer = optax.sgd(1.0)
    settings = UpdateConfig(
        loss=LossConfig(policy="policy_gradient", normalization="sequence_sum"),
        sampling=world.sampling,
    )
    update = make_update(world.config, settings, optimizer, mesh)
    sizes = RolloutConfig(
        group_size=group_size,
        max_completion_length=world.max_length,
        sampling=world.sampling,
    )
    decode = DecodeConfig(sizes, (_STOP,))
    whole = partition.replicated(mesh)
    rows = np.repeat(np.arange(len(world.right)), copies)
    before = _flat(world.params)
    out = {name: [] for name in families}
    for batch_index in range(num_batches):
        # Random numbers depend on the prompt's id, so copies need different ids.
        prompts = dataclasses.replace(
            jax.tree.map(lambda leaf: leaf[rows], world.prompts),
            ids=np.arange(len(rows), dtype=np.uint32),
        )
        key = rng.stream_key(seed, "rollout", batch_index)
        done = rollout(world.config, decode, world.params, prompts, key)
        rewards = world.verify(rows, np.asarray(done.tokens))
        batch = Batch(prompts, done, rewards, np.ones(rewards.shape, bool))
        batch = jax.device_put(batch, partition.batch_sharding(mesh))
        for name, family in families.items():
            # The step donates its state, so each call gets a copy.
            state = new_state(jax.tree.map(jnp.array, world.params), optimizer)
            state, _ = update(state, batch, jax.device_put(family, whole), None)
            out[name].append(_flat(state.params) - before)
    return {name: np.array(steps) for name, steps in out.items()}


class Convergence(NamedTuple):
    """How the mean gradient of the step approaches the exact one."""

    num_batches: np.ndarray  # (K,) batches averaged: 1, 2, 4, ...
    error: np.ndarray  # (K,) |mean - exact| / |exact|, root mean square over blocks
    slope: float  # of log error against log batches; -1/2 for an unbiased step
    standard_errors: float  # last error / its expectation from the spread of batches


def convergence(steps: np.ndarray, exact: np.ndarray) -> Convergence:
    """Compare steps (B, N) with the exact gradient (N,); B is a power of two.

    The error of a mean of n batches is averaged over the B / n disjoint blocks of n
    batches, and has the weight B / n in the fit of the slope.
    """
    total = len(steps)
    counts = 2 ** np.arange(int(np.log2(total)) + 1)
    errors = []
    for count in counts:
        means = steps.reshape(total // count, count, -1).mean(1)
        errors.append(np.sqrt(np.square(means - exact).sum(-1).mean()))
    # np.polyfit squares its weights.
    slope = np.polyfit(np.log(counts), np.log(errors), 1, w=np.sqrt(total / counts))[0]
    expected = np.sqrt(steps.var(0, ddof=1).sum() / total)
    return Convergence(
        num_batches=counts,
        error=np.array(errors) / np.linalg.norm(exact),
        slope=float(slope),
        standard_errors=float(errors[-1] / expected),
    )


def _flat(params: models.Params) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(params)]
    return np.concatenate(leaves)


def main(arguments: list[str] | None = None) -> None:
    """Print the error for each objective and number of samples."""
    parser = argparse.ArgumentParser(
        description="Mean gradient of the train step against autodiff of E[h_M(p)]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the world and rollouts")
    parser.add_argument("--group_size", type=int, default=4, help="M")
    parser.add_argument("--copies", type=int, default=256, help="groups of a prompt")
    parser.add_argument(
        "--batches", type=int, default=256, help="batches averaged; a power of two"
    )
    given = parser.parse_args(arguments)
    if given.batches < 8 or given.batches & (given.batches - 1):
        parser.error(f"--batches={given.batches}: expected a power of two of 8 or more")
    world = make_world(given.seed)
    families = objectives(given.group_size)
    steps = step_gradients(
        world,
        families,
        group_size=given.group_size,
        num_batches=given.batches,
        copies=given.copies,
        seed=given.seed,
    )
    rates = np.asarray(world.success_rates(world.params))
    print(
        f"{len(world.tokens)} completions of {len(rates)} prompts, "
        f"p = {', '.join(f'{p:.3f}' for p in rates)}, M = {given.group_size}"
    )
    print("|mean gradient of the step - gradient of E[h_M(p)]| / |gradient|")
    per_batch = given.copies * len(rates) * given.group_size
    columns = [4**i for i in range(int(np.log2(given.batches)) // 2 + 1)]
    print(f"{'samples':<20}", *(f"{n * per_batch:>10}" for n in columns), end="")
    print(f"{'slope':>8}{'in s.e.':>9}")
    for name, family in families.items():
        found = convergence(steps[name], exact_gradient(world, family.table()))
        errors = dict(zip(found.num_batches.tolist(), found.error, strict=True))
        print(f"{name:<20}", *(f"{errors[n]:>10.5f}" for n in columns), end="")
        print(f"{found.slope:>8.3f}{found.standard_errors:>9.2f}")


if __name__ == "__main__":
    main()
