"""Reads published checkpoints as parameters of our decoder."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.models import families
from jaxrl_surrogate.models.config import DecoderConfig
from jaxrl_surrogate.models.families.names import HFTensor
from jaxrl_surrogate.models.forward import Params, abstract_params
from jaxrl_surrogate.models.hf.gguf_file import GGUFFile
from jaxrl_surrogate.models.hf.safetensors_directory import SafetensorsDirectory
from jaxrl_surrogate.models.hf.source import Index, TensorSource

Dtype = Literal["float32", "bfloat16", "float16"]

# Tensors that some checkpoints carry, and that follow from the config.
_DERIVED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_EXPONENT = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
# How many numbers are checked at a time, which bounds the memory of the check.
_CHUNK = 2**20


class _Parameter(NamedTuple):
    """A parameter of ours and where it is stored."""

    shape: tuple[int, ...]
    dtype: np.dtype
    tensor: HFTensor


def open_source(path: str | Path) -> TensorSource:
    """Open a checkpoint without reading tensors.

    Args:
      path: a directory with config.json and safetensors, or a GGUF file.

    Raises:
      FieldErrors: there is no checkpoint, or it is invalid; one for each problem.
    """
    path = Path(path)
    if path.is_dir():
        return SafetensorsDirectory(path)
    if path.suffix == ".gguf" and path.is_file():
        return GGUFFile(path)
    raise FieldError(
        "path", str(path),
        "a directory with config.json and safetensors, or a .gguf file",
    )  # fmt: skip


def read_config(path: str | Path) -> DecoderConfig:
    """Return the config of a checkpoint's decoder without reading tensors.

    Args:
      path: as for `load`.

    Raises:
      FieldErrors: see `load`.
    """
    source = open_source(path)
    return families.of_hf_config(source.hf_config).config(source.hf_config)


def load(
    path: str | Path,
    *,
    dtype: Dtype | None = None,
    shardings: Callable[[DecoderConfig], Any] | None = None,
) -> tuple[DecoderConfig, Params]:
    """Read a published checkpoint.

    Parameters are read one after the other, and for each device only its own shard. The
    host therefore needs memory for one device's shard of one parameter, in addition to
    what its devices hold.

    Args:
      path: a directory with config.json and safetensors, in one file or several; or a
        GGUF file of a Llama, whose tensors become float32.
      dtype: dtype of the parameters; None keeps the stored one, or the wider one if the
        layers of a parameter differ.
      shardings: function from the config to a tree of the structure of `init_params`
        with the sharding of each parameter; None puts all on the first device.

    Returns:
      The decoder's config, with compute_dtype float32, and its parameters.

    Raises:
      FieldErrors: before any tensor is read, one for each invalid key of the config and
        for each tensor that is missing, unknown, of another shape or of a dtype that is
        no float; afterwards, one for each tensor with numbers that are not finite.
    """
    source = open_source(path)
    config, parameters = _matched(source)
    placed = None if shardings is None else shardings(config)
    params: Params = {}
    not_finite: set[str] = set()
    for where, parameter in parameters.items():
        *parents, last = where
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        if placed is not None:
            sharding = _at(placed, where)
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        kept = parameter.dtype if dtype is None else jnp.dtype(dtype)
        node[last] = _array(source, parameter, kept, sharding, not_finite)
    if not_finite:
        raise FieldErrors(
            FieldError(str(path), name, "finite numbers", problem="it holds NaN or inf")
            for name in sorted(not_finite)
        )
    return config, params


def _matched(source: TensorSource) -> tuple[DecoderConfig, dict]:
    """Return the config and where each parameter is stored, or raise all errors."""
    errors: list[FieldErrors] = []
    unreadable = {
        name: FieldError(name, stored.dtype, "F32, F16 or BF16", problem="its dtype")
        for name, stored in source.tensors.items()
        if source.dtype(name) is None and not _DERIVED.fullmatch(name)
    }
    try:
        family = families.of_hf_config(source.hf_config)
        config = family.config(source.hf_config)
        names = family.names(config)
        _expect_so_many(source, config, names)
    except FieldErrors as error:
        raise FieldErrors([error, *unreadable.values()]) from None
    abstract = abstract_params(config)
    found, used = {}, set()
    for where, tensor in names.items():
        shape = _at(abstract, where).shape
        expected = tensor.stored_shape(shape[tensor.num_stacks :])
        stored = list(_stored_names(tensor, shape))
        used.update(stored)
        missing = [name for name in stored if name not in source.tensors]
        wrong = {
            source.tensors[name].shape
            for name in stored
            if name in source.tensors and source.tensors[name].shape != expected
        }
        if missing:
            errors.append(FieldError(_grouped(missing), problem="missing"))
        if wrong:
            shapes = ", ".join(map(str, sorted(wrong)))
            errors.append(FieldError(tensor.name, shapes, f"shape {expected}"))
        dtypes = {source.dtype(name) for name in stored if name in source.tensors}
        if not errors and None not in dtypes:
            dtype = jnp.result_type(*dtypes)
            found[where] = _Parameter(shape, dtype, tensor)
    extra = {
        name
        for name in source.tensors
        if name not in used and not _DERIVED.fullmatch(name)
    }
    if config.tie_embeddings and _HEAD in extra and not errors and not unreadable:
        extra.remove(_HEAD)
        errors += _untied(source)
    groups: dict[str, list[str]] = {}
    for name in sorted(extra):
        groups.setdefault(re.sub(r"\.\d+\.", ".*.", name), []).append(name)
    errors += [
        FieldError(_grouped(names), problem="this family has no such tensor")
        for names in groups.values()
    ]
    errors += unreadable.values()
    if errors:
        raise FieldErrors(errors)
    return config, found


def _expect_so_many(source, config, names):
    """Raise an error if a config needs many more tensors than the checkpoint has."""
    stacks = {0: 1, 1: config.num_layers, 2: config.num_layers * config.num_experts}
    expected = sum(stacks[tensor.num_stacks] for tensor in names.values())
    if expected > 2 * len(source.tensors) + 1000:
        raise FieldError(
            "num_hidden_layers", config.num_layers,
            f"a config of the {len(source.tensors)} tensors that the files hold",
            problem=f"it asks for {expected} tensors",
        )  # fmt: skip


def _untied(source):
    """Yield an error if a tied head is stored and differs from the embedding."""
    stored, embedding = source.tensors[_HEAD], source.tensors[_EMBEDDING]
    same = stored == embedding
    rows = max(1, _CHUNK // max(1, embedding.shape[-1]))
    for start in range(0, embedding.shape[0] if same else 0, rows):
        part = (slice(start, min(start + rows, embedding.shape[0])), slice(None))
        pair = (source.read(name, part) for name in (_HEAD, _EMBEDDING))
        same = same and np.array_equal(*(each.view(np.uint8) for each in pair))
    if not same:
        yield FieldError(
            _HEAD, problem=f"it differs from {_EMBEDDING}, and the config ties them"
        )


def _stored_names(tensor: HFTensor, shape: tuple[int, ...]) -> Iterator[str]:
    stacks = [range(size) for size in shape[: tensor.num_stacks]]
    for position in itertools.product(*stacks):
        yield tensor.stored_name(position)


def _grouped(names):
    """Return the first name as text, with the number of the others."""
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} like it"


def _array(source, parameter, dtype, sharding, not_finite):
    """Read a parameter as a sharded array; each distinct shard is read once."""
    shape, _, tensor = parameter
    parts: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = tuple(
            part.indices(size)[:2] for part, size in zip(index, shape, strict=True)
        )
        parts.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in parts.items():
        index = tuple(slice(start, stop) for start, stop in bounds)
        host = _part(source, shape, dtype, tensor, index, not_finite)
        arrays += [jax.device_put(host, device) for device in devices]
        jax.block_until_ready(arrays)
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _part(source, shape, dtype, tensor, index, not_finite):
    """Read a slice of a parameter from slices of the stored tensors."""
    stacks, inner = index[: tensor.num_stacks], index[tensor.num_stacks :]
    part = np.empty([i.stop - i.start for i in index], dtype)
    for position in itertools.product(*(range(i.start, i.stop) for i in stacks)):
        name = tensor.stored_name(position)
        block, finite = _block(source, name, tensor, shape[tensor.num_stacks :], inner)
        if not finite:
            not_finite.add(name)
        at = tuple(p - i.start for p, i in zip(position, stacks, strict=True))
        part[at] = block
    return part


def _block(source, name, tensor: HFTensor, shape: tuple[int, ...], index: Index):
    """Read a slice of one stored tensor with our axes; also tell if it is finite.

    If a stored axis merges several of our axes, all but the slowest are read whole.
    """
    stored_index, sizes, rest = [], [], list(index)
    for slowest, *others in tensor.axes:
        width = math.prod(shape[axis] for axis in others)
        part = index[slowest]
        stored_index.append(slice(part.start * width, part.stop * width))
        sizes += [part.stop - part.start, *(shape[axis] for axis in others)]
        rest[slowest] = slice(None)
    block = source.read(name, tuple(stored_index))
    finite = _all_finite(block)
    return block.reshape(sizes).transpose(np.argsort(tensor.order))[tuple(rest)], finite


def _all_finite(block: np.ndarray) -> bool:
    """Return whether no number is NaN or infinite (whose exponent bits are all 1).

    The bits are compared because NumPy checks bfloat16 numbers one by one.
    """
    bits = block.reshape(-1).view(f"u{block.itemsize}")
    exponent = bits.dtype.type(_EXPONENT[block.dtype.name])
    parts = np.array_split(bits, max(1, bits.size // _CHUNK))
    return not any(((part & exponent) == exponent).any() for part in parts)


def _at(tree: Mapping, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree
