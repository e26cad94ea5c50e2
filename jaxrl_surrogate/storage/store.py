"""One sequence of checkpoints: a tree of arrays and JSON under each step, by Orbax."""

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
_ROOM_BESIDES = 4 << 20  # bytes of a save that are not arrays, and of the logs


class Store:
    """One sequence of checkpoints: a tree of arrays and JSON under each step."""

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
                # Numbers of a model hardly shrink (8%), and the compressor takes
                # twice the time that writing them does.
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
        """Copy what is needed and return; see `RunCheckpoints.save_update`."""
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
            force=True,  # which steps to save is the caller's decision alone
        )
        # Hashing takes time, and other hosts' files come late: one process's alone.
        if jax.process_count() == 1:
            self._writer.start(self.path(step))

    def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, dict]:
        """See `RunCheckpoints.restore_update`."""
        steps = self.steps()
        if step not in steps:
            raise ValueError(
                f"step={step}: not in {self._directory}, which has {steps or 'none'}"
            )
        return read_step(self.path(step), abstract)

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

    def set_aside(self, step: int, where: Path) -> None:
        """Move a step and its manifest out of the way, under a name that is free."""
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
        """The directory of a step."""
        return self._directory / str(step)

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
        """Remove checkpoints that are off the list; called with no save in flight."""
        if jax.process_index() == 0:
            shutil.rmtree(self._directory / _TRASH, ignore_errors=True)
            for path in self._directory.glob("*.files.json"):
                if not (self._directory / path.name.partition(".")[0]).is_dir():
                    path.unlink(missing_ok=True)
