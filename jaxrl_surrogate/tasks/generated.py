"""Problems that are generated on demand; problem i is a function of i alone.

A hash of what a problem asks, whatever its wording, decides whether it belongs to the
test set. The training and the test set are therefore disjoint, however many training
problems are generated.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.task import Problem

_TEST_SHARE = 8  # one problem in so many is kept for testing
_ATTEMPTS = 10_000  # for one training problem
_FRUITLESS = 2_000  # after so many draws without a new test problem the search ends
_ENDLESS = 2**31 - 1  # length of a training set: the most that Grain shuffles

Item = TypeVar("Item")


class Draws:
    """The random choices of one problem, a function of `positions` alone.

    They use the raw output of the counter-based Philox generator and integer
    arithmetic. Versions of NumPy may differ in how its `Generator` draws, but not in
    the raw output.
    """

    def __init__(self, *positions: int):
        """Start the random stream of these non-negative integers."""
        self._bits = np.random.Philox(np.random.SeedSequence(positions))

    def integer(self, low: int, high: int) -> int:
        """Draw an integer in [low, high], both included."""
        return low + (int(self._bits.random_raw()) * (high - low + 1) >> 64)

    def choice(self, items: Sequence[Item]) -> Item:
        """Draw one of the items."""
        return items[self.integer(0, len(items) - 1)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in random order."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = self.integer(0, last)
            out[last], out[other] = out[other], out[last]
        return out


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A problem, and a key that is the same for all problems that ask the same."""

    key: str
    problem: Problem

    @property
    def held_out(self) -> bool:
        """Whether this problem belongs to the test set."""
        return zlib.crc32(self.key.encode()) % _TEST_SHARE == 0


# Makes a candidate, or None if the random choices give no valid problem.
Maker = Callable[[Draws], Candidate | None]


@dataclasses.dataclass(frozen=True)
class Generated:
    """The 2^31 - 1 training problems of a maker, none of which is in the test set."""

    make: Maker

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < _ENDLESS:
            raise IndexError(index)
        for attempt in range(_ATTEMPTS):
            found = self.make(Draws(0, index, attempt))
            if found is not None and not found.held_out:
                return dataclasses.replace(found.problem, id=index)
        raise IndexError(f"no problem was found for index {index}")


def split(make: Maker, num_test: int) -> tuple[Generated, tuple[Problem, ...]]:
    """Return the training problems and the test problems of a maker.

    Args:
      make: makes a problem from random choices.
      num_test: number of test problems.

    Returns:
      The training set, and a tuple of `num_test` distinct test problems, or fewer if
      the search finds no more.

    Raises:
      FieldError: `num_test` is not positive, or one of the sets would be empty.
    """
    train, test = Generated(make), _held_out(make, num_test)
    try:
        train[0]
    except IndexError:
        test = ()
    if not test:
        raise FieldError(
            "num_test",
            num_test,
            problem="the other options allow so few problems that none is left for "
            "training or for testing",
            remedy="allow longer, larger or more varied ones",
        )
    return train, test


def _held_out(make: Maker, count: int) -> tuple[Problem, ...]:
    if count < 1:
        raise FieldError("num_test", count, "at least 1")
    found: dict[str, Problem] = {}
    since = 0  # draws since the last new one
    for index in itertools.count():
        candidate = make(Draws(1, index))
        since += 1
        if candidate is None or not candidate.held_out or candidate.key in found:
            if since == _FRUITLESS:
                break
            continue
        since = 0
        problem = dataclasses.replace(candidate.problem, id=len(found))
        found[candidate.key] = problem
        if len(found) == count:
            break
    return tuple(found.values())
