"""Named model shapes: small ones that train on a laptop, and published models."""

import dataclasses

from jaxrl_surrogate.errors import FieldError, nearest_or_all, unknown
from jaxrl_surrogate.models import families
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.families import published

_TOY = DecoderConfig(
    vocab_size=98,
    num_layers=2,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=128,
    qk_norm=True,
)

PRESETS = {
    "nano": _TOY,
    "tiny": dataclasses.replace(
        _TOY, num_layers=4, embed_dim=128, head_dim=32, mlp_dim=384
    ),
    "small": dataclasses.replace(
        _TOY,
        vocab_size=8192,
        num_layers=6,
        embed_dim=384,
        num_heads=6,
        num_kv_heads=2,
        head_dim=64,
        mlp_dim=1152,
        rope_theta=1e6,
    ),
    **{
        name: families.of_hf_config(hf).config(hf)
        for name, hf in published.PUBLISHED.items()
    },
}


def names() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(PRESETS)


def is_published(name: str) -> bool:
    """Return whether a preset is the shape of a published checkpoint.

    The vocabulary size of a published shape is fixed. That of the other presets is
    taken from the run's tokenizer.
    """
    return name in published.PUBLISHED


def get(name: str, **overrides) -> DecoderConfig:
    """Return a preset with some fields replaced.

    Args:
      name: one of `names()`.
      **overrides: fields of `DecoderConfig`.

    Raises:
      ValueError: the preset or a field is unknown, or the values are inconsistent.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    fields = [field.name for field in dataclasses.fields(DecoderConfig)]
    for field in overrides:
        if field not in fields:
            raise FieldError(
                field,
                overrides[field],
                problem="is no field of DecoderConfig",
                **nearest_or_all(field, fields),
            )
    return dataclasses.replace(PRESETS[name], **overrides)
