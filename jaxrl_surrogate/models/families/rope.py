"""Rotary settings of a Hugging Face config, as transformers 4 and 5 write them."""

import math
from collections.abc import Mapping
from typing import Any

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.models.config import DecoderConfig

# From our field to the key of a scaling, by kind of scaling.
_NUMBERS = {
    "none": {},
    "linear": {"rope_factor": "factor"},
    "llama3": {
        "rope_factor": "factor",
        "rope_low_freq_factor": "low_freq_factor",
        "rope_high_freq_factor": "high_freq_factor",
        "rope_original_length": "original_max_position_embeddings",
    },
}
_TYPES = ("default", "linear", "llama3")


def read(
    hf: Mapping[str, Any], theta: float, local_theta: float
) -> dict[str, float | int | str]:
    """Return the rotary fields of `DecoderConfig`.

    Args:
      hf: config.json. Version 4 has `rope_theta`, `rope_scaling` and, in Gemma 3,
        `rope_local_base_freq`; version 5 has `rope_parameters`, for each kind of layer
        where they differ.
      theta: the base where the config has none.
      local_theta: that of layers with a window, 0 where a family has none of its own.

    Raises:
      FieldErrors: a kind of scaling is not supported, or a value is no number.
    """
    given, local = hf.get("rope_parameters") or {}, {}
    where = "rope_parameters"
    _expect_mapping(where, given)
    if "full_attention" in given or "sliding_attention" in given:
        local = given.get("sliding_attention") or {}
        given = given.get("full_attention") or {}
        where = "rope_parameters.full_attention"
        _expect_mapping(where, given)
        _expect_mapping("rope_parameters.sliding_attention", local)
        if _kind(local) not in (None, "default"):
            raise FieldError(
                "rope_parameters.sliding_attention.rope_type", _kind(local), "default"
            )
    fields: dict[str, Any] = {
        "rope_theta": _number(
            "rope_theta", given.get("rope_theta", hf.get("rope_theta")), theta
        ),
        "rope_local_theta": _number(
            "rope_local_base_freq",
            local.get("rope_theta", hf.get("rope_local_base_freq")),
            local_theta,
        ),
    }
    if fields["rope_local_theta"] == fields["rope_theta"] and not local_theta:
        fields["rope_local_theta"] = 0.0
    if hf.get("rope_scaling") is not None:
        given, where = hf["rope_scaling"], "rope_scaling"
        _expect_mapping(where, given)
    kind = _kind(given)
    kind = "none" if kind in (None, "default") else kind
    if kind not in _NUMBERS:
        raise FieldError(
            f"{where}.rope_type", kind, f"one of {', '.join(_TYPES)}",
            problem="our decoder does not scale rotary frequencies so",
        )  # fmt: skip
    fields["rope_scaling"], errors = kind, []
    for ours, theirs in _NUMBERS[kind].items():
        try:
            number = _number(f"{where}.{theirs}", given.get(theirs), None)
            fields[ours] = int(number) if ours == "rope_original_length" else number
        except FieldErrors as error:
            errors.append(error)
    if errors:
        raise FieldErrors(errors)
    return fields


def write(config: DecoderConfig, local_theta: float) -> dict[str, Any]:
    """Return the rotary settings with the keys of version 4, which version 5 reads."""
    scaling = None
    if config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling} | {
            theirs: getattr(config, ours)
            for ours, theirs in _NUMBERS[config.rope_scaling].items()
        }
    hf = {"rope_theta": config.rope_theta, "rope_scaling": scaling}
    if local_theta:
        hf["rope_local_base_freq"] = config.rope_local_theta or local_theta
    return hf


def _kind(given):
    return given.get("rope_type", given.get("type"))


def _expect_mapping(where, given):
    if not isinstance(given, Mapping):
        raise FieldError(where, given, "an object")


def _number(where, value, default):
    value = default if value is None else value
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
    ):
        raise FieldError(where, value, "a finite number")
    return float(value)
