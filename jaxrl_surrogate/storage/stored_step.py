"""Read one stored step: a tree of arrays, and a record with their digests.

    STEP/state/          the arrays, by Orbax
    STEP/meta/metadata   {"format", "meta", "arrays": digests, "frozen": digests,
                         "libraries", "metric", "seal"}

"frozen" holds digests by path of the frozen parameters that the step leaves out; only
the starting state stores these parameters.

This module writes no file and makes no Orbax `CheckpointManager`, which might. So a
step may be read while another process trains in the same directory.
"""

import functools
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.manifest import file_faults
from jaxrl_surrogate.storage.stops import DamagedCheckpoint, OtherFormat

PyTree = Any

# Raised when the format changes, so that an old checkpoint gives an error.
FORMAT = 3

_MAX_NAMED = 5
_LIBRARIES = ("jaxrl_surrogate", "jax", "jaxlib", "optax", "orbax-checkpoint", "numpy")


def stored_steps(directory: Path) -> list[int]:
    """Return the steps that are complete in a directory, ascending.

    A directory of Orbax that is incomplete has a name that is not a number.
    """
    names = (path.name for path in directory.glob("*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def make_record(
    state: PyTree,
    meta: dict,
    metric: float | None,
    found: Mapping[str, str] | None = None,
    frozen: Mapping[str, str] | None = None,
) -> dict:
    """Return the record that is stored with the arrays of a step.

    Its field "seal" is a digest of all other fields.

    Args:
      state: the arrays.
      meta: JSON values.
      metric: the metric of the step; None if it has none.
      found: `digests.device_digests` of the arrays by name; None means to compute the
        digests here.
      frozen: digests by path of frozen parameters that the step leaves out.
    """
    if found is None:
        arrays = _array_digests(state)
    else:
        arrays = {name: f"device:{digest}" for name, digest in found.items()}
    record = {"format": FORMAT, "meta": meta, "arrays": arrays}
    record["frozen"] = dict(frozen or {})
    record["libraries"] = _versions()
    record["metric"] = metric
    record["seal"] = digests.json_digest(record)
    return record


def read_step(
    where: Path, abstract: PyTree, *, part: bool = False
) -> tuple[PyTree, dict]:
    """Read the tree and the meta of one step.

    Args:
      where: the directory of the step.
      abstract: the tree that was saved, see `RunCheckpoints.restore_update`.
      part: whether to read only the arrays of `abstract`, which may then be a part of
        the tree that was saved. The other arrays are not read.

    Raises:
      DamagedCheckpoint: the step differs from what was saved, or was deleted meanwhile.
      OtherFormat: the step has the format of another version.
      ValueError: names, shapes or dtypes differ (each named).
    """
    try:
        faults = file_faults(where)
    except FileNotFoundError as error:
        faults = [f"{error.filename} is missing"]
    if faults:
        raise DamagedCheckpoint("; ".join(faults[:_MAX_NAMED]))
    record = read_record(where)
    handler = ocp.PyTreeCheckpointHandler()
    try:
        saved = handler.metadata(where / "state").tree
    except Exception as error:  # the type depends on the library that finds the damage
        raise DamagedCheckpoint(f"{where}/state: {first_line(error)}") from error
    _check_fit(where, saved, abstract, part)
    item = jax.tree.map(_placed, abstract)
    args = ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=part,
    )
    try:
        state = handler.restore(where / "state", args=args)
    except Exception as error:
        raise DamagedCheckpoint(
            f"{where}: its arrays cannot be read: {first_line(error)}"
        ) from error
    found = _array_digests(state, record["arrays"])
    _check_digests(where, record["arrays"], found)
    return state, record["meta"]


@functools.cache  # reading the versions takes as long as storing a rollout
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _LIBRARIES}


def first_line(error: Exception) -> str:
    """Return the type and the first line of an error, at most 300 characters."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def read_record(where: Path) -> dict:
    """Return the record of a step after checking its format and its seal.

    Raises:
      DamagedCheckpoint: the record cannot be read or is not the one that was saved.
      OtherFormat: the record has the format of another version.
    """
    try:
        record = json.loads((where / "meta" / "metadata").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{where}: its record cannot be read: {first_line(error)}"
        ) from error
    if not isinstance(record, dict) or "format" not in record:
        raise DamagedCheckpoint(f"{where}/meta holds no record of a checkpoint")
    if record["format"] != FORMAT:
        version = record.get("libraries", {}).get("jaxrl_surrogate", "of before")
        raise OtherFormat(
            f"{where}: has checkpoint format {record['format']}, which this version "
            f"does not read; expected {FORMAT}. Go on with the version that wrote it, "
            f"jaxrl_surrogate {version} at the commit that the run's environment.json "
            "names, or begin another run"
        )
    if record.pop("seal", None) != digests.json_digest(record):
        raise DamagedCheckpoint(f"{where}/meta holds another record than was saved")
    return record


def _check_digests(where: Path, saved: dict[str, str], found: dict[str, str]) -> None:
    wrong = [name for name, digest in found.items() if saved[name] != digest]
    if wrong:
        raise DamagedCheckpoint(
            f"{where}/state: {', '.join(wrong[:_MAX_NAMED])} came back with other "
            "bits than were saved"
        )


def _array_digests(tree: PyTree, kinds: dict[str, str] | None = None) -> dict[str, str]:
    """Return a digest of every leaf by name, as "device:..." or "host:...".

    Args:
      tree: jax and NumPy arrays.
      kinds: stored digests, whose prefix decides between `device_digests` and
        `host_digest`. With None, jax arrays have device and NumPy arrays host digests.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
    out, on_device = {}, {}
    for name, leaf in leaves.items():
        host = not isinstance(leaf, jax.Array)
        if kinds is not None:
            host = kinds[name].startswith("host:")
        if host:
            out[name] = f"host:{digests.host_digest(leaf)}"
        else:
            on_device[name] = leaf
    found = digests.device_digests(list(on_device.values()))
    out |= {n: f"device:{f}" for n, f in zip(on_device, found, strict=True)}
    return {name: out[name] for name in leaves}


def _placed(leaf):
    """Return the leaf to restore into: a NumPy array, or a shape with a sharding."""
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_fit(where: Path, saved: PyTree, abstract: PyTree, part: bool) -> None:
    """Check that names, shapes and dtypes are those saved; Orbax would cast dtypes."""
    saved, expected = _signature(saved), _signature(abstract)
    if part:
        saved = {name: saved[name] for name in expected if name in saved}
    wrong = [
        f"{name}: {_text(saved.get(name))} in the checkpoint, "
        f"{_text(expected.get(name))} expected"
        for name in sorted(saved.keys() | expected.keys())
        if saved.get(name) != expected.get(name)
    ]
    if wrong:
        more = len(wrong) - _MAX_NAMED
        tail = f"; and {more} more" if more > 0 else ""
        raise ValueError(
            f"{where} holds another state: {'; '.join(wrong[:_MAX_NAMED])}{tail}. "
            "Restore with the model and optimizer it was saved with"
        )


def _signature(tree: PyTree) -> dict[str, tuple]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            tuple(leaf.shape),
            str(np.dtype(leaf.dtype)),
        )
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _text(signature: tuple | None) -> str:
    return "absent" if signature is None else f"{signature[1]}{list(signature[0])}"
