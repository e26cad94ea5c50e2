"""Checkpoints of a run, by Orbax: one store for each phase of a step.

    DIRECTORY/update/STEP/    after the update of STEP: the train state and its meta
    DIRECTORY/rollout/STEP/   after the rollout of STEP: the batch and its meta

A run resumes from the newest update, and a step whose rollout is on disk starts at its
verification or update, with the completions that were paid for.

**Atomic.** Orbax writes into a temporary directory and renames it when every file is
there; a checkpoint to be deleted is first renamed out of the list. A process killed at
any moment leaves whole checkpoints under the names of steps, and nothing else there.

**Durable when.** Both saves copy what they need and return; files are written by a
background thread, so donating the state to the next step is safe. `save_update` first
waits for the rollout before it, and `save_rollout` for the update before it: at most
one phase is in flight, and the rollout of a step is on disk before its update can be.
`wait` makes everything durable. Rollouts that an update on disk supersedes are deleted
by the next `save_rollout`, `wait` or `close`. Files are not synced to the medium: a
checkpoint survives the death of the process, not always that of the machine.

**Several processes** call every function together, on a directory all of them see.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

PyTree = Any

# Goes up when the layout changes, so that an old checkpoint is named, not misread.
FORMAT = 1

_TRASH = "deleted"
_MAX_NAMED = 5


class RunCheckpoints:
    """The checkpoints of one run directory."""

    def __init__(
        self, directory: str | Path, *, keep_last: int = 3, keep_every: int = 0
    ):
        """Open a store, creating it and clearing what a killed process half wrote.

        Args:
          directory: where the two stores live; made absolute.
          keep_last: newest updates that are kept.
          keep_every: updates whose step is a multiple are kept for good; 0: none.

        Raises:
          ValueError: naming the argument.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last}: expected at least 1")
        if keep_every < 0:
            raise ValueError(f"keep_every={keep_every}: expected 0 (none) or more")
        policies = [checkpoint_managers.LatestN(keep_last)]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        directory = Path(directory).absolute()
        self._updates = _Store(
            directory / "update", checkpoint_managers.AnyPreservationPolicy(policies)
        )
        self._rollouts = _Store(directory / "rollout", None)

    def save_update(self, step: int, state: PyTree, meta: dict) -> None:
        """Save the train state after the update of `step`.

        Args:
          step: later than every update saved so far.
          state: tree of jax or NumPy arrays; may be donated once this returns. PRNG
            keys go as integers or not at all: they follow from the seed.
          meta: JSON values (tuples come back as lists).

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        self._rollouts.wait()
        self._updates.save(step, state, meta)

    def save_rollout(self, step: int, batch: PyTree, meta: dict) -> None:
        """Save the batch after the rollout phase of `step`.

        Args:
          step: later than every update and rollout on disk.
          batch: tree of jax or NumPy arrays.
          meta: JSON values.

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        newest = self.latest_update()
        if newest is not None and step <= newest:
            raise ValueError(
                f"step={step}: expected a step after {newest}, whose update is saved"
            )
        self._prune_rollouts()
        self._rollouts.save(step, batch, meta)

    def latest_update(self) -> int | None:
        """The newest step whose update is on disk, or None; waits for one in flight."""
        return max(self._updates.steps(), default=None)

    def update_steps(self) -> list[int]:
        """Steps whose update is on disk, ascending; waits for one in flight."""
        return self._updates.steps()

    def rollout_steps(self) -> list[int]:
        """Steps after the newest update whose rollout is on disk, ascending.

        An update in flight counts as saved and is not waited for, so that a loop may
        ask at the start of every step.
        """
        newest = max(self._updates.known_steps(), default=-1)
        return [step for step in self._rollouts.steps() if step > newest]

    def restore_update(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict]:
        """Read the state saved after the update of `step`.

        Args:
          step: one of `update_steps`.
          abstract_state: the tree that was saved, with `jax.ShapeDtypeStruct` leaves. A
            leaf is placed by its sharding, whatever mesh wrote it, or on the first
            device if it has none; a NumPy array as leaf is restored as one.

        Returns:
          The state and its meta.

        Raises:
          ValueError: no such step, or names, shapes or dtypes differ (each named).
        """
        return self._updates.restore(step, abstract_state)

    def restore_rollout(self, step: int, abstract_batch: PyTree) -> tuple[PyTree, dict]:
        """Read the batch saved after the rollout of `step`; see `restore_update`."""
        return self._rollouts.restore(step, abstract_batch)

    def wait(self) -> None:
        """Return when all saves are on disk. Raises what a save in flight failed of."""
        self._updates.wait()
        self._rollouts.wait()
        self._prune_rollouts()

    def close(self) -> None:
        """Wait, then stop the background threads."""
        self.wait()
        self._updates.close()
        self._rollouts.close()

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _prune_rollouts(self) -> None:
        newest = self.latest_update()
        if newest is not None:
            self._rollouts.delete([s for s in self._rollouts.steps() if s <= newest])


class _Store:
    """One sequence of checkpoints: a tree of arrays and JSON under each step."""

    def __init__(
        self,
        directory: Path,
        preserve: checkpoint_managers.PreservationPolicy | None,
    ):
        self._directory = directory
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

    def save(self, step: int, state: PyTree, meta: dict) -> None:
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
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                meta=ocp.args.JsonSave({"format": FORMAT, "meta": meta}),
            ),
            force=True,  # which steps to save is the caller's decision alone
        )

    def restore(self, step: int, abstract: PyTree) -> tuple[PyTree, dict]:
        steps = self.steps()
        if step not in steps:
            raise ValueError(
                f"step={step}: not in {self._directory}, which has {steps or 'none'}"
            )
        meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )["meta"]
        where = f"{self._directory}/{step}"
        if meta.get("format") != FORMAT:
            raise ValueError(
                f"{where}: checkpoint format {meta.get('format')}, this version reads "
                f"{FORMAT}"
            )
        _check_fit(where, self._manager.item_metadata(step)["state"].tree, abstract)
        args = ocp.args.StandardRestore(jax.tree.map(_placed, abstract))
        restored = self._manager.restore(step, args=ocp.args.Composite(state=args))
        return restored["state"], meta["meta"]

    def steps(self) -> list[int]:
        self.wait()
        return self.known_steps()

    def known_steps(self) -> list[int]:
        """Steps on disk and the one in flight, if any."""
        return sorted(self._manager.all_steps())

    def delete(self, steps: list[int]) -> None:
        for step in steps:
            self._manager.delete(step)
        if steps:
            self._empty_trash()

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._empty_trash()
        self._manager.close()

    def _empty_trash(self) -> None:
        """Remove checkpoints that are off the list; called with no save in flight."""
        if jax.process_index() == 0:
            shutil.rmtree(self._directory / _TRASH, ignore_errors=True)


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
