"""Supervised warm start: next-token cross-entropy on reference completions."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.errors import FieldError, at_least
from jaxrl_surrogate.losses import Metrics
from jaxrl_surrogate.parallel import partition, placement
from jaxrl_surrogate.rollout import RolloutConfig
from jaxrl_surrogate.tasks import Problem, Tokenizer
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training.freezing import IsFrozen, merge, none_frozen
from jaxrl_surrogate.training.optimizer import OptimizerConfig
from jaxrl_surrogate.training.state import StateStep, restart, state_shardings
from jaxrl_surrogate.training.step import ComputeConfig, apply_gradients


def make_supervised_step(
    config: models.DecoderConfig,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    is_frozen: IsFrozen = none_frozen,
    *,
    chunk: int = 1024,
    remat: bool = False,
) -> StateStep:
    """Make the supervised step `(state, prompts, tokens, lengths) -> (state, metrics)`.

    The step is compiled once. Its inputs `tokens`, (B, T) int32, and `lengths`, (B,)
    int32, hold the reference completions with their end tokens. The loss is the mean
    cross-entropy over all these tokens. The state is donated except for its frozen
    parameters.

    Args:
      config: the model.
      optimizer: the optimizer.
      mesh: the device mesh.
      is_frozen: the rule by which the parameters of the state were split.
      chunk: tokens whose logits are in memory at once.
      remat: whether the backward pass recomputes each block of the model.
    """

    def loss(trainable, frozen, prompts, tokens, lengths):
        params = merge(trainable, frozen)
        logprobs = models.token_logprobs(
            config,
            params,
            prompts.tokens,
            prompts.lengths,
            tokens[:, None],
            chunk=chunk,
            remat=remat,
        ).logprobs[:, 0]
        mask = jnp.arange(tokens.shape[-1])[None] < lengths[:, None]
        return -jnp.where(mask, logprobs, 0).sum() / mask.sum()

    def step(state, *batch):
        with placement.on(mesh, partition.COMPUTE_RULES):
            grad = jax.value_and_grad(loss)
            value, grads = grad(state.trainable, state.frozen, *batch)
        return apply_gradients(optimizer, state, grads, value)

    shardings = state_shardings(config, optimizer, mesh, is_frozen)
    batches = partition.batch_sharding(mesh)
    whole = partition.replicated(mesh)
    return StateStep(step, shardings, (batches, batches, batches), whole)


def encode_references(
    problems: list[Problem],
    tokenizer: Tokenizer,
    max_prompt_length: int,
    max_completion_length: int,
) -> tuple[Prompts, np.ndarray, np.ndarray]:
    """Encode B problems with reference completions as inputs of a supervised step.

    Returns:
      `Prompts` of NumPy arrays, completion tokens (B, T) int32 and lengths (B,) int32.

    Raises:
      ValueError: a problem has no reference completion, or the completion with its end
        token is longer than `max_completion_length`.
    """
    tokens = np.zeros((len(problems), max_completion_length), np.int32)
    lengths = np.zeros(len(problems), np.int32)
    for row, problem in enumerate(problems):
        if problem.completion is None:
            raise ValueError(
                f"completion=None in problem {problem.id}: the task has no reference "
                "completions; expected sft.steps=0, or a task that has them"
            )
        ids = [*tokenizer.encode(problem.completion), tokenizer.eos_id]
        if len(ids) > max_completion_length:
            raise FieldError(
                "rollout.max_completion_length",
                max_completion_length,
                problem=f"the reference completion of problem {problem.id} has "
                f"{len(ids)} tokens with its end token",
                remedy="raise it, or choose easier problems",
            )
        tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    prompts = Prompts(*encode_prompts(problems, tokenizer, max_prompt_length))
    return prompts, tokens, lengths


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """Settings of the supervised warm start."""

    steps: Annotated[int, "steps of the supervised warm start; 0: none", "kept"] = 0
    batch_size: Annotated[int, "problems of a warm-start step", "kept"] = 64
    optimizer: Annotated[OptimizerConfig, "its optimizer", "kept"] = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3)
    )

    def __post_init__(self):
        at_least(self, steps=0, batch_size=1)


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The parts of a warm start."""

    config: SFTConfig
    problems: PromptStream  # problems with reference completions
    tokenizer: Tokenizer
    lengths: RolloutConfig  # its maximal lengths of prompts and completions are used
    optimizer: optax.GradientTransformation
    compute: ComputeConfig


def warm_start(
    start: WarmStart,
    params: models.Params,
    model: models.DecoderConfig,
    mesh: jax.sharding.Mesh,
    log: RunLog,
    is_frozen: IsFrozen = none_frozen,
) -> models.Params:
    """Train on reference completions and return all parameters, also frozen ones.

    The metrics of a step are read after the next step was dispatched, so that the
    device does not wait for the host.
    """
    step = make_supervised_step(
        model,
        start.optimizer,
        mesh,
        is_frozen,
        chunk=start.compute.logprob_chunk,
        remat=start.compute.remat == "block",
    )
    state = restart(params, model, start.optimizer, mesh, is_frozen)
    sharding = partition.batch_sharding(mesh)
    previous = None
    for index in range(1, start.config.steps + 1):
        problems = start.problems.take(start.config.batch_size)
        batch = encode_references(
            problems,
            start.tokenizer,
            start.lengths.max_prompt_length,
            start.lengths.max_completion_length,
        )
        state, metrics = step(state, *jax.device_put(batch, sharding))
        if previous is not None:
            log.supervised(index - 1, start.config.steps, _floats(previous))
        previous = metrics
    if previous is not None:
        log.supervised(start.config.steps, start.config.steps, _floats(previous))
    return state.params


def _floats(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}
