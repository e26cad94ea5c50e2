"""Builds the decoder's config: a preset with overrides, sized for the tokenizer."""

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
    """Return the token ids that end a completion.

    Args:
      texts: stop texts; each must encode to exactly one token.
      tokenizer: of the run.

    Returns:
      The tokenizer's end token, then the token of each text, without repetitions.

    Raises:
      FieldErrors: a text encodes to several tokens or to none.
    """
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
    """Return the decoder's config before the vocabulary size is settled.

    It is the preset with its overrides, or the config of the published model that
    `model.init_from` names.

    Raises:
      FieldErrors: the preset or a field is unknown, or values do not fit together.
    """
    with inside("model"):
        if starts_from_published(config.model):
            preset = published_shape(config.model)
        else:
            preset = models.presets.get(config.model.preset)
    preset = dataclasses.replace(preset, compute_dtype=config.model.compute_dtype)
    return settings.updated(preset, config.model.overrides, "model.overrides")


def _vocabulary(config: TrainConfig) -> tuple[str, object]:
    """Return the field that determines the vocabulary size, and its value."""
    if "vocab_size" in config.model.overrides:
        return "model.overrides.vocab_size", config.model.overrides["vocab_size"]
    return "model.init_from", config.model.init_from


def build_model(
    config: TrainConfig, shape: models.DecoderConfig, tokenizer: Tokenizer
) -> models.DecoderConfig:
    """Return the decoder's config with a vocabulary that covers the tokenizer's.

    An explicit or published vocabulary size that is large enough is kept; otherwise it
    is the tokenizer's, rounded up to a multiple of 8.

    Raises:
      FieldError: the vocabulary of `model.overrides` or of the published model in
        `model.init_from` is smaller than the tokenizer's.
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
    # A multiple of 8 lets a tensor axis shard the vocabulary.
    return dataclasses.replace(shape, vocab_size=-(-tokenizer.vocab_size // 8) * 8)
