"""A decoder with room for a run's tokenizer."""

import dataclasses
from collections.abc import Sequence

from jaxrl_surrogate import models, settings
from jaxrl_surrogate.assembly.published import (
    published_shape,
    starts_from_published,
)
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError, FieldErrors, inside
from jaxrl_surrogate.tasks import Tokenizer


def stop_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a completion: the end token and each text's one token."""
    ids = {text: tokenizer.encode(text) for text in texts}
    errors = [
        FieldError(
            "rollout.stop",
            text,
            "texts of one token each",
            problem=f"{tokenizer.name} spells it in {len(found)} tokens",
        )
        for text, found in ids.items()
        if len(found) != 1
    ]
    if errors:
        raise FieldErrors(errors)
    return tuple({tokenizer.eos_id: None} | {found[0]: None for found in ids.values()})


def build_shape(config: TrainConfig) -> models.DecoderConfig:
    """The decoder's shape before it knows a vocabulary: a preset with overrides.

    A published model that the run starts from has its own.

    Raises:
      FieldErrors: unknown preset or field, or values that do not fit together.
    """
    with inside("model"):
        if starts_from_published(config.model):
            preset = published_shape(config.model)
        else:
            preset = models.presets.get(config.model.preset)
    preset = dataclasses.replace(preset, compute_dtype=config.model.compute_dtype)
    if starts_from_published(config.model):
        return preset
    return settings.updated(preset, config.model.overrides, "model.overrides")


def _vocabulary(config: TrainConfig) -> tuple[str, object]:
    """The field that says how many tokens there are, and its value."""
    if "vocab_size" in config.model.overrides:
        return "model.overrides.vocab_size", config.model.overrides["vocab_size"]
    return "model.init_from", config.model.init_from


def build_model(
    config: TrainConfig, shape: models.DecoderConfig, tokenizer: Tokenizer
) -> models.DecoderConfig:
    """The decoder's shape with room for the tokenizer's vocabulary.

    Raises:
      FieldError: an explicit vocabulary that is smaller than the tokenizer's.
    """
    overridden = "vocab_size" in config.model.overrides
    if overridden or starts_from_published(config.model):
        if shape.vocab_size < tokenizer.vocab_size:
            raise FieldError(
                *_vocabulary(config),
                f"at least the {tokenizer.vocab_size} tokens of {tokenizer.name}",
            )
        return shape
    published = models.presets.is_published(config.model.preset)
    if published and shape.vocab_size >= tokenizer.vocab_size:
        return shape
    # A multiple of 8, so that a tensor axis can split the vocabulary.
    return dataclasses.replace(shape, vocab_size=-(-tokenizer.vocab_size // 8) * 8)
