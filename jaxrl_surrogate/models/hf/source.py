"""The interface of checkpoints: tensors by name, and their config."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Index = tuple[slice, ...]  # start and stop of each axis


@dataclasses.dataclass(frozen=True)
class Stored:
    """The shape and dtype that a file states for one of its tensors."""

    shape: tuple[int, ...]
    dtype: str  # as the format calls it


class TensorSource(Protocol):
    """The interface of a checkpoint whose tensors are read in slices."""

    hf_config: Mapping[str, Any]  # as config.json holds it
    tensors: Mapping[str, Stored]  # by the names that transformers gives them

    def dtype(self, name: str) -> np.dtype | None:
        """Return the dtype that `read` gives a tensor, or None if it is no float."""

    def read(self, name: str, index: Index) -> np.ndarray:
        """Read a slice of a tensor, in the dtype that `dtype` returns."""
