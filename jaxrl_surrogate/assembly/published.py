"""A run that starts from a published model: its shape, and its parameters."""

from collections.abc import Callable
from pathlib import Path

import jax

from jaxrl_surrogate import models
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.models import hf
from jaxrl_surrogate.models.config import ModelConfig
from jaxrl_surrogate.training.state import abstract_params


def starts_from_published(config: ModelConfig) -> bool:
    """Whether `init_from` is a published model, and not the directory of a run."""
    if config.init_from is None:
        return False
    path = Path(config.init_from)
    if (path / "config.yaml").is_file():
        return False
    return path.suffix == ".gguf" or (path / "config.json").is_file()


def published_shape(config: ModelConfig) -> models.DecoderConfig:
    """The decoder that `init_from` describes; `preset` is not asked.

    Raises:
      FieldErrors: it describes none that we have, or `overrides` would change it.
    """
    if config.overrides:
        raise FieldError(
            "overrides", config.overrides, "none",
            problem="the model of init_from has its own shape",
        )  # fmt: skip
    return hf.read_config(config.init_from)


def published_params(
    config: ModelConfig, model: models.DecoderConfig, mesh: jax.sharding.Mesh
) -> Callable[[Callable[[str], None]], models.Params]:
    """A function that reads the parameters of `init_from`, sharded, as float32."""

    def load(on_damage: Callable[[str], None]) -> models.Params:
        del on_damage  # an error, where a run would have an older state
        abstract = abstract_params(model, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        _, params = hf.load(
            config.init_from, dtype="float32", shardings=lambda _: shardings
        )
        return params

    return load
