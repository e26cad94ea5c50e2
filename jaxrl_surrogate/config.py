"""The configuration of a run: the layers' settings, composed and cross-checked."""

import dataclasses
from pathlib import PurePath
from typing import Annotated, Literal

from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.objectives.names import spell
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What is trained on."""

    name: Annotated[str, "a built-in task or reasoning_gym:DATASET"] = "arithmetic"
    options: Annotated[dict[str, object], "options of the task"] = dataclasses.field(
        default_factory=dict
    )
    tokenizer: Annotated[str, "ascii, byte, bpe:SIZE or a tokenizer.json"] = "ascii"
    verify_workers: Annotated[int, "verifier processes; 0: in the trainer"] = 0
    verify_timeout_s: Annotated[float, "seconds per completion in a worker"] = 10.0
    verify_memory_mb: Annotated[
        int, "MiB that a worker may use beyond what it starts with"
    ] = 2048
    verify_max_failures: Annotated[
        float,
        "share of a step's or an evaluation's completions without a verdict (a crash, "
        "a time-out) above which the run stops; below 1, for none at all always does",
    ] = 0.5

    def __post_init__(self):
        _expect_at_least(self, verify_workers=0, verify_memory_mb=16)
        if not 0 <= self.verify_max_failures < 1:
            raise ValueError(
                f"verify_max_failures={self.verify_max_failures}: expected 0 or more "
                "and less than 1, a share of completions"
            )
        if not self.verify_timeout_s > 0:
            raise ValueError(
                f"verify_timeout_s={self.verify_timeout_s}: expected more than 0"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder."""

    preset: Annotated[str, "named shape"] = "tiny"
    overrides: Annotated[dict[str, object], "fields of the shape"] = dataclasses.field(
        default_factory=dict
    )
    init_from: Annotated[str | None, "run directory whose parameters to start from"] = (
        None
    )
    compute_dtype: Annotated[
        Literal["float32", "bfloat16"], "of activations; parameters are float32"
    ] = "float32"


