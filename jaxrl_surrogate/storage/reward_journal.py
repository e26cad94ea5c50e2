"""Store rewards on disk as they come, so that a restarted run need not verify again.

A journal belongs to a rollout that is stored before it is verified. It has one line for
each group that was verified, with a digest of its completions and a digest of the line.
A line that is damaged, incomplete or about other completions does not count, and its
group is verified again.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxrl_surrogate.batch import Completions, Prompts
from jaxrl_surrogate.storage.digests import host_digest, json_digest

_DIGITS = 16  # of a line's digest


class RewardJournal:
    """The rewards of one step's groups that were verified so far."""

    def __init__(
        self, path: Path, on_damage: Callable[[str], None] = lambda what: None
    ):
        """Read the rewards that an earlier process has written.

        Args:
          path: the journal, which is created when the first group is added.
          on_damage: called with a message for each damaged line.
        """
        self._path = path
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        content = path.read_bytes() if path.exists() else b""
        for number, line in enumerate(content.split(b"\n"), 1):
            if not line:
                continue
            try:
                row = json.loads(line.decode("utf-8"))
                if row.pop("digest") != json_digest(row)[:_DIGITS]:
                    raise ValueError("damaged")
                rewards = np.array(row["rewards"], np.float32)
                self._known[row["judged"]] = rewards, np.array(row["mask"], bool)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                on_damage(
                    f"{path}: line {number} is cut or damaged; its group is judged "
                    "again"
                )

    def known(
        self, prompts: Prompts, completions: Completions
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return rewards (M,) float32 and mask (M,) bool of groups that are known.

        The result maps the index of a group to its rewards and mask. A group is known
        if its prompt and completions are those that were verified.
        """
        groups = range(len(completions.lengths))
        judged = {group: _judged(group, prompts, completions) for group in groups}
        return {
            group: self._known[name]
            for group, name in judged.items()
            if name in self._known
        }

    def add(
        self,
        group: int,
        prompts: Prompts,
        completions: Completions,
        rewards: np.ndarray,
        mask: np.ndarray,
    ) -> None:
        """Store the rewards (M,) and the mask (M,) bool of a group."""
        row = {
            "judged": _judged(group, prompts, completions),
            # Exact: a float32 as a float64 in its shortest decimal form.
            "rewards": np.asarray(rewards, np.float64).tolist(),
            "mask": mask.tolist(),
        }
        row["digest"] = json_digest(row)[:_DIGITS]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # The leading line end separates it from a line that a kill cut short.
            file.write(f"\n{json.dumps(row)}\n")
        self._known[row["judged"]] = np.asarray(rewards, np.float32), mask

    def clear(self) -> None:
        """Remove all rewards, also on disk."""
        self._path.unlink(missing_ok=True)
        self._known.clear()


def keep_only(directory: Path, steps: set[int]) -> None:
    """Remove the journals in a directory, except those of the given steps."""
    for path in directory.glob("*.jsonl"):
        if path.stem.isdecimal() and int(path.stem) not in steps:
            path.unlink(missing_ok=True)


def _judged(group: int, prompts: Prompts, completions: Completions) -> str:
    """Return a digest of a group's index, prompt and completions."""
    parts = (
        np.int64(group), prompts.ids[group], prompts.tokens[group],
        completions.tokens[group], completions.lengths[group],
    )  # fmt: skip
    return _hash("".join(map(host_digest, parts)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
