"""What a run is made of, and what comes out of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import optax

from jaxrl_surrogate import models
from jaxrl_surrogate.loop.collect import Collector
from jaxrl_surrogate.loop.sft import WarmStart
from jaxrl_surrogate.objectives import TableFamily
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.tasks.prompts import PromptStream
from jaxrl_surrogate.training.state import TrainState
from jaxrl_surrogate.training.step import UpdateConfig


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How much, how often."""

    steps: int
    prompts_per_step: int
    epochs: int = 1  # passes over each rollout
    minibatches: int = 1  # optimizer steps of a pass
    refill_rounds: int = 0  # dynamic sampling
    eval_every: int = 0  # 0: only before and after
    eval_batch_prompts: int = 64
    checkpoint_every: int = 10
    save_rollouts: bool = True
    keep_last: int = 3
    keep_every: int = 0
    keep_best: int = 0
    best_metric: str = "eval/pass@1"
    lowest_is_best: bool = False
    checkpoint_seconds: float = 0.0  # store too when it is so long ago; 0: never
    completions_every: int = 10
    completions: int = 4
    nonfinite_limit: int = 3  # updates skipped in a row before the run stops
    digests: bool = True  # of every step's phases, and of the state where it is stored
    digests_every: int = 0  # of the state besides; 0: never


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a run is made of. `assembly` makes it from a config."""

    directory: Path
    config: dict  # as JSON values; stored with every checkpoint
    seed: int
    model: models.DecoderConfig
    mesh: jax.sharding.Mesh
    # Told of newer ones that are damaged; None: drawn from the seed.
    init_params: Callable[[Callable[[str], None]], models.Params] | None
    warm_start: WarmStart | None
    prompts: PromptStream
    collector: Collector
    evaluator: Collector
    eval_problems: list[Problem]
    objective: Callable[[int], TableFamily]  # of a step, from 1 on; a schedule is data
    update: UpdateConfig
    optimizer: optax.GradientTransformation
    schedule: Schedule
    notes: tuple[str, ...] = ()  # what is said before it begins


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `train` returns."""

    state: TrainState
    step: int
    finished: bool  # False where a signal stopped the run
    before: dict[str, float]  # evaluation before reinforcement learning
    after: dict[str, float]  # and after the last step; empty if not reached
