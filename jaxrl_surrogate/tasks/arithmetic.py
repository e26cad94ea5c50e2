"""Sums, differences and products of graded size, verified exactly."""

import dataclasses
import re
import zlib
from typing import Annotated, Any, Literal

import numpy as np

from jaxrl_surrogate.tasks.task import Problem, Verdict

_SIGNS = {"add": "+", "sub": "-", "mul": "*"}
_WORDS = {"add": "plus", "sub": "minus", "mul": "times"}
_TEST_SHARE = 8  # one problem in so many is kept for testing


class Arithmetic:
    """`a + b = ?` with operands of up to `max_digits` digits."""

    name = "arithmetic"

    def __init__(
        self,
        min_digits: Annotated[int, "digits of the smaller operands"] = 1,
        max_digits: Annotated[int, "digits of the larger operands"] = 2,
        operations: Annotated[str, "of add, sub, mul, joined by +"] = "add",
        form: Annotated[
            Literal["symbols", "words", "mixed"], "12+34= or What is 12 plus 34?"
        ] = "symbols",
        num_test: Annotated[int, "problems in the test set"] = 512,
    ):
        if not 1 <= min_digits <= max_digits <= 9:
            raise ValueError(
                f"min_digits={min_digits}: expected 1 <= min_digits <= "
                f"max_digits={max_digits} <= 9"
            )
        self._operations = tuple(operations.split("+"))
        for operation in self._operations:
            if operation not in _SIGNS:
                raise ValueError(
                    f"operations={operations!r}: expected some of "
                    f"{', '.join(_SIGNS)} joined by +"
                )
        if form not in ("symbols", "words", "mixed"):
            raise ValueError(f"form={form!r}: expected symbols, words or mixed")
        self._digits, self._form = (min_digits, max_digits), form
        self.train = Generated(self, False, 2**31 - 1)
        self.test = Generated(self, True, num_test)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """1 where the completion is the integer and nothing else, 0 otherwise."""
        text = completion.strip()
        right = re.fullmatch(r"[+-]?[0-9]{1,20}", text) is not None
        return Verdict(float(right and int(text) == problem.answer))

    def draw(self, index: int, test: bool) -> Problem:
        """Problem `index` of the training or the test set, which share no question."""
        for attempt in range(10_000):
            rng = np.random.default_rng([index, attempt, test, 7])
            digits = rng.integers(self._digits[0], self._digits[1] + 1, size=2)
            low = np.where(digits == 1, 0, 10 ** (digits - 1))
            a, b = map(int, rng.integers(low, 10**digits))
            operation = self._operations[rng.integers(len(self._operations))]
            words = self._form == "words" or (
                self._form == "mixed" and rng.integers(2) == 1
            )
            question = f"{a}{_SIGNS[operation]}{b}"
            held_out = zlib.crc32(question.encode()) % _TEST_SHARE == 0
            if held_out != test:
                continue
            answer = {"add": a + b, "sub": a - b, "mul": a * b}[operation]
            prompt = (
                f"What is {a} {_WORDS[operation]} {b}? " if words else f"{question}="
            )
            return Problem(
                prompt, answer, index, str(answer), {"digits": int(max(digits))}
            )
        raise RuntimeError(f"no problem found for index {index}")


@dataclasses.dataclass(frozen=True)
class Generated:
    """Problems made when asked for."""

    task: Any  # has draw(index, test)
    test: bool
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.task.draw(index, self.test)
