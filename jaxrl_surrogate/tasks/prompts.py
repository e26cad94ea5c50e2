"""The run's endless, deterministic stream of problems, and encoding of its prompts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.task import Problem
from jaxrl_surrogate.tasks.tokenizers import Tokenizer


class PromptStream:
    """Problems of a source in an order fixed by a seed, reshuffled every epoch.

    The problem at a position is a function of (seed, position) alone, so a restored
    stream continues where it stopped without replaying earlier problems. The order is
    that of grain's `MapDataset`, which is read by index. Grain's iterators have the
    same order but read ahead in threads, which takes longer (0.2 s instead of 0.01 s
    for 512 problems), and the position is needed in any case, as the id of a problem.

    Examples:
      >>> from jaxrl_surrogate import tasks
      >>> stream = PromptStream(tasks.get("arithmetic").train, seed=0)
      >>> [problem.id for problem in stream.take(2)]
      [0, 1]
      >>> stream.state()["position"]
      2
    """

    def __init__(self, source: Sequence[Problem], seed: int, *, shuffle: bool = True):
        """Start at position 0.

        Args:
          source: 1 to 2^31 - 1 problems, read by index in any order.
          seed: seed of the order.
          shuffle: False keeps the source's order in every epoch.

        Raises:
          ValueError: the source is empty or too long.
        """
        import grain  # here, as it takes a second and verifier processes do not need it

        if not 1 <= len(source) < 2**31:
            raise ValueError(
                f"source: has {len(source)} problems; expected 1 to 2**31 - 1"
            )
        indices = grain.MapDataset.range(len(source)).seed(seed)
        self._order = (indices.shuffle() if shuffle else indices).repeat()
        self._source = source
        self._identity = {"seed": seed, "size": len(source), "shuffle": shuffle}
        self._position = 0

    def take(self, count: int) -> list[Problem]:
        """Return the next `count` problems, with their stream positions as `id`."""
        positions = range(self._position, self._position + count)
        self._position += count
        return [
            dataclasses.replace(self._source[int(self._order[i])], id=i)
            for i in positions
        ]

    def state(self) -> dict[str, Any]:
        """Return the position, seed, size and order of the stream, as JSON values."""
        return {"position": self._position, **self._identity}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state` returned.

        Raises:
          FieldError: the state is that of a stream with another seed, size or order.
        """
        for name, own in self._identity.items():
            if name in state and state[name] != own:
                raise FieldError(
                    name,
                    own,
                    problem=f"the stored prompt stream has {name}={state[name]}",
                    expected="the task and seed that the run was started with",
                )
        self._position = int(state["position"])


@dataclasses.dataclass(frozen=True)
class Subset(Sequence):
    """The problems of a source at some indices."""

    source: Sequence[Problem]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Problem:
        return self.source[self.indices[index]]


def encode_prompts(
    problems: Sequence[Problem], tokenizer: Tokenizer, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokenize the prompts of G problems, padded on the right.

    Args:
      problems: G problems, with `id` in [0, 2^32).
      tokenizer: the model's tokenizer.
      max_length: P, the number of prompt positions.

    Returns:
      Tokens (G, P) int32 with 0 past a prompt's end, lengths (G,) int32, and the
      problems' ids (G,) uint32.

    Raises:
      FieldError: a prompt is empty or longer than `max_length`.
    """
    tokens = np.zeros((len(problems), max_length), np.int32)
    lengths = np.zeros(len(problems), np.int32)
    for row, problem in enumerate(problems):
        ids = tokenizer.encode(problem.prompt)
        if not 1 <= len(ids) <= max_length:
            remedy = "raise it or leave such problems out" if ids else "it is empty"
            raise FieldError(
                "rollout.max_prompt_length",
                max_length,
                problem=f"the prompt of problem {problem.id} has {len(ids)} tokens: "
                f"{problem.prompt[:60]!r}",
                remedy=remedy,
            )
        tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    return tokens, lengths, np.array([p.id for p in problems], np.uint32)
