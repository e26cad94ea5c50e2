"""One sequence of checkpoints: Orbax stores arrays and JSON values for each step."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.storage import orbax_noise
from jaxrl_surrogate.storage.manifest import ManifestWriter, manifest_path
from jaxrl_surrogate.storage.stops import NoRoom, no_room
from jaxrl_surrogate.storage.stored_step import make_record, read_step

PyTree = Any

_TRASH = "deleted"
_ROOM_BESIDES = 4 << 20  # bytes for the logs and the files of a save beside its arrays


class Store:
    """One sequence of checkpoints: a tree of arrays and JSON values for each step."""

    def __init__(
        self,
        directory: Path,
        preserve: checkpoint_managers.PreservationPolicy | None,
    ):
        orbax_noise.mute()
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
                # Compression makes the arrays of a model only 8% smaller, and takes
                # twice the time of writing them.
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )
        self._empty_trash()

    def save(
        self,
        step: int,
        state: PyTree,
        meta: dict,
        metric: float | None = None,
        digests: Mapping[str, str] | None = None,
        frozen: Mapping[str, str] | None = None,
    ) -> None:
        """Start a save and return before it ends; see `RunCheckpoints.save_update`."""
        if step in self.steps():
            raise ValueError(f"step={step}: is stored in {self._directory} already")
        try:
            json.dumps(meta)
        except (TypeError, ValueError) as error:
            raise ValueError(f"meta: expected JSON values, but {error}") from error
        self._empty_trash()
        self._check_room(step, state)
        record = make_record(state, meta, metric, digests, frozen)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(record)
            ),
            force=True,  # the caller alone decides which steps to save
        )
        # Only a run of one process has manifests: files of other hosts may appear late.
        if jax.process_count() == 1:
            self._writer.start(self.path(step))

    def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, dict]:
        """Read the tree and meta of a step; see `RunCheckpoints.restore_update`."""
        steps = self.steps()
        if step not in steps:
            raise ValueError(
                f"step={step}: not in {self._directory}, which has {steps or 'none'}"
            )
        return read_step(self.path(step), abstract)

    def _check_room(self, step: int, state: PyTree) -> None:
        """Raise `NoRoom` before a save that does not fit on the disk."""
        if jax.process_count() > 1:
            return  # the free space of a shared file system is not reliable
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

    def set_aside(self, step: int, where: Path) -> None:
        """Move a step and its manifest to the folder `where`, under an unused name."""
        if hosts.is_first():
            source = self.path(step)
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

    def path(self, step: int) -> Path:
        """Return the directory of a step."""
        return self._directory / str(step)

    def steps(self) -> list[int]:
        """Return the steps on disk, ascending; waits for a save in progress."""
        self.wait()
        return self.known_steps()

    def known_steps(self) -> list[int]:
        """Return the steps on disk and the one being saved, if any, ascending."""
        return sorted(self._manager.all_steps())

    def delete(self, steps: list[int]) -> None:
        """Remove steps, first from the list of steps and then their files."""
        for step in steps:
            self._manager.delete(step)
        if steps:
            self._empty_trash()

    def wait(self) -> None:
        """Wait until all saves are on disk; raise the error of a save that failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            reason = no_room(error)
            if reason is None:
                raise
            raise NoRoom(
                f"{self._directory}: {reason}; the checkpoints before are intact. Make "
                "room and start again"
            ) from error
        self._writer.finish()

    def close(self) -> None:
        """Stop the background threads."""
        self._empty_trash()
        self._writer.finish()
        self._manager.close()

    def _empty_trash(self) -> None:
        """Remove files of deleted checkpoints; no save may be in progress."""
        if jax.process_index() == 0:
            shutil.rmtree(self._directory / _TRASH, ignore_errors=True)
            for path in self._directory.glob("*.files.json"):
                if not (self._directory / path.name.partition(".")[0]).is_dir():
                    path.unlink(missing_ok=True)
