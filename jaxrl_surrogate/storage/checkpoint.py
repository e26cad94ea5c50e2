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

**Whole.** A digest of every array is stored with it, taken on the devices before the
save, and compared with what a restore brings back to them: a state that is not the one
that was saved, for whatever reason, is never returned. A manifest of the files
(`manifest`) is looked at first, so that a damaged file is named. `newest_update` and
`sound_rollout` step over what is damaged and set it aside, in DIRECTORY/damaged/.

**Several processes** call every function together, on a directory all of them see.
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
        """Open a store, creating it and clearing what a killed process half wrote.

        Args:
          directory: where the two stores live; made absolute.
          keep_last: newest updates that are kept.
          keep_every: updates whose step is a multiple are kept for good; 0: none.
          keep_best: updates with the best metrics that are kept; 0: none.
          lowest_is_best: of metrics.

        Raises:
          ValueError: naming the argument.
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
          state: tree of jax or NumPy arrays; may be donated once this returns. PRNG
            keys go as integers or not at all: they follow from the seed.
          meta: JSON values (tuples come back as lists).
          metric: what `keep_best` compares; None where the step has none.
          digests: of the state's arrays by name (`digests.state_digests`), where they
            are known already; None: taken here.
          frozen: the same of frozen parameters that `state` leaves out, by their paths;
            `StateReader` takes those from the starting state, and compares.

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        self._rollouts.wait()
        self._check_is_new(step)
        self._updates.save(step, state, meta, metric, digests, frozen)

    def save_rollout(self, step: int, batch: PyTree, meta: dict) -> None:
        """Save the batch after the rollout phase of `step`.

        Args:
          step: later than every update on disk, and without a rollout there. Later
            ones may be: a run that fell back behind a damaged update has them still.
          batch: tree of jax or NumPy arrays.
          meta: JSON values.

        Raises:
          ValueError: `step` is not new, or `meta` is not JSON.
        """
        self._check_is_new(step)
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
          DamagedCheckpoint: it is not what was saved.
          ValueError: no such step, or names, shapes or dtypes differ (each named).
        """
        return self._updates.restore(step, abstract_state)

    def newest_update(
        self,
        abstract_state: PyTree,
        on_damage: Callable[[str], None] = lambda what: None,
    ) -> tuple[int, PyTree, dict] | None:
        """Read the newest state that is sound.

        Args:
          abstract_state: see `restore_update`.
          on_damage: told of every newer one that is not, with what is wrong; those
            are moved to DIRECTORY/damaged/.

        Returns:
          Its step, the state and its meta; None where no update was ever stored.

        Raises:
          DamagedCheckpoint: there are updates and none is sound; none is moved.
          ValueError: names, shapes or dtypes differ.
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
        """The batch of a step and its meta; None where it has none that can be used.

        One that is damaged, or that another policy sampled, is moved to
        DIRECTORY/damaged/: its step is sampled again.

        Args:
          step: of the rollout.
          abstract_batch: see `restore_update`.
          policy: a digest of the parameters that would sample it now. Those of a later
            step than the next need not be the ones that did: the run may have fallen
            back behind a damaged update and go on with other settings.
          on_damage: told of what was set aside, and why.
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
