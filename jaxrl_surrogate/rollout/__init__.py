"""Rollouts: samplers that complete prompts, and the engine of the local sampler."""

from jaxrl_surrogate.rollout.config import RolloutConfig
from jaxrl_surrogate.rollout.decode import DecodeConfig, rollout
from jaxrl_surrogate.rollout.http_sampler import HTTPSampler
from jaxrl_surrogate.rollout.sampler import (
    LocalSampler,
    Sampler,
    SampleRequest,
    SamplerError,
)
from jaxrl_surrogate.rollout.sampling import SamplingConfig, sample, sampling_logits

__all__ = [
    "DecodeConfig",
    "HTTPSampler",
    "LocalSampler",
    "RolloutConfig",
    "SampleRequest",
    "Sampler",
    "SamplerError",
    "SamplingConfig",
    "rollout",
    "sample",
    "sampling_logits",
]
