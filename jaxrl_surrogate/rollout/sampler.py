"""Samplers: who turns prompts into completions. The engine on this mesh is one of them.

A sampler is given a policy with `load` and asked for completions with `sample`. The
request names the position of its randomness (seed, stream, step) and carries no state,
so that a request that is sent again, to the same or to another sampler of the same
engine, gives the same completions.
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
    """A sampler gives no completions, or such as cannot be trained on."""


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """M completions of each of G prompts, at a position of the run's randomness.

    How a sampler computes them is its own affair: `rollout.gather_weights` and the like
    are for the local one.
    """

    prompts: Prompts  # of NumPy arrays
    rollout: RolloutConfig  # its group size, longest completion and distribution
    stop_tokens: tuple[int, ...]  # a completion ends with the first of these
    seed: int  # of the run
    stream: str  # the named random stream, such as "rollout"
    step: int  # whose part of the stream it is


class Sampler(Protocol):
    """Samples completions of the policy that it was given last."""

    def load(self, params: models.Params, version: int) -> None:
        """Take the policy after step `version`; its arrays live until the next step.

        Args:
          params: all parameters, float32, on their devices.
          version: 0 for the policy that training starts from.

        Raises:
          SamplerError: the sampler cannot be reached or does not take them.
        """

    def sample(self, request: SampleRequest) -> Completions:
        """NumPy arrays of (G, M) completions whose `policy_step` is the version.

        Raises:
          SamplerError: no completions came, or none that can be trained on.
        """


@dataclasses.dataclass
class LocalSampler:
    """The engine of this package, on the mesh that trains."""

    model: models.DecoderConfig
    mesh: jax.sharding.Mesh
    unroll_layers: bool = False  # see `DecodeConfig`

    def __post_init__(self):
        """No policy yet."""
        self._params, self._version = None, 0

    def load(self, params: models.Params, version: int) -> None:
        """Take the policy; copies nothing."""
        self._params, self._version = params, version

    def sample(self, request: SampleRequest) -> Completions:
        """See `Sampler`; compiles once for each shape of a request."""
        if self._params is None:
            raise SamplerError("no policy was loaded; call `load` before `sample`")
        decode = DecodeConfig(request.rollout, request.stop_tokens, self.unroll_layers)
        placed = jax.device_put(request.prompts, partition.batch_sharding(self.mesh))
        key = rng.stream_key(request.seed, request.stream, request.step)
        arguments = (self._params, placed, key, self.mesh, self._version)
        return hosts.gather(rollout(self.model, decode, *arguments))
