"""Settings of the loop, its evaluations and its checkpoints."""

import dataclasses
from typing import Annotated, Literal

from jaxrl_surrogate.errors import at_least
from jaxrl_surrogate.training.step import ComputeConfig


@dataclasses.dataclass(frozen=True)
class LoopConfig(ComputeConfig):
    """The number of training steps, and what is done with each rollout."""

    steps: Annotated[
        int, "steps of the run: rollouts with their updates", "numbers"
    ] = 100
    epochs: Annotated[int, "passes over each rollout", "numbers"] = 1
    minibatches: Annotated[int, "optimizer steps of a pass", "numbers"] = 1
    dynamic_sampling_rounds: Annotated[
        int,
        "further rollouts of a step, to replace groups that are all correct or all "
        "incorrect",
        "numbers",
    ] = 0
    nonfinite_limit: Annotated[
        int,
        "updates in a row that may be skipped, as their loss or gradient is not "
        "finite; one more stops the run",
        "operational",
    ] = 3
    overlong: Annotated[
        Literal["verify", "zero", "mask"],
        "reward of completions cut at the limit; mask: none, they are left out, which "
        "changes the objective",
        "numbers",
    ] = "verify"

    def __post_init__(self):
        super().__post_init__()
        at_least(
            self,
            steps=0,
            epochs=1,
            minibatches=1,
            dynamic_sampling_rounds=0,
            nonfinite_limit=0,
        )

    @property
    def updates(self) -> int:
        """Return the number of optimizer steps on each rollout."""
        return self.epochs * self.minibatches

    @property
    def total_updates(self) -> int:
        """Return the number of optimizer steps of the run; at least 1."""
        return max(1, self.steps * self.updates)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """When and how the policy is evaluated on the task's test problems."""

    every: Annotated[
        int,
        "steps between evaluations; 0: before and after training only",
        "operational",
    ] = 0
    prompts: Annotated[int, "number of test problems; 0: no evaluation", "numbers"] = (
        128
    )
    samples: Annotated[
        int, "completions of each problem, the n of pass@k", "numbers"
    ] = 8
    temperature: Annotated[
        float, "temperature of the sampled completions", "numbers"
    ] = 1.0
    batch_prompts: Annotated[int, "problems sampled at once; 0: all", "operational"] = 0

    def __post_init__(self):
        at_least(self, every=0, prompts=0, samples=1, temperature=0, batch_prompts=0)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are stored, and which of them are kept."""

    every: Annotated[int, "steps between checkpoints of the state", "operational"] = 10
    every_minutes: Annotated[
        float,
        "also store when the last checkpoint is this old; 0: never",
        "operational",
    ] = 0.0
    rollouts: Annotated[
        bool, "also store each rollout until the next state is stored", "operational"
    ] = True
    keep_last: Annotated[int, "number of newest checkpoints to keep", "operational"] = 3
    keep_every: Annotated[
        int, "keep steps that are multiples of this for good; 0: none", "operational"
    ] = 0
    keep_best: Annotated[
        int,
        "number of checkpoints with the best metric to keep; 0: none",
        "operational",
    ] = 0
    best_metric: Annotated[
        str, "name in metrics.jsonl, read at steps that are stored", "operational"
    ] = "eval/pass@1"
    best_is: Annotated[
        Literal["highest", "lowest"],
        "whether the highest or the lowest metric is best",
        "operational",
    ] = "highest"

    def __post_init__(self):
        at_least(self, every=1, every_minutes=0, keep_last=1, keep_every=0, keep_best=0)
