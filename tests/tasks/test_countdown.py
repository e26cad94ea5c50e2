"""Countdown: brute force as the oracle, and hostile completions."""

import itertools
import time
from collections import Counter
from fractions import Fraction

import pytest

from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.tasks.countdown import evaluate


def reachable(numbers):
    """All values that some of the numbers give, each used at most once."""
    found = {}

    def values(items):
        if items not in found:
            out = {items[0]} if len(items) == 1 else set()
            for size in range(1, len(items)):
                for left in itertools.combinations(range(len(items)), size):
                    right = [i for i in range(len(items)) if i not in left]
                    for a in values(tuple(items[i] for i in left)):
                        for b in values(tuple(items[i] for i in right)):
                            out |= {a + b, a - b, a * b}
                            if b:
                                out.add(a / b)
            found[items] = out
        return found[items]

    exact = tuple(map(Fraction, numbers))
    chosen = (itertools.combinations(exact, size) for size in range(1, len(exact) + 1))
    return set().union(*(values(items) for items in itertools.chain(*chosen)))


OPTIONS = [
    {},
    {"num_numbers": 2, "max_number": 4},
    {"num_numbers": 4, "max_number": 99, "max_target": 1000, "form": "words"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_problem_can_be_solved(options, random):
    task = tasks.get("countdown", num_test=32, **options)
    indices = random.integers(len(task.train), size=40).tolist()
    for problem in [*(task.train[index] for index in indices), *task.test]:
        numbers = problem.info["numbers"]
        assert problem.answer in reachable(numbers)
        assert problem.answer not in numbers
        assert 1 <= problem.answer <= options.get("max_target", 100)
        assert task.verify(problem, problem.completion).reward == 1
        assert task.verify(problem, problem.completion + "+0").reward == 0
        assert task.verify(problem, str(problem.answer)).reward == 0


def test_random_expressions_have_pythons_value(random):
    def expression(depth):
        """A fully bracketed expression over Fractions, and as the verifier sees it."""
        if depth == 0 or random.random() < 0.3:
            number = int(random.integers(0, 30))
            return f"Fraction({number})", str(number), [number]
        sign = "+-*/"[random.integers(4)]
        left, right = expression(depth - 1), expression(depth - 1)
        return (
            f"({left[0]}{sign}{right[0]})",
            f"({left[1]}{sign}{right[1]})",
            left[2] + right[2],
        )

    for _ in range(300):
        python, text, numbers = expression(3)
        try:
            expected = eval(python)
        except ZeroDivisionError:
            assert evaluate(text) == (None, [])
            continue
        assert evaluate(text) == (expected, numbers)
        # Without the outer brackets, precedence decides; integers hide no division.
        bare = text[1:-1] if text.startswith("(") and "/" not in text else text
        if "/" not in bare:
            assert evaluate(bare)[0] == eval(bare)


def test_train_and_test_share_no_problem():
    task = tasks.get("countdown")

    def key(problem):
        return (*sorted(problem.info["numbers"]), problem.answer)

    test = [key(problem) for problem in task.test]
    assert len(test) > 200 and len(set(test)) == len(test)
    assert not set(test) & {key(task.train[index]) for index in range(3000)}


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("(8-3)*5", 1),
        ("5*(8-3)", 1),
        (" ( 8 - 3 ) * 5 ", 1),
        ("<answer>5*(8-3)</answer>", 1),
        (r"so \boxed{5*(8-3)}", 1),
        ("5*5", 0),  # 5 is there once
        ("25", 0),
        ("5*(8-3)+1-1", 0),
        ("5*8-3", 0),
        ("5*(8-3)=25", 0),
        ("-5*(3-8)", 0),
        ("5**2", 0),
        ("50//2", 0),
        ("5*(8-03)", 0),
        ("5*(8-3", 0),
        ("5(8-3)", 0),
        ("5*(8-3);", 0),
        ("5*(8-3)#", 0),
        ("5*(8-3)\n+0", 0),
        ("5 * 8 - 1_5", 0),
        ("0x19", 0),
        ("5*(8-3.0)", 0),
        ("5*(8-3j)", 0),
        ("８", 0),
        ("5×(8-3)", 0),
        ("int('25')", 0),
        ("__import__('os')._exit(1)", 0),
        ("True", 0),
        ("(lambda: 25)()", 0),
        ("[25][0]", 0),
        ("25 if 1 else 0", 0),
        ("'25'", 0),
        ("", 0),
        ("()", 0),
        ("\x00", 0),
        ("3/(5-5)", 0),
        ("1/0", 0),
    ],
)
def test_what_counts_as_an_expression(completion, reward):
    task = tasks.get("countdown", num_test=1)
    problem = Problem("3,5,8=25: ", 25, info={"numbers": [3, 5, 8]})
    verdict = task.verify(problem, completion)
    assert verdict.ok and verdict.reward == reward


HOSTILE = [
    "9**9**9**9",
    "9" * 10_000,
    "(" * 10_000 + "1" + ")" * 10_000,
    "(" * 99 + "1" + ")" * 99,
    "(" * 200,
    ")" * 200,
    "1+" * 99 + "1",
    "1+" * 50_000 + "1",
    "1*" * 99 + "9" * 2,
    "9" * 99 + "*" + "9" * 100,
    "-" * 199 + "1",
    "1/" * 99 + "1",
    "a" * 199,
    "٣+٤",
    "\ud800",
    "1 " * 100,
    "*" * 200,
    "()" * 100,
    " " * 200,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_texts_are_refused_with_little_work(text):
    task = tasks.get("countdown", num_test=1)
    problem = Problem("3,5,8=25: ", 25, info={"numbers": [3, 5, 8]})
    start = time.process_time()
    assert task.verify(problem, text).reward == 0
    # Bounded, not timed: a power of powers would never end.
    assert time.process_time() - start < 20


def test_random_text_never_crashes(random):
    alphabet = [*"0123456789+-*/() \n\t.,eEjx_#'\"\\aé٣", "**", "//", "1" * 60]
    task = tasks.get("countdown", num_test=1)
    problem = Problem("3,5,8=25: ", 25, info={"numbers": [3, 5, 8]})
    for _ in range(2000):
        size = random.integers(0, 60)
        text = "".join(random.choice(alphabet, size=size).tolist())
        value, used = evaluate(text)
        assert value is not None or used == []
        reward = task.verify(problem, text).reward
        right = value == 25 and not Counter(used) - Counter([3, 5, 8])
        assert reward == float(right)


def test_partial_credit_is_for_proper_expressions_alone():
    task = tasks.get("countdown", partial_credit=0.1)
    problem = Problem("", 25, info={"numbers": [3, 5, 8]})
    for text, reward in (("5*(8-3)", 1), ("8-3", 0.1), ("5*5", 0), ("8-", 0)):
        assert task.verify(problem, text).reward == reward


@pytest.mark.parametrize(
    "options",
    [
        {"num_numbers": 1},
        {"num_numbers": 9},
        {"max_number": 0},
        {"max_target": 0},
        {"form": "prose"},
        {"num_test": 0},
        {"partial_credit": 0.5},
    ],
    ids=str,
)
def test_impossible_options_are_named(options):
    with pytest.raises(ValueError, match=rf"^options\.{next(iter(options))}="):
        tasks.get("countdown", **options)


def test_too_few_problems_are_refused():
    with pytest.raises(ValueError, match="so few problems"):
        tasks.get("countdown", num_numbers=2, max_number=1)
