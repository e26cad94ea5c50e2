"""Builds the static settings of a run's compiled programs, and the job of a plan."""

import dataclasses
from collections.abc import Sequence

import jax

from jaxrl_surrogate import models, tasks
from jaxrl_surrogate.assembly.model import build_model, build_shape
from jaxrl_surrogate.assembly.objective import build_objective
from jaxrl_surrogate.assembly.published import starts_from_published
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import inside
from jaxrl_surrogate.lab.plan import Job
from jaxrl_surrogate.rollout import (
    DecodeConfig,
    HTTPSampler,
    LocalSampler,
    RolloutConfig,
    Sampler,
)
from jaxrl_surrogate.tasks import Tokenizer
from jaxrl_surrogate.training.freezing import freeze, split
from jaxrl_surrogate.training.optimizer import make_optimizer
from jaxrl_surrogate.training.step import UpdateConfig

# Unrolled decoding is faster on a CPU; up to this depth it compiles fast enough.
_UNROLLED_LAYERS = 12


def decode_config(
    config: TrainConfig,
    model: models.DecoderConfig,
    stops: Sequence[int],
    platform: str,
) -> DecodeConfig:
    """Return the static settings of the rollout program.

    Args:
      config: config of the run.
      model: its decoder.
      stops: token ids that end a completion.
      platform: platform of the devices, such as "cpu" or "tpu".
    """
    return DecodeConfig(config.rollout, tuple(stops), _unrolled(model, platform))


def build_sampler(
    config: RolloutConfig, model: models.DecoderConfig, mesh: jax.sharding.Mesh
) -> Sampler:
    """Return the sampler of `rollout.sampler`: local, or a client of an HTTP server."""
    if config.sampler == "local":
        return LocalSampler(model, mesh, _unrolled(model, jax.default_backend()))
    return HTTPSampler(config.sampler, model.vocab_size, config.sampler_timeout_s)


def _unrolled(model: models.DecoderConfig, platform: str) -> bool:
    return platform == "cpu" and model.num_layers <= _UNROLLED_LAYERS


def update_config(config: TrainConfig) -> UpdateConfig:
    """Return the static settings of the update program."""
    return UpdateConfig(
        loss=config.loss,
        sampling=config.rollout.sampling,
        reward_mode=config.objective.reward_mode,
        compute=config.train,
    )


def build_job(config: TrainConfig, platform: str) -> Job:
    """Return what `jaxrl plan` compiles: the programs of a step, without task or data.

    A published model keeps its vocabulary; that of another preset follows the
    tokenizer, as in a run.

    Args:
      config: config of the run.
      platform: platform of the devices that the programs are for.

    Raises:
      FieldErrors: values do not fit together; the errors have their dotted paths.
    """
    model = build_shape(config)
    own = starts_from_published(config.model)
    if not (own or models.presets.is_published(config.model.preset)):
        model = build_model(config, model, _vocabulary(config.task.tokenizer))
    parameters = models.logical_axes(model)
    with inside("model"):
        is_frozen = freeze(config.model.freeze, parameters)
    with inside("optimizer"):
        optimizer = make_optimizer(
            config.optimizer,
            config.train.total_updates,
            split(parameters, is_frozen)[0],
        )
    return Job(
        model=model,
        loss=config.loss,
        reward_mode=config.objective.reward_mode,
        loop=config.train,
        optimizer=optimizer,
        # The ids of the stop tokens do not matter to a plan, only their number.
        decode=decode_config(
            config, model, range(1 + len(config.rollout.stop)), platform
        ),
        objective=build_objective(config)(1),
        mesh=config.mesh,
        is_frozen=is_frozen,
    )


@dataclasses.dataclass(frozen=True)
class _Untrained:
    """Stands for a tokenizer that is not trained yet: its name and size."""

    name: str
    vocab_size: int


def _vocabulary(name: str) -> Tokenizer | _Untrained:
    """Return a tokenizer; for `bpe:SIZE`, which is not trained here, only its size."""
    size = name.removeprefix("bpe:")
    if size != name and size.isdecimal():
        return _Untrained(name, int(size))
    with inside("task"):
        return tasks.tokenizers.get(name)
