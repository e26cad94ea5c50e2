"""Read the stored states of a run without changing the run.

A reader writes nothing: it makes no directory, takes no lock, deletes no incomplete
files and does not move damaged ones. So it may read a run that is in progress;
`newest_params` passes over a state that the run deletes meanwhile.

Frozen parameters are stored once, with the starting state. The record of every later
step holds their digests. They are compared with the parameters in the starting state,
so a step is never read with frozen parameters that it was not computed with.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.stops import DamagedCheckpoint
from jaxrl_surrogate.storage.stored_step import read_record, read_step, stored_steps
from jaxrl_surrogate.training.freezing import merge, split
from jaxrl_surrogate.training.state import TrainState

PyTree = Any


class StateReader:
    """Reads the states in a run directory; step 0 is the starting state."""

    def __init__(self, directory: str | Path):
        """Store the run directory; no file is opened."""
        self._directory = Path(directory).absolute()
        self._updates = self._directory / "checkpoints" / "update"
        self._start = self._directory / "checkpoints" / "start" / "update"

    def steps(self) -> list[int]:
        """Return the steps whose state is stored, ascending."""
        return stored_steps(self._start) + stored_steps(self._updates)

    def newest_meta(self) -> dict:
        """Return the meta of the newest state with an intact record; {} if none has."""
        for step in reversed(self.steps()):
            with contextlib.suppress(ValueError):
                return read_record(self._path(step))["meta"]
        return {}

    def check_format(self) -> None:
        """Check that this version can read the run's checkpoints; reads small files.

        Raises:
          OtherFormat: the newest state with a readable record has another format.
        """
        for step in reversed(self.steps()):
            try:
                read_record(self._path(step))
            except DamagedCheckpoint:
                continue  # reading the state itself will report the damage
            return

    def state(self, step: int, abstract_state: TrainState) -> tuple[TrainState, dict]:
        """Return the whole state after a step, and its meta.

        Args:
          step: one of `steps`.
          abstract_state: see `RunCheckpoints.restore_update`.

        Raises:
          DamagedCheckpoint: the state differs from what was saved.
          ValueError: the step is not stored, or names, shapes or dtypes differ.
        """
        where = self._existing(step)
        if not abstract_state.frozen or where.parent == self._start:
            return read_step(where, abstract_state)
        moving = dataclasses.replace(abstract_state, frozen={})
        state, meta = read_step(where, moving)
        frozen = self._frozen(where, abstract_state.frozen)
        return dataclasses.replace(state, frozen=frozen), meta

    def frozen(self, step: int, abstract: PyTree) -> PyTree:
        """Return the frozen parameters of a step, read from the starting state.

        Args:
          step: one of `steps`.
          abstract: nested dict of `jax.ShapeDtypeStruct` leaves with shardings.

        Raises:
          DamagedCheckpoint: the starting state is missing or damaged, or its frozen
            parameters are not those that the step was computed with.
          ValueError: the step is not stored, or names, shapes or dtypes differ.
        """
        return self._frozen(self._existing(step), abstract)

    def params(self, step: int, abstract_params: PyTree) -> PyTree:
        """Return the parameters after a step without reading the optimizer state.

        Args:
          step: one of `steps`.
          abstract_params: all parameters or some of them; `jax.ShapeDtypeStruct` leaves
            with shardings.

        Raises:
          DamagedCheckpoint: the parameters differ from what was saved.
          ValueError: the step is not stored, or names, shapes or dtypes differ.
        """
        return self._params(self._existing(step), abstract_params)

    def newest_params(
        self,
        abstract_params: PyTree,
        on_damage: Callable[[str], None] = lambda what: None,
    ) -> tuple[PyTree, int]:
        """Return the parameters of the newest state that is not damaged, and its step.

        Args:
          abstract_params: see `params`.
          on_damage: called with a message for each newer state, which is damaged.

        Raises:
          DamagedCheckpoint: all stored states are damaged.
          ValueError: no state is stored, or names, shapes or dtypes differ.
        """
        faults: dict[int, str] = {}
        while steps := [step for step in self.steps() if step not in faults]:
            step = steps[-1]
            try:
                params = self._params(self._path(step), abstract_params)
            except DamagedCheckpoint as error:
                # A directory that is gone was deleted by the run, which has newer ones.
                if self._path(step).is_dir():
                    faults[step] = str(error)
                continue
            for fault in faults.values():
                on_damage(f"{fault}; reading step {step}")
            return params, step
        if faults:
            raise DamagedCheckpoint(
                f"{'; '.join(faults.values())}: no stored state is sound"
            )
        raise ValueError(
            f"{self._directory}: holds no checkpoint; expected a run that was started"
        )

    def _existing(self, step: int) -> Path:
        path = self._path(step)
        if not path.is_dir():
            raise ValueError(
                f"step={step}: no state in {path}; stored are the states after steps "
                f"{self.steps() or 'none'}"
            )
        return path

    def _params(self, where: Path, abstract: PyTree) -> PyTree:
        record = read_record(where)
        inside = [name.partition("/") for name in record["arrays"]]
        paths = {path for part, _, path in inside if part == "frozen"}
        paths |= record["frozen"].keys()
        trainable, frozen = split(abstract, paths.__contains__)
        found = read_step(where, {"trainable": trainable}, part=True)[0]["trainable"]
        return merge(found, self._frozen(where, frozen) if frozen else {})

    def _frozen(self, where: Path, abstract: PyTree) -> PyTree:
        expected, start = read_record(where)["frozen"], self._start / "0"
        if not start.is_dir():
            raise DamagedCheckpoint(
                f"{start}, which holds the frozen parameters, is missing"
            )
        found = read_step(start, {"frozen": abstract}, part=True)[0]["frozen"]
        if where != start and digests.named_digests(found) != expected:
            raise DamagedCheckpoint(
                f"{start} has other frozen parameters than {where} was computed with"
            )
        return found

    def _path(self, step: int) -> Path:
        return (self._updates if step else self._start) / str(step)
