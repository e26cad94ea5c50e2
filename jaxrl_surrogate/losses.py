"""Token log-probabilities and advantages to a scalar loss."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Which terms the loss has and how it is normalised."""

    policy: Annotated[
        Literal["policy_gradient", "ppo_clip"], "policy term of the loss"
    ] = "policy_gradient"
    clip_low: Annotated[float, "ppo_clip: ratios are clipped below 1 - clip_low"] = 0.2
    clip_high: Annotated[float, "ppo_clip: ratios are clipped above 1 + clip_high"] = 0.2
    normalization: Annotated[
        Literal["sequence_sum", "dr_grpo", "grpo", "dapo"],
        "sequence_sum: sum over tokens, mean over samples and prompts; dr_grpo: the same "
        "divided by the longest completion allowed; grpo: mean over each completion's "
        "tokens; dapo: mean over all tokens of the batch",
    ] = "dr_grpo"
    kl_coef: Annotated[float, "weight of the KL to the reference model; 0 drops it"] = 0.0
    kl_estimator: Annotated[Literal["k1", "k2", "k3"], "estimator of the KL term"] = "k3"
    entropy_coef: Annotated[float, "weight of the entropy bonus; 0 drops it"] = 0.0