@dataclasses.dataclass(frozen=True)
class ObjectiveScheduleConfig:
    """Another objective later in the run; the compiled step stays the same."""

    to: Annotated[str | None, "the objective to end with; none: no change"] = None
    options: Annotated[dict[str, object], "its parameters"] = dataclasses.field(
        default_factory=dict
    )
    begin: Annotated[int, "last step of the first objective alone"] = 1
    end: Annotated[int, "first step of the second alone; 0: the last of the run"] = 0
    shape: Annotated[
        Literal["linear", "cosine", "hold"], "how its share grows; hold: a jump at end"
    ] = "linear"

    def __post_init__(self):
        _expect_at_least(self, begin=1, end=0)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is maximised: weights by name, or a surrogate turned into weights."""

    name: Annotated[str, "an advantage function or a surrogate"] = "rloo"
    kind: Annotated[
        Literal["auto", "advantage", "surrogate"],
        "auto: an advantage function if one has this name, else a surrogate",
    ] = "auto"
    options: Annotated[dict[str, object], "parameters, such as k"] = dataclasses.field(
        default_factory=dict
    )
    rewards: Annotated[
        Literal["binary", "layer_cake", "mean"],
        "binary: in [0, 1], 0.5 and more is correct; graded, each with the method's "
        "objective: "
        "layer_cake: level by level, pass@k becomes the expected best of k; mean: in "
        "[0, 1], h of the mean reward",
    ] = "binary"
    method: Annotated[
        str,
        "surrogate to weights: kantorovich, bernstein, plug_in, durrmeyer, taylor, "
        "projection, exact",
    ] = "kantorovich"
    baseline: Annotated[
        str, "of a surrogate's weights: leave_one_out, none, zero_sum, min_variance"
    ] = "leave_one_out"
    prior: Annotated[
        tuple[float, ...], "alpha, beta of success rates, where the weights need one"
    ] = ()
    weight_options: Annotated[
        dict[str, object], "further parameters of method and baseline, such as norm"
    ] = dataclasses.field(default_factory=dict)
    schedule: ObjectiveScheduleConfig = dataclasses.field(
        default_factory=ObjectiveScheduleConfig
    )

    def label(self) -> str:
        """All that is not a default in one line, such as "pass_at_k:k=4"."""
        parts = [spell(self.name, self.options)]
        if self.schedule.to is not None:
            parts.append(f"to {spell(self.schedule.to, self.schedule.options)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("name", "options", "schedule") and value != getattr(
                type(self)(), field.name
            ):
                parts.append(f"{field.name}={value}")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How much is sampled."""

    prompts_per_step: Annotated[int, "prompts G of a step"] = 16
    group_size: Annotated[int, "completions M of each prompt"] = 8
    max_prompt_length: Annotated[int, "tokens; longer prompts are left out"] = 32
    max_completion_length: Annotated[int, "tokens, the end token included"] = 32
    stop: Annotated[
        tuple[str, ...], "texts of one token that end a completion, as its end token"
    ] = ()
    gather_weights: Annotated[
        bool,
        "each device holds whole layers while it samples; false: what training holds, "
        "and every token gathers each layer, in less memory",
    ] = True
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self):
        _expect_at_least(
            self,
            prompts_per_step=1,
            group_size=1,
            max_prompt_length=1,
            max_completion_length=1,
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    steps: Annotated[int, "rollouts with their updates"] = 100
    epochs: Annotated[int, "passes over each rollout"] = 1
    minibatches: Annotated[int, "optimizer steps of a pass"] = 1
    microbatch_prompts: Annotated[int, "prompts per slice of accumulation; 0: all"] = 0
    logprob_chunk: Annotated[int, "tokens whose logits are in memory at once"] = 1024
    remat: Annotated[Literal["none", "block"], "what the backward pass recomputes"] = (
        "none"
    )
    dynamic_sampling_rounds: Annotated[
        int, "further rollouts of a step to replace all-right and all-wrong groups"
    ] = 0
    nonfinite_limit: Annotated[
        int,
        "updates in a row that may be skipped, as their loss or gradient is not "
        "finite; one more stops the run",
    ] = 3
    overlong: Annotated[
        Literal["verify", "zero", "mask"],
        "reward of completions cut at the limit; mask: none, they are left out, which "
        "changes the objective",
    ] = "verify"

    def __post_init__(self):
        _expect_at_least(
            self,
            steps=0,
            epochs=1,
            minibatches=1,
            microbatch_prompts=0,
            logprob_chunk=1,
            dynamic_sampling_rounds=0,
            nonfinite_limit=0,
        )


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """The supervised warm start."""

    steps: Annotated[int, "0: no warm start"] = 0
    batch_size: Annotated[int, "problems of a step"] = 64
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3)
    )

    def __post_init__(self):
        _expect_at_least(self, steps=0, batch_size=1)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation on the task's test problems."""

    every: Annotated[int, "steps between; 0: before and after only"] = 0
    prompts: Annotated[int, "test problems; 0: no evaluation"] = 128
    samples: Annotated[int, "completions of each, n of pass@k"] = 8
    temperature: Annotated[float, "of the sampled completions"] = 1.0
    batch_prompts: Annotated[int, "problems sampled at once; 0: all"] = 0

    def __post_init__(self):
        _expect_at_least(
            self, every=0, prompts=0, samples=1, temperature=0, batch_prompts=0
        )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is kept."""

    every: Annotated[int, "steps between checkpoints of the state"] = 10
    every_minutes: Annotated[float, "store too when it is so long ago; 0: never"] = 0.0
    rollouts: Annotated[bool, "also keep each step's rollout until then"] = True
    keep_last: Annotated[int, "newest checkpoints that are kept"] = 3
    keep_every: Annotated[int, "multiples of this are kept for good; 0: none"] = 0
    keep_best: Annotated[int, "checkpoints with the best metric kept; 0: none"] = 0
    best_metric: Annotated[str, "of metrics.jsonl, at steps that are stored"] = (
        "eval/pass@1"
    )
    best_is: Annotated[Literal["highest", "lowest"], "which metric is best"] = "highest"

    def __post_init__(self):
        _expect_at_least(
            self, every=1, every_minutes=0, keep_last=1, keep_every=0, keep_best=0
        )


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is shown."""

    every: Annotated[int, "steps between printed lines"] = 1
    tensorboard: Annotated[bool, "write TensorBoard events if installed"] = True
    completions_every: Annotated[int, "steps between tables of samples; 0: none"] = 10
    completions: Annotated[int, "rows of such a table"] = 4
    digests: Annotated[
        bool, "of what each step computed and of stored states, for jaxrl verify"
    ] = True
    digests_every: Annotated[
        int, "steps between further digests of the state; 0: where it is stored alone"
    ] = 0

    def __post_init__(self):
        _expect_at_least(
            self, every=1, completions_every=0, completions=0, digests_every=0
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything about a run."""

    name: Annotated[str, "of the run; default the config file's"] = "run"
    run_dir: Annotated[str, "where it lives; {name} is replaced"] = "runs/{name}"
    seed: Annotated[int, "all randomness follows from it"] = 0
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __post_init__(self):
        faults = []
        # It takes the place of {name} in run_dir, and must not lead out of there.
        place = PurePath(self.name)
        below = place.parts and not place.is_absolute() and ".." not in place.parts
        if not below or not self.name.isprintable():
            faults.append(
                f"name={self.name!r}: expected a name below the folder of runs, such "
                "as grpo or sweep/grpo"
            )
        if not 0 <= self.seed < 2**32:
            faults.append(f"seed={self.seed}: expected an integer in [0, 2**32)")
        prompts, parts = self.rollout.prompts_per_step, self.train.minibatches
        micro = self.train.microbatch_prompts
        if prompts % parts:
            faults.append(
                f"train.minibatches={parts}: expected a divisor of "
                f"rollout.prompts_per_step={prompts}"
            )
        elif micro and (prompts // parts) % micro:
            faults.append(
                f"train.microbatch_prompts={micro}: expected a divisor of the "
                f"{prompts // parts} prompts of a minibatch, which are "
                f"rollout.prompts_per_step={prompts} / train.minibatches={parts}"
            )
        if faults:
            raise ValueError("\n".join(faults))


def _expect_at_least(section: object, **least: int) -> None:
    """Refuse every field of a section that is below its least value.

    Raises:
      ValueError: a line for each.
    """
    faults = [
        f"{name}={getattr(section, name)}: expected at least {bound}"
        for name, bound in least.items()
        if getattr(section, name) < bound
    ]
    if faults:
        raise ValueError("\n".join(faults))
