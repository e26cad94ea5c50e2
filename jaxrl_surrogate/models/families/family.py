"""A family of published models, described by two tables.

The first table maps fields of `DecoderConfig` to keys of a Hugging Face config, and the
second maps our names of a layer's norms to theirs. Everything else is the same in all
families, and all of them use the same decoder.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxrl_surrogate.errors import NO_VALUE, FieldError, FieldErrors
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.families import rope
from jaxrl_surrogate.models.families.names import HFTensor, Path, tensor_names
from jaxrl_surrogate.models.families.windows import NO_WINDOWS, Windows

# Keys that may change what a model computes, with the values that change nothing.
_HARMLESS = {
    "quantization_config": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "use_bidirectional_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "clip_qkv": (None,),
}


class ModelFamily(Protocol):
    """The interface of families, whose models differ only in sizes and options."""

    model_type: str  # as config.json names it
    architecture: str  # the class that other programs load it with

    def config(self, hf: Mapping[str, Any]) -> DecoderConfig:
        """Return the decoder that a Hugging Face config describes."""

    def hf_config(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the Hugging Face config that describes a decoder."""

    def names(self, config: DecoderConfig) -> Mapping[Path, HFTensor]:
        """Return the checkpoint's tensors for each parameter."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of config.json, and the meaning of a missing or null value.

    Attributes:
      name: the key.
      default: the value if the key is missing, or a function from the whole config to
        that value; without a default the key is required.
      null: the value if the key is null; if not given, that of a missing key.
      also: other names of the key.
      spelled: from our values to those in config.json, if they differ.
      whole: whether config.json has an integer for our float.
    """

    name: str
    default: Any = NO_VALUE
    null: Any = NO_VALUE
    also: tuple[str, ...] = ()
    spelled: Mapping[Any, Any] | None = None
    whole: bool = False

    def read(self, hf: Mapping[str, Any], kind: type) -> Any:
        """Read the key from a config and return our value.

        Raises:
          FieldError: the key is missing, or its value of another kind.
        """
        for name in (self.name, *self.also):
            if hf.get(name) is not None:
                return self._ours(name, hf[name], kind)
            if name in hf and self.null is not NO_VALUE:
                return self.null
        if self.default is NO_VALUE:
            raise FieldError(self.name, hf.get(self.name), _EXPECTED[kind])
        return self.default(hf) if callable(self.default) else self.default

    def _ours(self, name, value, kind):
        if self.spelled is not None:
            for ours, theirs in self.spelled.items():
                if value == theirs:
                    return ours
            expected = " or ".join(map(repr, self.spelled.values()))
            raise FieldError(name, value, expected)
        of_kind = isinstance(value, bool) == (kind is bool)
        if kind is float:
            of_kind = of_kind and isinstance(value, int | float)
            if of_kind and math.isfinite(value):
                return float(value)
        elif of_kind and isinstance(value, kind):
            return value
        raise FieldError(name, value, _EXPECTED[kind])

    def written(self, value: Any) -> Any:
        """Return the value for config.json."""
        if self.spelled is not None:
            return self.spelled[value]
        if value == self.null:
            return None
        return int(value) if self.whole and value.is_integer() else value


_EXPECTED = {int: "an integer", float: "a finite number", bool: "true or false"}


# More layers than any model has. The limit matters because lists of layers are made.
_MOST_LAYERS = 10_000


def _head_dim(hf):
    heads = SHARED["num_heads"].read(hf, int)
    return SHARED["embed_dim"].read(hf, int) // max(heads, 1)


def _as_many_as_heads(hf):
    return SHARED["num_heads"].read(hf, int)


