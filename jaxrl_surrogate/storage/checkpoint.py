"""Checkpoints of a run, written with Orbax: one store for each phase of a step.

    DIRECTORY/update/STEP/    after the update of STEP: the train state and its meta
    DIRECTORY/rollout/STEP/   after the rollout of STEP: the batch and its meta

"Meta" is a dict of JSON values. A run resumes from the newest update. A step whose
rollout is on disk continues with its verification or update and reuses the completions.

**Atomicity.** Orbax writes into a temporary directory and renames it when every file is
there. A checkpoint to be deleted is first renamed. So a process that is killed at any
moment leaves only complete checkpoints under the names of steps.

**Durability.** Both saves copy what they need and return; a background thread writes
the files, so the next step may donate the state. `save_update` first waits for the
rollout before it, and `save_rollout` for the update before it. So at most one save is
in progress, and the rollout of a step is on disk before its update can be. `wait`
returns when all saves are on disk. Rollouts of steps whose update is on disk are
deleted by the next `save_rollout`, `wait` or `close`. Files are not synced to the disk:
a checkpoint survives a crash of the process, but not always a crash of the machine.

**Integrity.** A digest of every array is computed before a save and stored with the
arrays. A restore computes the digests again, and never returns a state that differs
from the one that was saved. A manifest of the files (`manifest`) is checked first, so
that the error can name a damaged file. `newest_update` and `sound_rollout` move damaged
checkpoints to DIRECTORY/damaged/ and go on without them.

**Several processes** must call every function together, on a directory that all share.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import checkpoint_managers

from jaxrl_surrogate.storage.keep_best import KeepBest
from jaxrl_surrogate.storage.stops import DamagedCheckpoint
from jaxrl_surrogate.storage.store import Store

PyTree = Any


class RunCheckpoints:
    """The checkpoints of one run directory."""

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int = 3,
        keep_every: int = 0,
        keep_best: int = 0,
        lowest_is_best: bool = False,
    ):
        """Open or create the two stores, and delete incomplete files of killed saves.

        Args:
          directory: the folder of the two stores.
          keep_last: the number of newest updates to keep.
          keep_every: updates whose step is a multiple of this are kept for good; 0
            keeps none.
          keep_best: the number of updates with the best metrics to keep; 0 keeps none.
          lowest_is_best: whether the lowest metric is best, not the highest.

        Raises:
          ValueError: an argument is out of range; the message names it.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last}: expected at least 1")
        if keep_every < 0:
            raise ValueError(f"keep_every={keep_every}: expected 0 (none) or more")
        if keep_best < 0:
            raise ValueError(f"keep_best={keep_best}: expected 0 (none) or more")
        directory = Path(directory).absolute()
        policies = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            best = KeepBest(directory / "update", keep_best, lowest_is_best)
            policies.append(best)
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._damaged = directory / "damaged"
        self._updates = Store(
            directory / "update", checkpoint_managers.AnyPreservationPolicy(policies)
        )
        self._rollouts = Store(directory / "rollout", None)

    def save_update(
        self,
        step: int,
        state: PyTree,
        meta: dict,
        metric: float | None = None,
        digests: Mapping[str, str] | None = None,
        frozen: Mapping[str, str] | None = None,
    ) -> None:
        """Save the train state after the update of `step`.

        Args:
          step: later than every update saved so far.
          state: tree of jax or NumPy arrays; it may be donated once this returns. It
            cannot hold typed PRNG keys, and need not: they follow from the seed.
          meta: JSON values (tuples are restored as lists).
          metric: the value that `keep_best` compares; None if the step has none.
          digests: digests of the state's arrays by name (`digests.state_digests`);
            None means to compute them here.
          frozen: digests by path of frozen parameters that `state` leaves out.
            `StateReader` reads these parameters from the starting state and compares.

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        self._rollouts.wait()
        self._check_is_new(step)
        self._updates.save(step, state, meta, metric, digests, frozen)

    def save_rollout(self, step: int, batch: PyTree, meta: dict) -> None:
        """Save the batch after the rollout phase of `step`.

        Args:
          step: later than every update on disk, and without a stored rollout. Rollouts
            of later steps may be stored, if the run resumed before a damaged update.
          batch: tree of jax or NumPy arrays.
          meta: JSON values.

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        self._check_is_new(step)
        self._prune_rollouts()
        self._rollouts.save(step, batch, meta)

    def latest_update(self) -> int | None:
        """Return the newest step whose update is on disk, or None; waits for a save."""
        return max(self._updates.steps(), default=None)

    def update_steps(self) -> list[int]:
        """Return the steps whose update is on disk, ascending; waits for a save."""
        return self._updates.steps()

    def rollout_steps(self) -> list[int]:
        """Return the steps after the newest update whose rollout is on disk, ascending.

        An update whose save is in progress counts as saved. The call does not wait for
        it, so a loop can make this call at the start of every step.
        """
        newest = max(self._updates.known_steps(), default=-1)
        return [step for step in self._rollouts.steps() if step > newest]

    def restore_update(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict]:
        """Read the state saved after the update of `step`.

        Args:
          step: one of `update_steps`.
          abstract_state: the tree that was saved, with `jax.ShapeDtypeStruct` leaves.
            Each array is restored with the sharding of its leaf, whatever mesh it was
            saved from, or to the first device if the leaf has none. A NumPy array as a
            leaf is restored as a NumPy array.

        Returns:
          The state and its meta.

        Raises:
          DamagedCheckpoint: the files or arrays differ from what was saved.
          ValueError: the step is not stored, or names, shapes or dtypes differ from
            `abstract_state` (the message names them).
        """
        return self._updates.restore(step, abstract_state)

    def newest_update(
        self,
        abstract_state: PyTree,
        on_damage: Callable[[str], None] = lambda what: None,
    ) -> tuple[int, PyTree, dict] | None:
        """Read the newest state that is not damaged.

        Newer states, which are damaged, are moved to DIRECTORY/damaged/.

        Args:
          abstract_state: see `restore_update`.
          on_damage: called with a message for each damaged state that was moved.

        Returns:
          The step, the state and its meta; None if no update is stored.

        Raises:
          DamagedCheckpoint: all stored updates are damaged; then none is moved.
          ValueError: names, shapes or dtypes differ from `abstract_state`.
        """
        faults = {}
        for step in reversed(self.update_steps()):
            try:
                state, meta = self.restore_update(step, abstract_state)
            except DamagedCheckpoint as error:
                faults[step] = str(error)
                continue
            for damaged, fault in faults.items():
                self._updates.set_aside(damaged, self._damaged)
                on_damage(f"{fault}; going on from step {step}")
            return step, state, meta
        if faults:
            raise DamagedCheckpoint(
                f"{'; '.join(faults.values())}: no stored state is sound. Remove "
                f"{self._damaged.parent / 'update'} to begin again from the start"
            )
        return None

    def sound_rollout(
        self,
        step: int,
        abstract_batch: PyTree,
        policy: str,
        on_damage: Callable[[str], None] = lambda what: None,
    ) -> tuple[PyTree, dict] | None:
        """Return the stored batch of a step and its meta, or None if none is usable.

        A batch that is damaged, or that other parameters sampled, is moved to
        DIRECTORY/damaged/, and its step must be sampled again.

        Args:
          step: the step of the rollout.
          abstract_batch: the batch as `restore_update` takes a state.
          policy: a digest of the parameters that would sample the batch now. They can
            differ from those that sampled it, if the run resumed before a damaged
            update and with other settings.
          on_damage: called with a message if the batch was moved.
        """
        if step not in self.rollout_steps():
            return None
        try:
            batch, meta = self.restore_rollout(step, abstract_batch)
            if meta.get("policy", policy) == policy:
                return batch, meta
            why = f"{self._rollouts.path(step)} was sampled by other parameters"
        except DamagedCheckpoint as error:
            why = str(error)
        self._rollouts.set_aside(step, self._damaged)
        on_damage(f"{why}; sampling step {step} again")
        return None

    def restore_rollout(self, step: int, abstract_batch: PyTree) -> tuple[PyTree, dict]:
        """Read the batch saved after the rollout of `step`; see `restore_update`."""
        return self._rollouts.restore(step, abstract_batch)

    def wait(self) -> None:
        """Wait until all saves are on disk; raise the error of a save that failed."""
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

    def __exit__(self, kind, *exception) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # the other hosts may be gone: nothing more is done together
        self.close()

    def _check_is_new(self, step: int) -> None:
        newest = self.latest_update()
        if newest is not None and step <= newest:
            raise ValueError(
                f"step={step}: expected a step after {newest}, whose update is saved"
            )

    def _prune_rollouts(self) -> None:
        newest = self.latest_update()
        if newest is not None:
            self._rollouts.delete([s for s in self._rollouts.steps() if s <= newest])
