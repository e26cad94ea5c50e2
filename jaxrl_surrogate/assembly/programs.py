"""What the compiled programs of a run are fixed to, and a job of nothing but them."""

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

# Unrolled decoding is faster on a CPU, and compile time is bearable up to this depth.
_UNROLLED_LAYERS = 12


def decode_config(
    config: TrainConfig,
    model: models.DecoderConfig,
    stops: Sequence[int],
    platform: str,
) -> DecodeConfig:
    """The rollout's fixed part, on devices of a platform such as "cpu" or "tpu"."""
    return DecodeConfig(config.rollout, tuple(stops), _unrolled(model, platform))


def build_sampler(
    config: RolloutConfig, model: models.DecoderConfig, mesh: jax.sharding.Mesh
) -> Sampler:
    """The sampler that a config names."""
    if config.sampler == "local":
        return LocalSampler(model, mesh, _unrolled(model, jax.default_backend()))
    return HTTPSampler(config.sampler, model.vocab_size, config.sampler_timeout_s)


def _unrolled(model: models.DecoderConfig, platform: str) -> bool:
    return platform == "cpu" and model.num_layers <= _UNROLLED_LAYERS


def update_config(config: TrainConfig) -> UpdateConfig:
    """The update's fixed part."""
    return UpdateConfig(
        loss=config.loss,
        sampling=config.rollout.sampling,
        reward_mode=config.objective.reward_mode,
        compute=config.train,
    )


def build_job(config: TrainConfig, platform: str) -> Job:
    """The programs of a step without task, tokenizer or data: what a plan compiles.

    Args:
      config: of the run.
      platform: of the devices that the programs are for.

    A published shape keeps its vocabulary; a toy's follows its tokenizer, as in a run.

    Raises:
      FieldErrors: values that do not fit together, with their dotted paths.
    """
    model = build_shape(config)
    own = starts_from_published(config.model)
    if not (own or models.presets.is_published(config.model.preset)):
        model = build_model(config, model, _vocabulary(config.task.tokenizer))
    updates = config.train.epochs * config.train.minibatches
    parameters = models.logical_axes(model)
    with inside("model"):
        is_frozen = freeze(config.model.freeze, parameters)
    with inside("optimizer"):
        optimizer = make_optimizer(
            config.optimizer,
            max(1, config.train.steps * updates),
            split(parameters, is_frozen)[0],
        )
    return Job(
        model=model,
        loss=config.loss,
        reward_mode=config.objective.reward_mode,
        loop=config.train,
        optimizer=optimizer,
        # Which tokens end a completion changes nothing that is measured.
        decode=decode_config(
            config, model, range(1 + len(config.rollout.stop)), platform
        ),
        objective=build_objective(config)(1),
        mesh=config.mesh,
        is_frozen=is_frozen,
    )


@dataclasses.dataclass(frozen=True)
class _Untrained:
    """A tokenizer of which only the size is known."""

    name: str
    vocab_size: int


def _vocabulary(name: str) -> Tokenizer | _Untrained:
    """A tokenizer as far as the decoder's shape needs it; trains none."""
    size = name.removeprefix("bpe:")
    if size != name and size.isdecimal():
        return _Untrained(name, int(size))
    with inside("task"):
        return tasks.tokenizers.get(name)
