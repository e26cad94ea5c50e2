"""Samplers complete prompts with a policy; `LocalSampler` runs on the training mesh.

`load` gives a sampler the policy, and `sample` asks it for completions. A request
identifies its random numbers by (seed, stream, step) and carries no other state. If it
is sent again, to the same sampler or to another one with the same engine, the
completions are the same.
"""

import dataclasses
from typing import Protocol

import jax

from jaxrl_surrogate import models, rng
from jaxrl_surrogate.batch import Completions, Prompts
from jaxrl_surrogate.parallel import hosts, partition
from jaxrl_surrogate.rollout.config import RolloutConfig
from jaxrl_surrogate.rollout.decode import DecodeConfig, rollout


class SamplerError(RuntimeError):
    """A sampler gave no completions, or completions that cannot be trained on."""


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """A request for M completions of each of G prompts.

    Fields of `rollout` that say how the local sampler computes, such as
    `gather_weights`, may be ignored by other samplers.
    """

    prompts: Prompts  # of NumPy arrays
    rollout: RolloutConfig  # its group size, longest completion and distribution
    stop_tokens: tuple[int, ...]  # a completion ends with the first of these
    seed: int  # of the run
    stream: str  # the named random stream, such as "rollout"
    step: int  # the step whose part of the stream is used


class Sampler(Protocol):
    """Samples completions from the policy that was loaded last."""

    def load(self, params: models.Params, version: int) -> None:
        """Load the policy after step `version`.

        Args:
          params: all parameters, float32, on their devices. The next training step
            invalidates these arrays.
          version: the training step, 0 for the initial policy.

        Raises:
          SamplerError: the sampler cannot be reached or refuses the parameters.
        """

    def sample(self, request: SampleRequest) -> Completions:
        """Sample M completions of each of the G prompts of a request.

        Returns:
          `Completions` of shape (G, M), of NumPy arrays; `policy_step` is the version
          of the loaded policy.

        Raises:
          SamplerError: the sampler gave no completions, or invalid ones.
        """


@dataclasses.dataclass
class LocalSampler:
    """Samples with the engine of this package, on the mesh that trains."""

    model: models.DecoderConfig
    mesh: jax.sharding.Mesh
    unroll_layers: bool = False  # see `DecodeConfig`

    def __post_init__(self):
        """Start without a policy."""
        self._params, self._version = None, 0

    def load(self, params: models.Params, version: int) -> None:
        """Keep a reference to the policy's arrays; see `Sampler.load`."""
        self._params, self._version = params, version

    def sample(self, request: SampleRequest) -> Completions:
        """Sample on the mesh; see `Sampler.sample`.

        The rollout is compiled once for each combination of shapes and settings.
        """
        if self._params is None:
            raise SamplerError("no policy was loaded; call `load` before `sample`")
        decode = DecodeConfig(request.rollout, request.stop_tokens, self.unroll_layers)
        placed = jax.device_put(request.prompts, partition.batch_sharding(self.mesh))
        key = rng.stream_key(request.seed, request.stream, request.step)
        arguments = (self._params, placed, key, self.mesh, self._version)
        return hosts.gather(rollout(self.model, decode, *arguments))
