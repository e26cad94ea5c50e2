"""The stored states of a run, for those who must not change it.

A reader has no way to write: it makes no directory, takes no lock, deletes nothing that
a killed or a living process has half written, and leaves what is damaged where it is.
The run may be in progress; a state that its process deletes meanwhile is passed over.

Frozen parameters are stored once, with the starting state. The record of every later
step has their digests, which are compared with what the starting state gives: a step
and a starting state that do not belong together are refused.
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
    """Reads the states in a run directory; step 0 is the one that it started from."""

    def __init__(self, directory: str | Path):
        """Name the run directory; nothing is opened."""
        self._directory = Path(directory).absolute()
        self._updates = self._directory / "checkpoints" / "update"
        self._start = self._directory / "checkpoints" / "start" / "update"

    def steps(self) -> list[int]:
        """Steps whose state is stored, ascending."""
        return stored_steps(self._start) + stored_steps(self._updates)

    def newest_meta(self) -> dict:
        """The meta of the newest state whose record is sound; empty where none is."""
        for step in reversed(self.steps()):
            with contextlib.suppress(ValueError):
                return read_record(self._path(step))["meta"]
        return {}

    def check_format(self) -> None:
        """Refuse a run that another version wrote; reads one small file.

        Raises:
          OtherFormat: the newest state that has a record is of another format.
        """
        for step in reversed(self.steps()):
            try:
                read_record(self._path(step))
            except DamagedCheckpoint:
                continue  # whoever reads the state says so
            return

    def state(self, step: int, abstract_state: TrainState) -> tuple[TrainState, dict]:
        """The whole state after a step, and its meta.

        Args:
          step: one of `steps`.
          abstract_state: see `RunCheckpoints.restore_update`.

        Raises:
          DamagedCheckpoint: it is not what was saved.
          ValueError: no such step, or names, shapes or dtypes differ.
        """
        where = self._existing(step)
        if not abstract_state.frozen or where.parent == self._start:
            return read_step(where, abstract_state)
        moving = dataclasses.replace(abstract_state, frozen={})
        state, meta = read_step(where, moving)
        frozen = self._frozen(where, abstract_state.frozen)
        return dataclasses.replace(state, frozen=frozen), meta

    def frozen(self, step: int, abstract: PyTree) -> PyTree:
        """The frozen parameters of a step, which the starting state holds.

        Args:
          step: one of `steps`.
          abstract: nested dict of `jax.ShapeDtypeStruct` leaves with shardings.

        Raises:
          DamagedCheckpoint: the starting state is missing or not what was saved, or its
            frozen parameters are not those that the step was computed with.
          ValueError: no such step, or names, shapes or dtypes differ.
        """
        return self._frozen(self._existing(step), abstract)

    def params(self, step: int, abstract_params: PyTree) -> PyTree:
        """The parameters after a step; the optimizer's state is not read.

        Args:
          step: one of `steps`.
          abstract_params: all parameters or some of them; `jax.ShapeDtypeStruct` leaves
            with shardings.

        Raises:
          DamagedCheckpoint: they are not what was saved.
          ValueError: no such step, or names, shapes or dtypes differ.
        """
        return self._params(self._existing(step), abstract_params)

    def newest_params(
        self,
        abstract_params: PyTree,
        on_damage: Callable[[str], None] = lambda what: None,
    ) -> tuple[PyTree, int]:
        """The parameters of the newest state that is sound, and its step.

        Args:
          abstract_params: see `params`.
          on_damage: told of every newer state that is not sound, with what is wrong.

        Raises:
          DamagedCheckpoint: there are states and none is sound.
          ValueError: no state is stored, or names, shapes or dtypes differ.
        """
        faults: dict[int, str] = {}
        while steps := [step for step in self.steps() if step not in faults]:
            step = steps[-1]
            try:
                params = self._params(self._path(step), abstract_params)
            except DamagedCheckpoint as error:
                # Gone: the run's own process deleted it, and has a newer one.
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
