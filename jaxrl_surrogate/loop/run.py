"""The parts of a run (`Run`) and its result (`Outcome`)."""

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
    """All parts of a run; `assembly` builds them from a config."""

    directory: Path
    config: dict  # of the whole run, as JSON values; stored with every checkpoint
    loop: LoopConfig
    evaluation: EvalConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    seed: int
    model: models.DecoderConfig
    mesh: jax.sharding.Mesh
    # Returns the initial parameters, and calls its argument for each damaged checkpoint
    # that it passes over. None: the parameters are drawn from the seed.
    init_params: Callable[[Callable[[str], None]], models.Params] | None
    warm_start: WarmStart | None
    prompts: PromptStream
    collector: Collector
    evaluator: Collector
    eval_problems: list[Problem]
    objective: Callable[
        [int], TableFamily | GeneralRule
    ]  # the objective of a step, from 1 on; so it may follow a schedule
    update: UpdateConfig
    optimizer: optax.GradientTransformation
    is_frozen: IsFrozen = none_frozen  # whether a parameter path is not trained
    notes: tuple[str, ...] = ()  # messages printed and logged before training begins

    @property
    def rollout(self) -> RolloutConfig:
        """The settings of rollouts: numbers of prompts and samples, and lengths."""
        return self.collector.rollout

    def source(self, store: RunCheckpoints, log: RunLog) -> RolloutSource:
        """Return the source of this run's rollouts."""
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
    """The result of `train`."""

    state: TrainState
    step: int
    finished: bool  # False if a signal stopped the run
    before: dict[str, float]  # metrics of the evaluation before the first step
    after: dict[str, float]  # those after the last step; empty if it was not reached
