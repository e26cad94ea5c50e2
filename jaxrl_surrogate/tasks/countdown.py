"""Countdown: reach a target with given numbers; many right answers."""

import ast
import operator
import zlib
from collections import Counter
from fractions import Fraction
from typing import Annotated

import numpy as np

from jaxrl_surrogate.tasks.arithmetic import Generated
from jaxrl_surrogate.tasks.task import Problem, Verdict

_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LONGEST = 200  # characters of an expression; also bounds depth and work
_TEST_SHARE = 8


class Countdown:
    """Write an expression from some of the numbers that equals the target."""

    name = "countdown"

    def __init__(
        self,
        num_numbers: Annotated[int, "numbers given"] = 3,
        max_number: Annotated[int, "largest number given"] = 9,
        num_test: Annotated[int, "problems in the test set"] = 512,
    ):
        if not 2 <= num_numbers <= 8:
            raise ValueError(f"num_numbers={num_numbers}: expected 2 to 8")
        if not 1 <= max_number <= 1000:
            raise ValueError(f"max_number={max_number}: expected 1 to 1000")
        self._count, self._largest = num_numbers, max_number
        self.train = Generated(self, False, 2**31 - 1)
        self.test = Generated(self, True, num_test)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """1 where the expression is right and uses numbers given, each once at most."""
        value, used = evaluate(completion.strip())
        given = Counter(problem.info["numbers"])
        return Verdict(float(value == problem.answer and not Counter(used) - given))

    def draw(self, index: int, test: bool) -> Problem:
        """Problem `index`; a random expression guarantees that it has an answer."""
        for attempt in range(10_000):
            rng = np.random.default_rng([index, attempt, test, 11])
            numbers = rng.integers(1, self._largest + 1, size=self._count).tolist()
            held_out = zlib.crc32(repr(sorted(numbers)).encode()) % _TEST_SHARE == 0
            if held_out != test:
                continue
            value, text = Fraction(numbers[0]), str(numbers[0])
            for number in numbers[1:]:
                sign = "+-*"[rng.integers(3)]
                value = {"+": value + number, "-": value - number}.get(
                    sign, value * number
                )
                text = (
                    f"({text}){sign}{number}"
                    if sign == "*"
                    else f"{text}{sign}{number}"
                )
            if 0 < value <= 1000:
                order = rng.permutation(numbers).tolist()
                prompt = f"{','.join(map(str, order))}={value}: "
                return Problem(prompt, value, index, text, {"numbers": order})
        raise RuntimeError(f"no problem found for index {index}")


def evaluate(text: str) -> tuple[Fraction | None, list[int]]:
    """Value of an expression in + - * / and integers, and the integers it uses.

    The syntax tree is walked, nothing is executed, and fractions are exact. Anything
    else, or an expression of more than 200 characters, gives (None, []).
    """
    if len(text) > _LONGEST or not text.isascii():
        return None, []
    used: list[int] = []

    def walk(node):
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = walk(node.left), walk(node.right)
            return _OPERATIONS[type(node.op)](left, right)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return Fraction(node.value)
        raise ValueError("not arithmetic")

    try:
        return walk(ast.parse(text, mode="eval").body), used
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
        return None, []
