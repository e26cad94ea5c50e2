"""Families of published models: the meaning of their configs, and their tensor names.

A family is a table (`Family`). All families use the same decoder.
"""

from collections.abc import Mapping
from typing import Any

from jaxrl_surrogate.errors import FieldError, FieldErrors, unknown
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.families import gemma, llama, olmo, qwen
from jaxrl_surrogate.models.families.family import Family, Key, ModelFamily
from jaxrl_surrogate.models.families.names import HFTensor

FAMILIES: Mapping[str, ModelFamily] = {
    family.model_type: family
    for family in (
        llama.LLAMA,
        llama.MISTRAL,
        qwen.QWEN2,
        qwen.QWEN3,
        qwen.QWEN3_MOE,
        gemma.GEMMA2,
        gemma.GEMMA3,
        olmo.OLMO2,
    )
}


def of_hf_config(hf: Mapping[str, Any]) -> ModelFamily:
    """Return the family of a Hugging Face config.

    Raises:
      FieldErrors: no family has this `model_type` or architecture.
    """
    name = hf.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise unknown("model_type", str(name), FAMILIES, "family of models")
    family, classes = FAMILIES[name], hf.get("architectures")
    if classes is not None and classes != [family.architecture]:
        raise FieldError("architectures", classes, str([family.architecture]))
    return family


def of_decoder(config: DecoderConfig) -> ModelFamily:
    """Return the first family that can describe a decoder.

    Raises:
      FieldError: no published family has this combination of options.
    """
    for family in FAMILIES.values():
        try:
            family.hf_config(config)
        except FieldErrors:
            continue
        return family
    raise FieldError(
        "config",
        problem="no family of models has this combination of options",
        remedy=f"expected one that {', '.join(FAMILIES)} can describe",
    )


__all__ = [
    "FAMILIES",
    "Family",
    "HFTensor",
    "Key",
    "ModelFamily",
    "of_decoder",
    "of_hf_config",
]
