"""Settings of the rollout."""

import dataclasses
from typing import Annotated

from jaxrl_surrogate.errors import at_least
from jaxrl_surrogate.rollout.sampling import SamplingConfig
from jaxrl_surrogate.typed_fields import check_fields


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How much is sampled."""

    prompts_per_step: Annotated[int, "prompts G of a step", "kept"] = 16
    group_size: Annotated[int, "completions M of each prompt", "kept"] = 8
    max_prompt_length: Annotated[int, "tokens; longer prompts are left out", "kept"] = (
        32
    )
    max_completion_length: Annotated[int, "tokens, the end token included", "kept"] = 32
    stop: Annotated[
        tuple[str, ...],
        "texts of one token that end a completion, as its end token",
        "kept",
    ] = ()
    gather_weights: Annotated[
        bool,
        "each device holds whole layers while it samples; false: what training holds, "
        "and every token gathers each layer, in less memory",
        "operational",
    ] = True
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self):
        check_fields(self)
        at_least(
            self,
            prompts_per_step=1,
            group_size=1,
            max_prompt_length=1,
            max_completion_length=1,
        )
