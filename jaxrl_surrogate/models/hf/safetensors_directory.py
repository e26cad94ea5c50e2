"""Reads a model directory of transformers: config.json and safetensors files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.models.hf.source import Index, Stored

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class SafetensorsDirectory:
    """Tensors of one or more safetensors files; see `TensorSource`.

    Attributes:
      hf_config: the contents of config.json.
      tensors: shape and dtype of each tensor, from the files' headers.
    """

    def __init__(self, path: Path):
        """Read config, index and headers.

        Raises:
          FieldErrors: a file is missing, truncated or inconsistent, or tensors overlap;
            one for each file.
        """
        self.hf_config = read_json(path / "config.json")
        files, listed = _files(path)
        self._files: dict[str, Any] = {}
        self.tensors: dict[str, Stored] = {}
        errors: list[FieldErrors] = []
        for file in files:
            try:
                self._add(path / file)
            except FieldErrors as error:
                errors.append(error)
        if not errors and listed is not None:
            errors += self._not_as_listed(path, listed)
        if errors:
            raise FieldErrors(errors)

    def dtype(self, name: str) -> np.dtype | None:
        """Return a tensor's NumPy dtype, or None if it is no float of 16 or 32 bits."""
        return DTYPES.get(self.tensors[name].dtype)

    def read(self, name: str, index: Index) -> np.ndarray:
        """Read a slice of a tensor in its stored dtype, and no other part of it."""
        return self._files[name].get_slice(name)[index]

    def _add(self, path):
        opened = _open(path)
        for name in list(opened.keys()):
            if name in self._files:
                raise FieldError(
                    str(path), name, problem="another file has this tensor too"
                )
            part = opened.get_slice(name)
            self.tensors[name] = Stored(tuple(part.get_shape()), part.get_dtype())
            self._files[name] = opened

    def _not_as_listed(self, path, listed):
        missing = sorted(set(listed) - set(self.tensors))
        if missing:
            yield FieldError(
                str(path / INDEX), ", ".join(missing),
                problem="the index lists tensors that no file has",
            )  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
      FieldError: the file cannot be read or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FieldError(str(path), problem="there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FieldError(str(path), problem=f"not to be read: {error}") from None
    if not isinstance(value, dict):
        raise FieldError(str(path), type(value).__name__, "a JSON object")
    return value


def _files(path: Path) -> tuple[list[str], Mapping[str, str] | None]:
    """Return the files' names, and the index of which file holds which tensor."""
    if not (path / INDEX).exists():
        if (path / SINGLE).exists():
            return [SINGLE], None
        others = sorted(p.name for p in path.glob("*") if p.suffix in (".bin", ".pt"))
        raise FieldError(
            str(path), NO_FILES, f"{SINGLE} or {INDEX}",
            f"{', '.join(others)}: have transformers save it as safetensors"
            if others else "",
        )  # fmt: skip
    listed = read_json(path / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise FieldError(str(path / INDEX), listed, "a weight_map from names to files")
    names = {name for name in listed.values() if isinstance(name, str)}
    # A name is a file of this directory, whatever it tries to be.
    wrong = sorted(
        {str(name) for name in listed.values()}
        - {n for n in names if n == Path(n).name and n.endswith(".safetensors")}
    )
    if wrong:
        raise FieldError(
            str(path / INDEX), ", ".join(wrong), "names of .safetensors files beside it"
        )
    return sorted(names), listed


NO_FILES = "no safetensors"


def _open(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise FieldError(
            "path", str(path), remedy="pip install -e '.[hf]'",
            problem="reading it needs the package safetensors",
        ) from None  # fmt: skip
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise FieldError(str(path), problem="there is no such file") from None
    except (OSError, SafetensorError) as error:
        raise FieldError(str(path), problem=f"not to be read: {error}") from None
