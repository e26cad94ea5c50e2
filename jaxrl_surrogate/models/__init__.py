"""Decoders in Flax NNX: configs, modules, and pure functions of their parameters."""

from jaxrl_surrogate.models import layout, presets
from jaxrl_surrogate.models.attention import Prefix
from jaxrl_surrogate.models.config import DecoderConfig, ModelConfig
from jaxrl_surrogate.models.forward import (
    Params,
    abstract_params,
    cast,
    decode_token,
    forward_completions,
    init_params,
    logical_axes,
    output_logits,
    prefill,
    shard_ends,
    shard_params,
    unstack_layers,
)
from jaxrl_surrogate.models.key_values import KeyValues
from jaxrl_surrogate.models.rounding import AS_WRITTEN
from jaxrl_surrogate.models.token_logprobs import TokenScores, token_logprobs

__all__ = [
    "AS_WRITTEN",
    "DecoderConfig",
    "KeyValues",
    "ModelConfig",
    "Params",
    "Prefix",
    "TokenScores",
    "abstract_params",
    "cast",
    "decode_token",
    "forward_completions",
    "init_params",
    "layout",
    "logical_axes",
    "output_logits",
    "prefill",
    "presets",
    "shard_ends",
    "shard_params",
    "token_logprobs",
    "unstack_layers",
]
