"""Arithmetic problems of adjustable difficulty, with exact verification."""

import math
import re
from typing import Annotated, Literal

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.generated import Candidate, Draws, split
from jaxrl_surrogate.tasks.task import Problem, Verdict

_SIGNS = {"add": "+", "sub": "-", "mul": "*"}
_WORDS = {"add": "plus", "sub": "minus", "mul": "times"}
_FORMS = ("symbols", "spaced", "words")
_INTEGER = re.compile(r"[+-]?[0-9]{1,64}")


class Arithmetic:
    """Sums, differences and products of integers, such as `12+34=`.

    The number of digits of each operand is drawn from `min_digits` to `max_digits`, so
    one set holds easy and hard problems; `info["digits"]` is the largest of a problem.
    Products are computed before sums. After a short warm start a small model solves
    some problems, and rarely by chance: with `add` and two or three digits, pass@8 is
    far above pass@1. With two operands of at most three digits, prompts of form
    `symbols` have at most 8 characters and completions of `add` and `sub` at most 4.
    """

    name = "arithmetic"

    def __init__(
        self,
        min_digits: Annotated[int, "fewest digits of an operand"] = 1,
        max_digits: Annotated[int, "most digits of an operand, up to 9"] = 2,
        num_terms: Annotated[int, "operands, 2 to 8"] = 2,
        operations: Annotated[str, "some of add, sub, mul, joined by +"] = "add",
        form: Annotated[
            Literal["symbols", "spaced", "words", "mixed"],
            "12+34=, or 12 + 34 = , or What is 12 plus 34? , or one of these at random",
        ] = "symbols",
        num_test: Annotated[int, "test problems; fewer if there are not so many"] = 512,
    ):
        """Make the task; each argument's annotation describes it.

        Raises:
          FieldError: an option has an impossible value.
        """
        if not 1 <= max_digits <= 9:
            raise FieldError("max_digits", max_digits, "1 to 9")
        if not 1 <= min_digits <= max_digits:
            raise FieldError("min_digits", min_digits, f"1 to max_digits={max_digits}")
        if not 2 <= num_terms <= 8:
            raise FieldError("num_terms", num_terms, "2 to 8")
        if form not in (*_FORMS, "mixed"):
            raise FieldError("form", form, f"one of {', '.join(_FORMS)} or mixed")
        self._operations = tuple(operations.split("+"))
        for operation in self._operations:
            if operation not in _SIGNS:
                raise FieldError(
                    "operations",
                    operations,
                    f"some of {', '.join(_SIGNS)}, joined by +",
                )
        self._digits = (min_digits, max_digits)
        self._num_terms = num_terms
        self._forms = _FORMS if form == "mixed" else (form,)
        self.train, self.test = split(self._make, num_test)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Return reward 1 if the completion is the correct integer, 0 otherwise.

        White space around the integer is allowed; words, other numbers and decimals are
        not.
        """
        text = completion.strip()
        is_integer = _INTEGER.fullmatch(text) is not None
        return Verdict(float(is_integer and int(text) == problem.answer))

    def _make(self, draws: Draws) -> Candidate:
        terms, digits = [], []
        for _ in range(self._num_terms):
            digits.append(draws.integer(*self._digits))
            low = 0 if digits[-1] == 1 else 10 ** (digits[-1] - 1)
            terms.append(draws.integer(low, 10 ** digits[-1] - 1))
        operations = [draws.choice(self._operations) for _ in terms[1:]]
        form = draws.choice(self._forms)
        products = _signed_products(terms, operations)
        answer = sum(sign * math.prod(factors) for sign, factors in products)
        problem = Problem(
            prompt=_phrase(form, terms, operations),
            answer=answer,
            completion=str(answer),
            info={"digits": max(digits), "form": form},
        )
        # Problems that differ only in the order of their terms count as the same.
        key = sorted((sign, sorted(factors)) for sign, factors in products)
        return Candidate(repr(key), problem)


def _signed_products(
    terms: list[int], operations: list[str]
) -> list[tuple[int, list[int]]]:
    products = [(1, [terms[0]])]
    for operation, term in zip(operations, terms[1:], strict=True):
        if operation == "mul":
            products[-1][1].append(term)
        else:
            products.append((1 if operation == "add" else -1, [term]))
    return products


def _phrase(form: str, terms: list[int], operations: list[str]) -> str:
    names = _WORDS if form == "words" else _SIGNS
    parts = [str(terms[0])]
    for operation, term in zip(operations, terms[1:], strict=True):
        parts += [names[operation], str(term)]
    if form == "symbols":
        return "".join(parts) + "="
    if form == "spaced":
        return " ".join(parts) + " = "
    return f"What is {' '.join(parts)}? "
