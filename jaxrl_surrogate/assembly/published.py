"""Reads the config and parameters of a published model that a run starts from."""

from collections.abc import Callable
from pathlib import Path

import jax

from jaxrl_surrogate import models
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.models import hf
from jaxrl_surrogate.models.config import ModelConfig
from jaxrl_surrogate.training.state import abstract_params


def starts_from_published(config: ModelConfig) -> bool:
    """Return whether `init_from` is a published model: a GGUF file or HF directory."""
    if config.init_from is None:
        return False
    path = Path(config.init_from)
    if (path / "config.yaml").is_file():
        return False
    return path.suffix == ".gguf" or (path / "config.json").is_file()


def published_shape(config: ModelConfig) -> models.DecoderConfig:
    """Return the decoder's config as `init_from` describes it; `preset` is ignored.

    Raises:
      FieldErrors: the architecture is not supported, or `overrides` is not empty.
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
    """Return a function that reads the parameters of `init_from`.

    The function takes a callback for damage reports, which it does not call, and
    returns the parameters in float32, sharded over the mesh.
    """

    def load(on_damage: Callable[[str], None]) -> models.Params:
        del on_damage  # damage is an error here: there is no older state to load
        abstract = abstract_params(model, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        _, params = hf.load(
            config.init_from, dtype="float32", shardings=lambda _: shardings
        )
        return params

    return load
