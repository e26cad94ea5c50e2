"""Prompts to completions, on the device."""

from jaxrl_surrogate.rollout.config import RolloutConfig
from jaxrl_surrogate.rollout.decode import DecodeConfig, rollout
from jaxrl_surrogate.rollout.sampling import SamplingConfig, sample, sampling_logits

__all__ = [
    "DecodeConfig",
    "RolloutConfig",
    "SamplingConfig",
    "rollout",
    "sample",
    "sampling_logits",
]
