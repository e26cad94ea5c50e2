"""Named shapes, from a toy that trains on a laptop to 32B parameters."""

import dataclasses

from jaxrl_surrogate.errors import FieldError, nearest_or_all, unknown
from jaxrl_surrogate.models.config import DecoderConfig

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

# Shapes of the published checkpoints: vocabulary, depth and widths from their configs.
_QWEN3 = DecoderConfig(
    vocab_size=151_936,
    num_layers=28,
    embed_dim=1024,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=3072,
    qk_norm=True,
    rope_theta=1e6,
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
    "qwen2.5-0.5b": DecoderConfig(
        vocab_size=151_936,
        num_layers=24,
        embed_dim=896,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        mlp_dim=4864,
        attention_bias=True,
        rope_theta=1e6,
    ),
    "qwen3-0.6b": _QWEN3,
    "qwen3-1.7b": dataclasses.replace(_QWEN3, embed_dim=2048, mlp_dim=6144),
    "qwen3-4b": dataclasses.replace(
        _QWEN3, num_layers=36, embed_dim=2560, num_heads=32, mlp_dim=9728
    ),
    "qwen3-8b": dataclasses.replace(
        _QWEN3,
        num_layers=36,
        embed_dim=4096,
        num_heads=32,
        mlp_dim=12_288,
        tie_embeddings=False,
    ),
    "qwen3-32b": dataclasses.replace(
        _QWEN3,
        num_layers=64,
        embed_dim=5120,
        num_heads=64,
        mlp_dim=25_600,
        tie_embeddings=False,
    ),
    "qwen3-30b-a3b": dataclasses.replace(
        _QWEN3,
        num_layers=48,
        embed_dim=2048,
        num_heads=32,
        num_kv_heads=4,
        mlp_dim=768,
        num_experts=128,
        experts_per_token=8,
        tie_embeddings=False,
    ),
    "llama3-8b": DecoderConfig(
        vocab_size=128_256,
        num_layers=32,
        embed_dim=4096,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        mlp_dim=14_336,
        tie_embeddings=False,
        rope_theta=5e5,
        norm_eps=1e-5,
    ),
}


def names() -> tuple[str, ...]:
    """Names that `get` knows."""
    return tuple(PRESETS)


def get(name: str, **overrides) -> DecoderConfig:
    """Return a preset with some fields replaced.

    Args:
      name: one of `names()`.
      **overrides: fields of `DecoderConfig`.

    Raises:
      ValueError: unknown preset or field, or values that do not fit together.
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
