"""The config of a run: the settings of all layers, checked against each other."""

import dataclasses
from pathlib import PurePath
from typing import Annotated

from jaxrl_surrogate import resolve
from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.loop.config import CheckpointConfig, EvalConfig, LoopConfig
from jaxrl_surrogate.loop.sft import SFTConfig
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.models import ModelConfig
from jaxrl_surrogate.objectives.config import ObjectiveConfig
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.rollout import RolloutConfig
from jaxrl_surrogate.tasks.config import TaskConfig
from jaxrl_surrogate.telemetry.config import LogConfig
from jaxrl_surrogate.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; each section is the config of one layer.

    Raises:
      FieldErrors: values do not fit together, such as a number of minibatches that
        does not divide the prompts of a step.
    """

    name: Annotated[
        str, "the run's name; by default the config file's", "operational"
    ] = "run"
    run_dir: Annotated[
        str, "directory of the run; {name} is replaced by its name", "operational"
    ] = "runs/{name}"
    seed: Annotated[int, "seed of all random numbers", "kept"] = 0
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __post_init__(self):
        # Paths are made absolute, so that a run can be continued from another folder.
        objective = self.objective
        absolute = dataclasses.replace(
            objective,
            name=resolve.absolute(objective.name),
            schedule=dataclasses.replace(
                objective.schedule,
                to=objective.schedule.to and resolve.absolute(objective.schedule.to),
            ),
        )
        object.__setattr__(self, "objective", absolute)
        errors = []
        # The name replaces {name} in run_dir and must not lead out of that folder.
        place = PurePath(self.name)
        below = place.parts and not place.is_absolute() and ".." not in place.parts
        if not below or not self.name.isprintable():
            expected = "a name below the folder of runs, such as grpo or sweep/grpo"
            errors.append(FieldError("name", self.name, expected))
        if not 0 <= self.seed < 2**32:
            errors.append(FieldError("seed", self.seed, "an integer in [0, 2**32)"))
        prompts, parts = self.rollout.prompts_per_step, self.train.minibatches
        micro = self.train.microbatch_prompts
        if prompts % parts:
            expected = f"a divisor of rollout.prompts_per_step={prompts}"
            errors.append(FieldError("train.minibatches", parts, expected))
        elif micro and (prompts // parts) % micro:
            expected = (
                f"a divisor of the {prompts // parts} prompts of a minibatch, which "
                f"are rollout.prompts_per_step={prompts} / train.minibatches={parts}"
            )
            errors.append(FieldError("train.microbatch_prompts", micro, expected))
        if errors:
            raise FieldErrors(errors)
