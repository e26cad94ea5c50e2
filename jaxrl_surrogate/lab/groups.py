"""Reads the groups of a run from its log: counts of correct samples, and weights."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.storage.json_lines import read_rows


@dataclasses.dataclass(frozen=True)
class Groups:
    """One row for each of the N groups that a run was trained on."""

    group_size: int  # M, the size of groups that lost no sample
    step: np.ndarray  # (N,) int
    correct: np.ndarray  # (N,) int, number of correct samples
    verified: np.ndarray  # (N,) int, number of samples with a reward; M if none is lost
    # Mean applied weights (see `lab.effective`):
    correct_weight: np.ndarray  # (N,) float, of correct samples; NaN without one
    incorrect_weight: np.ndarray  # (N,) float, of incorrect samples; NaN without one

    def __len__(self) -> int:
        return len(self.step)

    @property
    def whole(self) -> "Groups":
        """The groups that lost no sample, which all have M samples."""
        return self.where(self.verified == self.group_size)

    def where(self, chosen: np.ndarray) -> "Groups":
        """Return the groups selected by a mask (N,) bool."""
        rows = {
            field.name: getattr(self, field.name)[chosen]
            for field in dataclasses.fields(self)
            if field.name != "group_size"
        }
        return Groups(self.group_size, **rows)


def read_groups(directory: Path, group_size: int) -> Groups:
    """Read `groups.jsonl` of a run directory.

    Args:
      directory: run directory.
      group_size: M, from the config of the run.

    Raises:
      FieldError: there is no such file, it holds no step, or another version of this
        package wrote it.
    """
    path = directory / "groups.jsonl"
    if not path.is_file():
        raise FieldError(
            "run_dir",
            str(directory),
            problem="has no groups.jsonl",
            expected="a run that `jaxrl train` made at least one step of",
        )
    columns = {name: [] for name in _COLUMNS}
    steps = []
    for row in read_rows(path):
        missing = [name for name in _COLUMNS if name not in row]
        if missing:
            raise FieldError(
                "run_dir",
                str(directory),
                problem=f"groups.jsonl has no {missing[0]} in step {row['step']}: "
                "another version wrote it",
                expected="a run of this one",
            )
        steps += [row["step"]] * len(row["correct"])
        for name in _COLUMNS:
            columns[name] += row[name]
    if not steps:
        raise FieldError(
            "run_dir", str(directory), problem="groups.jsonl holds no step"
        )
    return Groups(
        group_size=group_size,
        step=np.array(steps),
        correct=np.array(columns["correct"]),
        verified=np.array(columns["verified"]),
        correct_weight=np.array(columns["correct_weight"], np.float64),
        incorrect_weight=np.array(columns["incorrect_weight"], np.float64),
    )


_COLUMNS = ("correct", "verified", "correct_weight", "incorrect_weight")
