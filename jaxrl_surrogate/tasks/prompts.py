"""The run's stream of problems: deterministic, endless, with a position to store."""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np

from jaxrl_surrogate.tasks.task import Problem
from jaxrl_surrogate.tasks.tokenizers import Tokenizer


class PromptStream:
    """Problems of a source in an order fixed by a seed, reshuffled every epoch."""

    def __init__(self, source: Sequence[Problem], seed: int, *, shuffle: bool = True):
        """Start at position 0.

        Args:
          source: at least one problem.
          seed: of the order.
          shuffle: False keeps the source's order.
        """
        if not len(source):
            raise ValueError("source: has no problems; expected at least one")
        dataset = grain.MapDataset.source(_Indices(len(source))).seed(seed)
        if shuffle:
            dataset = dataset.shuffle()
        self._order = dataset.repeat()
        self._source = source
        self._position = 0

    def take(self, count: int) -> list[Problem]:
        """The next problems; `id` becomes the position in the stream."""
        positions = range(self._position, self._position + count)
        self._position += count
        return [
            dataclasses.replace(self._source[int(self._order[i])], id=i)
            for i in positions
        ]

    def state(self) -> dict[str, int]:
        """Where the stream stands, as JSON."""
        return {"position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go to where `state` was taken."""
        self._position = int(state["position"])


class _Indices:
    """Grain shuffles what it can index; problems may be made on demand."""

    def __init__(self, size: int):
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> int:
        return index


class Subset:
    """Some problems of a source, by index."""

    def __init__(self, source: Sequence[Problem], indices: Sequence[int]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Problem:
        return self._source[self._indices[index]]


def encode_prompts(
    problems: Sequence[Problem], tokenizer: Tokenizer, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokenize prompts, padded on the right.

    Returns:
      Tokens (G, P) int32, lengths (G,) int32, ids (G,) uint32; P is `max_length`.

    Raises:
      ValueError: a prompt is empty or longer than `max_length`.
    """
    tokens = np.zeros((len(problems), max_length), np.int32)
    lengths = np.zeros(len(problems), np.int32)
    for row, problem in enumerate(problems):
        ids = tokenizer.encode(problem.prompt)
        if not 1 <= len(ids) <= max_length:
            raise ValueError(
                f"rollout.max_prompt_length={max_length}: the prompt of problem "
                f"{problem.id} has {len(ids)} tokens: {problem.prompt[:60]!r}"
            )
        tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    return tokens, lengths, np.array([p.id for p in problems], np.uint32)
