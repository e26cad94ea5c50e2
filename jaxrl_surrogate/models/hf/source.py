"""Where parameters are read from: tensors by name, and the config beside them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Index = tuple[slice, ...]  # start and stop of each axis


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a file says of one of its tensors."""

    shape: tuple[int, ...]
    dtype: str  # as the format calls it


class TensorSource(Protocol):
    """Tensors that are read a slice at a time."""

    hf_config: Mapping[str, Any]  # as config.json holds it
    tensors: Mapping[str, Stored]  # by the names that transformers gives them

    def dtype(self, name: str) -> np.dtype | None:
        """What `read` gives for a tensor; None where the format's dtype is no float."""

    def read(self, name: str, index: Index) -> np.ndarray:
        """A slice of a tensor, in its stored dtype."""
