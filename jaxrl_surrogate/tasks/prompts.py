"""The run's stream of problems: deterministic, endless, with a position to store."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.task import Problem
from jaxrl_surrogate.tasks.tokenizers import Tokenizer


class PromptStream:
    """Problems of a source in an order fixed by a seed, reshuffled every epoch.

    The problem at a position is a function of (seed, position) alone: a stream that is
    restored goes on as if it had never stopped, without replaying what came before.
    The order is that of grain's `MapDataset`, read by index: grain's iterators have the
    same order, but read ahead in threads (512 problems in 0.2 s against 0.01 s), and
    the position would be needed all the same, as the id of a problem.

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
          source: 1 to 2^31 - 1 problems, indexed at random.
          seed: of the order.
          shuffle: False keeps the source's order in every epoch.

        Raises:
          ValueError: the source is empty or longer than that.
        """
        import grain  # takes a second: verifier processes do without it

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
        """The next `count` problems; `id` becomes the position in the stream."""
        positions = range(self._position, self._position + count)
        self._position += count
        return [
            dataclasses.replace(self._source[int(self._order[i])], id=i)
            for i in positions
        ]

    def state(self) -> dict[str, Any]:
        """Where the stream stands and which stream it is, as JSON."""
        return {"position": self._position, **self._identity}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken.

        Raises:
          FieldError: the state is of a stream with another seed, size or order.
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
    """Some problems of a source, by index."""

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
      tokenizer: of the model.
      max_length: P, prompt positions.

    Returns:
      Tokens (G, P) int32 with 0 past a prompt's end, lengths (G,) int32, ids (G,)
      uint32.

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
