"""Settings of the objective: its name, its parameters, and a change during the run."""

import dataclasses
from typing import Annotated, Literal

from jaxrl_surrogate.errors import at_least
from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.objectives.names import spell


@dataclasses.dataclass(frozen=True)
class ObjectiveScheduleConfig:
    """A change to another objective during the run, without another compilation."""

    to: Annotated[
        str | None, "the objective to end with; none: no change", "numbers"
    ] = None
    options: Annotated[
        dict[str, object], "parameters of the objective to end with", "numbers"
    ] = dataclasses.field(default_factory=dict)
    begin: Annotated[int, "last step with the first objective alone", "numbers"] = 1
    end: Annotated[
        int, "first step with the second objective alone; 0: the run's last", "numbers"
    ] = 0
    shape: Annotated[
        Literal["linear", "cosine", "hold"],
        "how the second objective's share grows; hold: it jumps at end",
        "numbers",
    ] = "linear"

    def __post_init__(self):
        at_least(self, begin=1, end=0)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The objective: weights by name, or a surrogate that is turned into weights."""

    name: Annotated[
        str,
        "an advantage function, a surrogate, or your own my.py:my_rule: rewards (M,) "
        "of a group to weights (M,)",
        "numbers",
    ] = "rloo"
    kind: Annotated[
        Literal["auto", "advantage", "surrogate", "function"],
        "auto: an advantage function if one has this name, else a surrogate; function: "
        "your own my.py:my_rule in jax.numpy, of any rewards, without an exact h",
        "numbers",
    ] = "auto"
    options: Annotated[
        dict[str, object], "parameters of the objective, such as k", "numbers"
    ] = dataclasses.field(default_factory=dict)
    rewards: Annotated[
        RewardMode,
        "binary: in [0, 1], 0.5 and more is correct; graded, each with the method's "
        "objective: "
        "layer_cake: level by level, pass@k becomes the expected best of k; mean: in "
        "[0, 1], h of the mean reward",
        "numbers",
    ] = "binary"
    method: Annotated[
        str,
        "surrogate to weights: kantorovich, bernstein, plug_in, durrmeyer, taylor, "
        "projection, exact",
        "numbers",
    ] = "kantorovich"
    baseline: Annotated[
        str,
        "baseline of a surrogate: leave_one_out, none, zero_sum, min_variance",
        "numbers",
    ] = "leave_one_out"
    prior: Annotated[
        tuple[float, ...],
        "alpha, beta of success rates, where the weights need one",
        "numbers",
    ] = ()
    weight_options: Annotated[
        dict[str, object],
        "further parameters of method and baseline, such as norm",
        "numbers",
    ] = dataclasses.field(default_factory=dict)
    schedule: ObjectiveScheduleConfig = dataclasses.field(
        default_factory=ObjectiveScheduleConfig
    )

    @property
    def reward_mode(self) -> RewardMode:
        """The reward mode in use.

        It is "layer_cake" for a user's function, which gets the values of rewards.
        """
        return "layer_cake" if self.kind == "function" else self.rewards

    def label(self) -> str:
        """Return the settings that differ from defaults in one line: "pass_at_k:k=4".

        The schedule contributes its second objective only.
        """
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
