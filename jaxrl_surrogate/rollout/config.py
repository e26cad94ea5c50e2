"""Settings of the rollout."""

import dataclasses
import math
import re
from typing import Annotated

from jaxrl_surrogate.errors import FieldError, at_least
from jaxrl_surrogate.rollout.sampling import SamplingConfig
from jaxrl_surrogate.typed_fields import check_fields


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Sizes, sampler and sampling distribution of a rollout."""

    prompts_per_step: Annotated[int, "prompts G of a step", "kept"] = 16
    group_size: Annotated[int, "completions M of each prompt", "kept"] = 8
    max_prompt_length: Annotated[
        int, "most tokens of a prompt; longer prompts are left out", "kept"
    ] = 32
    max_completion_length: Annotated[
        int, "most tokens of a completion, the end token included", "kept"
    ] = 32
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
    sampler: Annotated[
        str,
        "local, or the URL of a sampling server such as http://host:8000",
        "numbers",
    ] = "local"
    sampler_timeout_s: Annotated[
        float, "seconds that a request to a sampling server may take", "operational"
    ] = 600.0
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)

    def __post_init__(self):
        check_fields(self)
        if self.sampler != "local" and not re.match(r"https?://[^/\s]", self.sampler):
            raise FieldError(
                "sampler", self.sampler, "local, or a URL such as http://host:8000"
            )
        if not 0 < self.sampler_timeout_s < math.inf:
            raise FieldError(
                "sampler_timeout_s", self.sampler_timeout_s, "more than 0, finite"
            )
        at_least(
            self,
            prompts_per_step=1,
            group_size=1,
            max_prompt_length=1,
            max_completion_length=1,
        )
