"""Decoders in Flax NNX: shapes, modules, and pure functions over their parameters."""

from jaxrl_surrogate.models import layout, presets
from jaxrl_surrogate.models.attention import Prefix
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.forward import (
    Params,
    abstract_params,
    cast,
    decode_token,
    extend,
    init_params,
    lay_out,
    lay_out_ends,
    logical_axes,
    output_logits,
    prefill,
    unstack_layers,
)
from jaxrl_surrogate.models.key_values import KeyValues
from jaxrl_surrogate.models.rounding import AS_WRITTEN
from jaxrl_surrogate.models.token_logprobs import TokenScores, completion_scores

__all__ = [
    "AS_WRITTEN",
    "DecoderConfig",
    "KeyValues",
    "Params",
    "Prefix",
    "TokenScores",
    "abstract_params",
    "cast",
    "completion_scores",
    "decode_token",
    "extend",
    "init_params",
    "lay_out",
    "lay_out_ends",
    "layout",
    "logical_axes",
    "output_logits",
    "prefill",
    "presets",
    "unstack_layers",
]
