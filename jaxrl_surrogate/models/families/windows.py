"""How Hugging Face configs say which layers of a model have a sliding window."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.models.config import DecoderConfig

_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a family says which of its layers have a window.

    Attributes:
      default: the window of a config without the key `sliding_window`.
      switch: the key `use_sliding_window` turns windows on.
      from_layer: the key `max_window_layers` counts first layers without a window.
      global_every: every n-th layer has none, where the config does not say otherwise;
        0: all layers are alike.
      listed: the key `layer_types` says it layer by layer.
    """

    default: int = 0
    switch: bool = False
    from_layer: bool = False
    global_every: int = 0
    listed: bool = False

    def read(self, hf: Mapping[str, Any], num_layers: int) -> dict[str, int]:
        """Return the fields `sliding_window` and `global_every` of `DecoderConfig`.

        Raises:
          FieldError: no `global_every` describes the layers, or the window is no
            number.
        """
        window = hf.get("sliding_window", self.default) or 0
        if self.switch and not hf.get("use_sliding_window", False):
            window = 0
        if isinstance(window, bool) or not isinstance(window, int) or window < 0:
            raise FieldError("sliding_window", window, "a positive integer or null")
        pattern = hf.get("sliding_window_pattern", hf.get("_sliding_window_pattern"))
        hint = self.global_every
        if hint and isinstance(pattern, int) and pattern > 0:
            hint = pattern
        types = hf.get("layer_types")
        if not isinstance(types, list | None):
            raise FieldError("layer_types", types, "a list")
        if types is not None and (self.listed or _SLIDING in types):
            if not self.listed or len(types) != num_layers:
                raise FieldError(
                    "layer_types", f"{len(types)} layers",
                    f"{num_layers}, all {_FULL}" if not self.listed else num_layers,
                )  # fmt: skip
            unknown = sorted({str(kind) for kind in types} - {_FULL, _SLIDING})
            if unknown:
                raise FieldError(
                    "layer_types", ", ".join(unknown), f"{_FULL} or {_SLIDING}"
                )
        elif not window:
            return {"sliding_window": 0, "global_every": 0}
        elif self.from_layer:
            first = hf.get("max_window_layers", 0) or 0
            types = [_FULL if i < first else _SLIDING for i in range(num_layers)]
        else:
            return {"sliding_window": window, "global_every": hint}
        if _SLIDING not in types:
            return {"sliding_window": 0, "global_every": 0}
        if not window:
            raise FieldError("sliding_window", None, "a number, for layers that slide")
        for every in (hint, 0, *range(2, num_layers + 1)):
            if types == _types(num_layers, every):
                return {"sliding_window": window, "global_every": every}
        raise FieldError(
            "layer_types", ", ".join(types), f"{_FULL} in every n-th layer for some n"
        )

    def write(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the keys of config.json that describe a decoder's windows."""
        window = config.sliding_window
        if self == NO_WINDOWS:
            return {}
        hf: dict[str, Any] = {"sliding_window": window or None}
        if self.switch:
            hf["use_sliding_window"] = bool(window)
        if self.from_layer:
            hf["max_window_layers"] = 0 if window else config.num_layers
        if self.listed:
            every = config.global_every if window else 1
            hf["layer_types"] = _types(config.num_layers, every)
        if self.global_every:
            # A model that has none has to say so: the key would have a default.
            hf["sliding_window"] = window or 1
            hf["sliding_window_pattern"] = config.global_every or self.global_every
        return hf


def _types(num_layers, every):
    return [
        _FULL if every and (i + 1) % every == 0 else _SLIDING for i in range(num_layers)
    ]


NO_WINDOWS = Windows()
