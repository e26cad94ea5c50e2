"""Countdown: make a target from given numbers. A problem has many correct answers."""

import ast
import operator
import re
from collections import Counter
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.answers import answer_text
from jaxrl_surrogate.tasks.generated import Candidate, Draws, split
from jaxrl_surrogate.tasks.task import Problem, Verdict

_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ALPHABET = re.compile(r"[0-9+\-*/() ]+")
_LONGEST = 200  # characters of an expression: bounds depth, digits and work


class Countdown:
    """Problems that ask for an expression in given numbers that equals a target.

    Each problem is made from a random expression whose intermediate values are positive
    integers, so every problem can be solved. That expression is the reference
    completion. The target is never one of the given numbers.
    """

    name = "countdown"

    def __init__(
        self,
        num_numbers: Annotated[int, "numbers given, 2 to 8"] = 3,
        max_number: Annotated[int, "largest number given, up to 1000"] = 9,
        max_target: Annotated[int, "largest target"] = 100,
        form: Annotated[
            Literal["symbols", "words"],
            "3,7,8=24: or Use 3, 7 and 8, each at most once, to make 24: ",
        ] = "symbols",
        partial_credit: Annotated[
            float, "reward of a proper expression that misses the target, below 0.5"
        ] = 0.0,
        num_test: Annotated[int, "test problems; fewer if there are not so many"] = 512,
    ):
        """Make the task; each argument's annotation describes it.

        Raises:
          FieldError: an option has an impossible value.
        """
        if not 2 <= num_numbers <= 8:
            raise FieldError("num_numbers", num_numbers, "2 to 8")
        if not 1 <= max_number <= 1000:
            raise FieldError("max_number", max_number, "1 to 1000")
        if max_target < 1:
            raise FieldError("max_target", max_target, "at least 1")
        if form not in ("symbols", "words"):
            raise FieldError("form", form, "symbols or words")
        if not 0 <= partial_credit < 0.5:
            raise FieldError(
                "partial_credit",
                partial_credit,
                "at least 0 and below 0.5, where rewards begin to count as right",
            )
        self._partial_credit = partial_credit
        self._num_numbers, self._max_number = num_numbers, max_number
        self._max_target, self._form = max_target, form
        self.train, self.test = split(self._make, num_test)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Return the reward of an expression.

        The reward is 1 if the expression equals the target and uses only given numbers,
        each at most once. It is `partial_credit` if the expression uses only those but
        has another value, and 0 otherwise. `answers.answer_text` finds the expression
        in the completion, and `evaluate` computes its value.
        """
        value, used = evaluate(answer_text(completion))
        given = Counter(problem.info["numbers"])
        if value is None or Counter(used) - given:
            return Verdict(0.0)
        return Verdict(1.0 if value == problem.answer else self._partial_credit)

    def _make(self, draws: Draws) -> Candidate | None:
        numbers = [draws.integer(1, self._max_number) for _ in range(self._num_numbers)]
        parts = [_Part(number, str(number), 3) for number in numbers]
        parts = parts[: draws.integer(2, len(parts))]
        while len(parts) > 1:
            left, right, *rest = draws.shuffled(parts)
            joined = _join(draws.choice("+-*/"), left, right)
            if joined is None:
                return None
            parts = [joined, *rest]
        target, text, _ = parts[0]
        if target in numbers or target > self._max_target:
            return None
        order = draws.shuffled(numbers)
        problem = Problem(
            prompt=_phrase(self._form, order, target),
            answer=target,
            completion=text,
            info={"numbers": order},
        )
        return Candidate(repr((sorted(numbers), target)), problem)


def evaluate(text: str) -> tuple[Fraction | None, list[int]]:
    """Evaluate an expression of + - * / ( ) and integers, exactly.

    The syntax tree is walked and nothing is executed. The length bounds the work: at
    most 100 operations on at most 200 digits.

    Returns:
      The value and the integers that the expression uses. The value is None for any
      other text: one with names, signs before a number, powers, digits other than 0-9,
      leading zeros, a division by zero, or more than 200 characters.
    """
    if len(text) > _LONGEST or not _ALPHABET.fullmatch(text):
        return None, []
    used: list[int] = []

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = walk(node.left), walk(node.right)
            return _OPERATIONS[type(node.op)](left, right)
        if isinstance(node, ast.Constant):
            used.append(node.value)
            return Fraction(node.value)
        raise ValueError("not one of the four operations")

    try:
        return walk(ast.parse(text.strip(), mode="eval").body), used
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
        return None, []


class _Part(NamedTuple):
    value: int
    text: str
    rank: int  # 1 sum or difference, 2 product or quotient, 3 number


def _join(sign: str, left: _Part, right: _Part) -> _Part | None:
    """Combine two parts, or return None if the value is no positive integer."""
    if sign == "-" and left.value <= right.value:
        return None
    if sign == "/" and left.value % right.value:
        return None
    value = {
        "+": left.value + right.value,
        "-": left.value - right.value,
        "*": left.value * right.value,
        "/": left.value // right.value,
    }[sign]
    rank = 1 if sign in "+-" else 2
    before = f"({left.text})" if left.rank < rank else left.text
    # a - (b + c) and a / (b * c) need parentheses, a + (b - c) and a * (b / c) do not.
    inside = right.rank < rank or (right.rank == rank and sign in "-/")
    after = f"({right.text})" if inside else right.text
    return _Part(value, f"{before}{sign}{after}", rank)


def _phrase(form: str, numbers: list[int], target: int) -> str:
    if form == "symbols":
        return f"{','.join(map(str, numbers))}={target}: "
    listed = ", ".join(map(str, numbers[:-1]))
    return f"Use {listed} and {numbers[-1]}, each at most once, to make {target}: "
