"""What a run is made of, and what comes out of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import optax

from jaxrl_surrogate import models
from jaxrl_surrogate.loop.collect import Collector
from jaxrl_surrogate.loop.config import CheckpointConfig, EvalConfig, LoopConfig
from jaxrl_surrogate.loop.sft import WarmStart
from jaxrl_surrogate.loop.source import RolloutSource, SynchronousSource
from jaxrl_surrogate.objectives import GeneralRule, TableFamily
from jaxrl_surrogate.rollout import RolloutConfig
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.tasks.prompts import PromptStream
from jaxrl_surrogate.telemetry.config import LogConfig
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training.freezing import IsFrozen, none_frozen
from jaxrl_surrogate.training.state import TrainState
from jaxrl_surrogate.training.step import UpdateConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a run is made of. `assembly` makes it from a config."""

    directory: Path
    config: dict  # of the whole run, as JSON values; stored with every checkpoint
    loop: LoopConfig
    evaluation: EvalConfig
    checkpoint: CheckpointConfig
    log: LogConfig
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
    objective: Callable[
        [int], TableFamily | GeneralRule
    ]  # of a step, from 1 on; a schedule is data
    update: UpdateConfig
    optimizer: optax.GradientTransformation
    is_frozen: IsFrozen = none_frozen  # parameters that no optimizer moves
    notes: tuple[str, ...] = ()  # what is said before it begins

    @property
    def rollout(self) -> RolloutConfig:
        """How much is sampled."""
        return self.collector.rollout

    def source(self, store: RunCheckpoints, log: RunLog) -> RolloutSource:
        """Where the rollouts of this run come from."""
        return SynchronousSource(
            self.collector,
            self.prompts,
            store,
            log,
            self.directory / "checkpoints" / "rewards",
            refill_rounds=self.loop.dynamic_sampling_rounds,
            save_rollouts=self.checkpoint.rollouts,
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `train` returns."""

    state: TrainState
    step: int
    finished: bool  # False where a signal stopped the run
    before: dict[str, float]  # evaluation before reinforcement learning
    after: dict[str, float]  # and after the last step; empty if not reached
