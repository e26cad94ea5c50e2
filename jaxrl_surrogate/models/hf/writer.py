"""Writes our decoder's parameters as a checkpoint that other programs load."""

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.models import families
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.families.names import HFTensor
from jaxrl_surrogate.models.forward import Params, abstract_params
from jaxrl_surrogate.models.hf.reader import Dtype
from jaxrl_surrogate.models.hf.safetensors_directory import INDEX, SINGLE, read_json

# Files of a model that do not depend on its parameters.
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


class _Tensor(NamedTuple):
    """A tensor to be written: a layer's or an expert's part of a parameter."""

    name: str
    path: tuple[str, ...]
    position: tuple[int, ...]  # in the stacks of the parameter
    tensor: HFTensor
    num_bytes: int


def save(
    directory: str | Path,
    config: DecoderConfig,
    params: Params,
    *,
    like: str | Path | None = None,
    dtype: Dtype | None = None,
    hf_config: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    max_file_bytes: int = 2**32,
) -> None:
    """Write a directory that transformers and other programs load.

    The directory gets its name when it is complete on disk. A process that is killed
    earlier leaves a partial folder with another name beside it. The host's memory holds
    the tensors of one file at a time.

    Args:
      directory: where to write; it must not exist or must be an empty directory.
      config: the decoder's config; its `compute_dtype` is not stored.
      params: the parameters, all on devices of this process.
      like: the directory of the model that this one was made from. Its config is kept
        if it describes the same decoder, and its tokenizer, chat template and
        generation config are copied. None writes the config of the first family that
        has such a decoder.
      dtype: dtype of the tensors; None keeps that of each parameter.
      hf_config: additional keys of config.json, such as max_position_embeddings.
      files: texts of additional files by name, such as README.md; they replace files
        copied from `like`.
      max_file_bytes: most bytes of tensors in a file; a larger tensor has its own file.

    Raises:
      FieldErrors: the directory exists and is not empty, the parameters do not fit the
        config, no family describes the decoder, or `like` has another decoder.
    """
    directory = Path(directory)
    if directory.is_symlink() or (
        directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))
    ):
        raise FieldError(
            "directory", str(directory), problem="something is there already",
            remedy="name another one; nothing is ever deleted",
        )  # fmt: skip
    reserved = sorted(
        name
        for name in files or {}
        if Path(name).name != name or name in ("config.json", SINGLE, INDEX)
    )
    if reserved:
        raise FieldError(
            "files", ", ".join(reserved), "names of files that a model lacks"
        )
    described, family = _described(config, like)
    tensors = _listed(config, params, family, dtype)
    described = {
        **described,
        **dict(hf_config or {}),
        "torch_dtype": str(_dtype(params, tensors[0], dtype)),
    }
    described.pop("dtype", None)  # how version 5 calls torch_dtype, which it reads too
    contents = _files(tensors, max_file_bytes)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _made_whole(directory) as folder:
        for file, content in contents.items():
            _write(folder / file, params, content, dtype)
        if len(contents) > 1:
            listed = {
                each.name: file for file, part in contents.items() for each in part
            }
            size = sum(each.num_bytes for each in tensors)
            index = {"metadata": {"total_size": size}, "weight_map": listed}
            _write_json(folder / INDEX, index)
        _write_json(folder / "config.json", described)
        if like is not None:
            for name in COPIED:
                if (Path(like) / name).is_file():
                    shutil.copyfile(Path(like) / name, folder / name)
        for name, text in (files or {}).items():
            (folder / name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _made_whole(directory: Path) -> Iterator[Path]:
    """Yield a folder that becomes `directory` on success and is deleted otherwise."""
    folder = Path(
        tempfile.mkdtemp(prefix=f".{directory.name}.unfinished-", dir=directory.parent)
    )
    try:
        yield folder
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)
            _sync(path)
        _sync(folder)
        # Fails where there is more than an empty directory, and replaces that one.
        folder.rename(directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _described(config, like):
    """Return the contents of config.json and the family that it belongs to."""
    if like is None:
        family = families.of_decoder(config)
        return family.hf_config(config), family
    described = read_json(Path(like) / "config.json")
    family = families.of_hf_config(described)
    theirs = family.config(described)
    ours = {field: getattr(config, field) for field in vars(theirs)}
    other = [
        f"{field} ({ours[field]!r}, there {value!r})"
        for field, value in vars(theirs).items()
        if value != ours[field] and field != "compute_dtype"
    ]
    if other:
        raise FieldError(
            "like", str(like),
            problem=f"describes another decoder; other are {', '.join(other)}",
        )  # fmt: skip
    return described, family


def _listed(config, params, family, dtype):
    """Return the tensors to be written, in the order of layers."""
    expected = {
        tuple(key.key for key in path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(abstract_params(config))
    }
    given = {
        tuple(key.key for key in path): leaf
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    shapes = {path: leaf.shape for path, leaf in given.items()}
    if shapes != expected:
        wrong = {
            "/".join(path)
            for path in {*shapes, *expected}
            if shapes.get(path) != expected.get(path)
        }
        raise FieldError(
            "params", ", ".join(sorted(wrong)), "the parameters of the config"
        )
    if not all(getattr(x, "is_fully_addressable", True) for x in given.values()):
        raise FieldError(
            "params", problem="they are spread over processes",
            expected="parameters on devices of this process",
        )  # fmt: skip
    found = []
    for path, tensor in family.names(config).items():
        stacks = tensor.num_stacks
        shape = expected[path]
        width = jnp.dtype(dtype or given[path].dtype).itemsize
        size = int(np.prod(shape[stacks:])) * width
        for position in itertools.product(*map(range, shape[:stacks])):
            name = tensor.stored_name(position)
            found.append(_Tensor(name, path, position, tensor, size))
    # A loader that goes through the files meets one layer after the other.
    return sorted(found, key=lambda each: each.position[:1] or (-1,))


def _files(tensors, most):
    """Return a dict from file names to the tensors in each file."""
    parts: list[list[_Tensor]] = [[]]
    for each in tensors:
        if parts[-1] and sum(t.num_bytes for t in parts[-1]) + each.num_bytes > most:
            parts.append([])
        parts[-1].append(each)
    if len(parts) == 1:
        return {SINGLE: parts[0]}
    return {
        f"model-{number:05}-of-{len(parts):05}.safetensors": part
        for number, part in enumerate(parts, 1)
    }


def _dtype(params, each, dtype):
    return jnp.dtype(dtype) if dtype else _leaf(params, each.path).dtype


def _leaf(params, path):
    for name in path:
        params = params[name]
    return params


def _write(file, params, tensors, dtype):
    from safetensors.numpy import save_file

    content = {}
    for each in tensors:
        leaf = _leaf(params, each.path)
        part = leaf[each.position] if each.position else leaf
        part = np.asarray(jax.device_get(part)).astype(_dtype(params, each, dtype))
        content[each.name] = each.tensor.stored(part)
    save_file(content, file, metadata={"format": "pt"})


def _write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
