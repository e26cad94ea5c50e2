"""One sequence of checkpoints: a tree of arrays and JSON under each step, by Orbax."""

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.training import digests
from jaxrl_surrogate.training.manifest import (
    ManifestWriter,
    file_faults,
    manifest_path,
)
from jaxrl_surrogate.training.stops import DamagedCheckpoint, NoRoom

PyTree = Any

# Goes up when the layout changes, so that an old checkpoint is named, not misread.
FORMAT = 2

_TRASH = "deleted"
_MAX_NAMED = 5
_ROOM_BESIDES = 4 << 20  # bytes of a save that are not arrays, and of the logs
_LIBRARIES = ("jaxrl_surrogate", "jax", "jaxlib", "optax", "orbax-checkpoint", "numpy")


class Store:
    """A directory with a checkpoint under each step."""

    """One sequence of checkpoints: a tree of arrays and JSON under each step."""

    def __init__(
        self,
        directory: Path,
        preserve: checkpoint_managers.PreservationPolicy | None,
    ):
        self._directory = directory
        self._writer = ManifestWriter()
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preserve,
                cleanup_tmp_directories=True,
                todelete_subdir=_TRASH,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )
        self._empty_trash()

    def save(
        self, step: int, state: PyTree, meta: dict, metric: float | None = None
    ) -> None:
        """Copy what is needed and return; see `RunCheckpoints.save_update`."""
        steps = self.steps()
        if steps and step <= steps[-1]:
            raise ValueError(
                f"step={step}: expected a step after {steps[-1]}, the newest in "
                f"{self._directory}"
            )
        try:
            json.dumps(meta)
        except (TypeError, ValueError) as error:
            raise ValueError(f"meta: expected JSON values, but {error}") from error
        self._empty_trash()
        self._check_room(step, state)
        record = {"format": FORMAT, "meta": meta, "arrays": _array_digests(state)}
        record["libraries"] = {name: metadata.version(name) for name in _LIBRARIES}
        record["metric"] = metric
        record["seal"] = _seal(record)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
            ),
            force=True,  # which steps to save is the caller's decision alone
        )
        # Hashing takes time, and other hosts' files come late: one process's alone.
        if jax.process_count() == 1:
            self._writer.start(self._directory / str(step))

    def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, dict]:
        """See `RunCheckpoints.restore_update`."""
        steps = self.steps()
        if step not in steps:
            raise ValueError(
                f"step={step}: not in {self._directory}, which has {steps or 'none'}"
            )
        where = self._directory / str(step)
        faults = file_faults(where)
        if faults:
            raise DamagedCheckpoint("; ".join(faults[:_MAX_NAMED]))
        record = self._read(step, "its record", meta=ocp.args.JsonRestore())["meta"]
        if not isinstance(record, dict) or "format" not in record:
            raise DamagedCheckpoint(f"{where}/meta holds no record of a checkpoint")
        if record["format"] != FORMAT:
            raise ValueError(
                f"{where}: checkpoint format {record['format']}, this version reads "
                f"{FORMAT}"
            )
        if record.pop("seal", None) != _seal(record):
            raise DamagedCheckpoint(f"{where}/meta holds another record than was saved")
        try:
            saved = self._manager.item_metadata(step)["state"].tree
        except Exception as error:
            raise DamagedCheckpoint(f"{where}/state: {_first_line(error)}") from error
        _check_fit(where, saved, abstract)
        args = ocp.args.StandardRestore(jax.tree.map(_placed, abstract))
        state = self._read(step, "its arrays", state=args)["state"]
        found = _array_digests(state, record["arrays"])
        wrong = [name for name, old in record["arrays"].items() if found[name] != old]
        if wrong:
            raise DamagedCheckpoint(
                f"{where}/state: {', '.join(wrong[:_MAX_NAMED])} came back with other "
                "bits than were saved"
            )
        return state, record["meta"]

    def _check_room(self, step: int, state: PyTree) -> None:
        """Refuse a save that does not fit: half of it would only use up the rest."""
        if jax.process_count() > 1:
            return  # shared file systems report room that is not this run's
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _ROOM_BESIDES
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            newest = max(self.known_steps(), default=None)
            have = (
                "none is stored yet" if newest is None else f"step {newest} is intact"
            )
            needed, free = (round(size / 2**20) for size in (needed, free))
            raise NoRoom(
                f"{self._directory}: no room to store step {step}: {needed} MiB are "
                f"needed and {free} MiB free; {have}. Make room, or lower "
                "checkpoint.keep_last, and start again"
            )

    def _read(self, step: int, what: str, **args: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # of whatever library meets the damage
            raise DamagedCheckpoint(
                f"{self._directory / str(step)}: {what} cannot be read: "
                f"{_first_line(error)}"
            ) from error

    def set_aside(self, step: int, where: Path) -> None:
        """Move a step and its manifest out of the way, under a name that is free."""
        if hosts.is_first():
            source = self._directory / str(step)
            where.mkdir(exist_ok=True)
            name, number = f"{self._directory.name}-{step}", 0
            while (where / name).exists():
                number += 1
                name = f"{self._directory.name}-{step}-{number}"
            source.rename(where / name)
            if manifest_path(source).exists():
                manifest_path(source).rename(manifest_path(where / name))
        hosts.wait_for_all("set aside")
        self._manager.reload()

    def steps(self) -> list[int]:
        """Steps on disk, ascending; waits for one in flight."""
        self.wait()
        return self.known_steps()

    def known_steps(self) -> list[int]:
        """Steps on disk and the one in flight, if any."""
        return sorted(self._manager.all_steps())

    def delete(self, steps: list[int]) -> None:
        """Remove steps from the list, then their files."""
        for step in steps:
            self._manager.delete(step)
        if steps:
            self._empty_trash()

    def wait(self) -> None:
        """Return when all is on disk. Raises what a save in flight failed of."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
                raise NoRoom(
                    f"{self._directory}: {_first_line(error)}; the checkpoints before "
                    "are intact. Make room and start again"
                ) from error
            raise
        self._writer.finish()

    def close(self) -> None:
        """Stop the background threads."""
        self._empty_trash()
        self._writer.finish()
        self._manager.close()

    def _empty_trash(self) -> None:
        """Remove checkpoints that are off the list; called with no save in flight."""
        if jax.process_index() == 0:
            shutil.rmtree(self._directory / _TRASH, ignore_errors=True)
            for path in self._directory.glob("*.files.json"):
                if not (self._directory / path.name.partition(".")[0]).is_dir():
                    path.unlink(missing_ok=True)


def _array_digests(tree: PyTree, kinds: dict[str, str] | None = None) -> dict[str, str]:
    """A digest of every leaf, taken where it is: "device:..." or "host:...".

    Args:
      tree: of jax and NumPy arrays.
      kinds: digests to compare with, whose kind decides; None: by where a leaf is.
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


def _seal(record: dict) -> str:
    """SHA-256 of a record as JSON; what is read back has the same."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _placed(leaf):
    """A leaf to restore into: NumPy stays NumPy, everything else has a sharding."""
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_fit(where: str, saved: PyTree, abstract: PyTree) -> None:
    """Refuse a tree that is not the one saved; Orbax alone would cast its dtypes."""
    saved, expected = _signature(saved), _signature(abstract)
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
