"""A decoder with room for a run's tokenizer."""

import dataclasses
from collections.abc import Sequence

from jaxrl_surrogate import models, settings
from jaxrl_surrogate.assembly.published import (
    published_shape,
    starts_from_published,
)
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import refused_at
from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.tasks import Tokenizer


def stop_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a completion: the end token and each text's one token."""
    ids = {text: tokenizer.encode(text) for text in texts}
    faults = [
        f"rollout.stop={text!r}: {tokenizer.name} spells it in {len(found)} tokens; "
        "expected texts of one token each"
        for text, found in ids.items()
        if len(found) != 1
    ]
    if faults:
        raise SettingsError("\n".join(faults))
    return tuple({tokenizer.eos_id: None} | {found[0]: None for found in ids.values()})


def build_shape(config: TrainConfig) -> models.DecoderConfig:
    """The decoder's shape before it knows a vocabulary: a preset with overrides.

    A published model that the run starts from has its own.

    Raises:
      SettingsError: unknown preset or field, or values that do not fit together.
    """
    if starts_from_published(config.model):
        shape = refused_at("model", published_shape, config.model)
        return dataclasses.replace(shape, compute_dtype=config.model.compute_dtype)
    preset = refused_at("model", models.presets.get, config.model.preset)
    preset = dataclasses.replace(preset, compute_dtype=config.model.compute_dtype)
    return settings.updated(preset, config.model.overrides, "model.overrides")


def _vocabulary(config):
    """Who says how many tokens there are."""
    if "vocab_size" in config.model.overrides:
        return f"model.overrides.vocab_size={config.model.overrides['vocab_size']}"
    return f"model.init_from={config.model.init_from!r}, its vocabulary"


def build_model(
    config: TrainConfig, shape: models.DecoderConfig, tokenizer: Tokenizer
) -> models.DecoderConfig:
    """The decoder's shape with room for the tokenizer's vocabulary.

    Raises:
      SettingsError: an explicit vocabulary that is smaller than the tokenizer's.
    """
    overridden = "vocab_size" in config.model.overrides
    if overridden or starts_from_published(config.model):
        if shape.vocab_size < tokenizer.vocab_size:
            raise SettingsError(
                f"{_vocabulary(config)}: expected at least the "
                f"{tokenizer.vocab_size} tokens of {tokenizer.name}"
            )
        return shape
    published = models.presets.is_published(config.model.preset)
    if published and shape.vocab_size >= tokenizer.vocab_size:
        return shape
    # A multiple of 8, so that a tensor axis can split the vocabulary.
    return dataclasses.replace(shape, vocab_size=-(-tokenizer.vocab_size // 8) * 8)
