"""Rewards as they come, on disk, so that a killed process need not judge twice.

Beside a rollout that is stored before it is verified: one line for each group that is
done, with a digest of itself. A line that a kill cut short, or that was damaged, does
not count; its group is judged again.
"""

import hashlib
import json
from pathlib import Path

import numpy as np


class RewardJournal:
    """The rewards of one step's groups that are known so far."""

    def __init__(self, path: Path):
        """Read what a process before this one has written."""
        self._path = path
        self.known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
                if row.pop("digest") == _digest(row):
                    rewards = np.array(row["rewards"], np.float32)
                    self.known[row["group"]] = rewards, np.array(row["mask"], bool)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def add(self, group: int, rewards: np.ndarray, mask: np.ndarray) -> None:
        """Write down (M,) rewards and (M,) which of them count."""
        row = {
            "group": group,
            # Exact: a float32 as a float64 in its shortest decimal form.
            "rewards": np.asarray(rewards, np.float64).tolist(),
            "mask": mask.tolist(),
        }
        row["digest"] = _digest(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            # A line of its own, whatever the one before was cut to.
            file.write(f"\n{json.dumps(row)}\n")
        self.known[group] = np.asarray(rewards, np.float32), mask

    def clear(self) -> None:
        """Forget all of it, on disk too."""
        self._path.unlink(missing_ok=True)
        self.known.clear()


def keep_only(directory: Path, steps: set[int]) -> None:
    """Remove the journals of all other steps."""
    for path in directory.glob("*.jsonl"):
        if path.stem.isdecimal() and int(path.stem) not in steps:
            path.unlink(missing_ok=True)


def _digest(row: dict) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]