# In families whose first members had no grouped queries.
OPTIONAL_KV_HEADS = {"num_kv_heads": Key("num_key_value_heads", _as_many_as_heads)}
# What most families share; a family's own table comes on top.
SHARED = {
    "vocab_size": Key("vocab_size"),
    "num_layers": Key("num_hidden_layers"),
    "embed_dim": Key("hidden_size"),
    "num_heads": Key("num_attention_heads"),
    "num_kv_heads": Key("num_key_value_heads"),
    "head_dim": Key("head_dim", _head_dim),
    "mlp_dim": Key("intermediate_size"),
    "activation": Key("hidden_act", "silu", spelled={"silu": "silu"}),
    "norm_eps": Key("rms_norm_eps", 1e-6),
    "tie_embeddings": Key("tie_word_embeddings", False),
}
PRE_NORMS = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A family, described by its tables.

    Attributes:
      model_type: the family's name in config.json.
      architecture: the class that other programs load it with.
      keys: from fields of `DecoderConfig` to keys, in addition to `SHARED`.
      always: fields of `DecoderConfig` that have the same value in all members.
      norms: from our names of a layer's norms to theirs.
      windows: how the config says which layers have a window.
      theta: the base of the rotary frequencies if the config has none.
      local_theta: the base in layers with a window; 0 if it is the same.
      harmless: keys that may change what is computed, with values that change nothing.
    """

    model_type: str
    architecture: str
    keys: Mapping[str, Key] = dataclasses.field(default_factory=dict)
    always: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    norms: Mapping[str, str] = dataclasses.field(default_factory=lambda: PRE_NORMS)
    windows: Windows = NO_WINDOWS
    theta: float = 1e4
    local_theta: float = 0.0
    harmless: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    def config(self, hf: Mapping[str, Any]) -> DecoderConfig:
        """Return the decoder that a Hugging Face config describes.

        Args:
          hf: config.json, of any version of transformers.

        Raises:
          FieldErrors: one for each key that is missing, has another type, or asks for
            something that the decoder does not compute.
        """
        errors, fields = [], dict(self.always)

        def attempt(read: Callable[[], dict[str, Any]]) -> None:
            try:
                fields.update(read())
            except FieldErrors as error:
                errors.append(error)

        for name, key in self._keys().items():
            attempt(lambda n=name, k=key: {n: k.read(hf, _KINDS[n])})
        layers = fields.get("num_layers", 0)
        if 0 < layers <= _MOST_LAYERS:
            attempt(lambda: self.windows.read(hf, layers))
        elif "num_layers" in fields:
            errors.append(
                FieldError("num_hidden_layers", layers, f"1 to {_MOST_LAYERS}")
            )
        attempt(lambda: rope.read(hf, self.theta, self.local_theta))
        for key, allowed in (_HARMLESS | dict(self.harmless)).items():
            if not any(hf.get(key) == value for value in (None, *allowed)):
                said = " or ".join(map(repr, allowed))
                errors.append(
                    FieldError(key, hf[key], said, problem="our decoder has not that")
                )
        if errors:
            raise FieldErrors(errors)
        if not fields["sliding_window"]:
            fields["rope_local_theta"] = 0.0
        return DecoderConfig(**fields)

    def hf_config(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the Hugging Face config that describes a decoder of this family.

        Returns:
          The contents of config.json, for transformers of versions 4 and 5.

        Raises:
          FieldError: the decoder does not belong to this family.
        """
        hf: dict[str, Any] = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
        }
        try:
            for name, key in self._keys().items():
                hf[key.name] = key.written(getattr(config, name))
            hf |= self.windows.write(config)
            hf |= rope.write(config, self.local_theta)
            again = self.config(hf)
        except (FieldErrors, KeyError, ValueError):
            again = None
        plain = dataclasses.replace(config, compute_dtype="float32")
        if again != plain:
            raise FieldError(
                "config", problem=f"not a decoder of the family {self.model_type}"
            )
        return hf

    def names(self, config: DecoderConfig) -> dict[Path, HFTensor]:
        """Return the checkpoint's tensors for every parameter path of `init_params`."""
        return tensor_names(config, self.norms)

    def _keys(self):
        return SHARED | dict(self.keys)


_KINDS = {
    field.name: next(
        kind for kind in (bool, int, float, str) if isinstance(field.default, kind)
    )
    if field.default is not dataclasses.MISSING
    else int
    for field in dataclasses.fields(DecoderConfig)
}
