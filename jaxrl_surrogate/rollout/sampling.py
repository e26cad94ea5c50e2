"""From logits to a token: temperature, truncation, and one uniform per row."""

import dataclasses
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """The sampling distribution: a tempered, truncated softmax."""

    temperature: Annotated[float, "divides the logits; 0 is greedy"] = 1.0
    top_k: Annotated[int, "keep the k most likely tokens; 0 keeps all"] = 0
    top_p: Annotated[float, "keep the smallest set with this mass; 1 keeps all"] = 1.0
    min_p: Annotated[float, "keep tokens at least this share of the likeliest"] = 0.0
