"""Arithmetic: answers against Python's own, surface forms, separate test sets."""

import re

import pytest

from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks import Problem

WORDS = {"plus": "+", "minus": "-", "times": "*"}


def oracle(prompt):
    """What the prompt asks, by another route: Python evaluates it."""
    text = prompt.removeprefix("What is ").strip(" =?")
    for word, sign in WORDS.items():
        text = text.replace(word, sign)
    assert re.fullmatch(r"[0-9+\-* ]+", text)
    return eval(text)


def identity(prompt):
    """Signed products as a set with multiplicity, whatever their order and wording."""
    text = prompt.removeprefix("What is ").strip(" =?")
    for word, sign in WORDS.items():
        text = text.replace(word, sign)
    text = text.replace(" ", "").replace("-", "+-")
    products = []
    for part in text.split("+"):
        factors = sorted(map(int, part.lstrip("-").split("*")))
        products.append((part.startswith("-"), *factors))
    return tuple(sorted(products))


OPTIONS = [
    {},
    {"max_digits": 1},
    {"min_digits": 2, "max_digits": 3, "operations": "add+sub"},
    {"operations": "mul", "form": "words"},
    {"operations": "add+sub+mul", "num_terms": 4, "form": "mixed"},
    {"min_digits": 9, "max_digits": 9, "form": "spaced", "num_terms": 8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_are_pythons(options, random):
    task = tasks.get("arithmetic", num_test=64, **options)
    indices = random.integers(len(task.train), size=200).tolist()
    for problem in [*(task.train[index] for index in indices), *task.test]:
        expected = oracle(problem.prompt)
        assert problem.answer == expected
        assert problem.completion == str(expected)
        assert task.verify(problem, problem.completion).reward == 1
        wrong = expected + int(random.integers(1, 100))
        assert task.verify(problem, str(wrong)).reward == 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_train_and_test_share_no_problem(options):
    task = tasks.get("arithmetic", **options)
    test = [identity(problem.prompt) for problem in task.test]
    assert len(set(test)) == len(test)
    train = {identity(task.train[index].prompt) for index in range(3000)}
    assert not train & set(test)
    assert train and test


def test_every_small_problem_is_on_one_side():
    task = tasks.get("arithmetic", max_digits=1)
    seen = {identity(task.train[index].prompt) for index in range(2000)}
    held = {identity(problem.prompt) for problem in task.test}
    assert len(seen | held) == 55 and not seen & held  # unordered pairs of digits


def test_problems_do_not_change():
    task = tasks.get("arithmetic", operations="add+sub+mul", form="mixed")
    # Update these only with a note in the changelog: runs with old seeds change.
    assert [task.train[index].prompt for index in (0, 1, 2**31 - 2)] == GOLDEN
    assert (
        task.train[5]
        == tasks.get(
            "arithmetic", operations="add+sub+mul", form="mixed", num_test=1
        ).train[5]
    )
    with pytest.raises(IndexError):
        task.train[2**31 - 1]


GOLDEN = ["2*0=", "55 - 2 = ", "64-53="]


def test_quickstart_fits_small_models():
    task = tasks.get("arithmetic", max_digits=3, operations="add+sub")
    tokenizer = tasks.tokenizers.get("ascii")
    for index in range(500):
        problem = task.train[index]
        assert len(tokenizer.encode(problem.prompt)) <= 8
        assert len(tokenizer.encode(problem.completion)) <= 4
        assert 1 <= problem.info["digits"] <= 3


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("46", 1),
        (" 46\n", 1),
        ("046", 1),
        ("+46", 1),
        ("-46", 0),
        ("46.0", 0),
        ("46 ", 1),
        ("4 6", 0),
        ("46 47", 0),
        ("12+34", 0),
        ("", 0),
        ("４６", 0),
        ("9" * 5000, 0),
        ("0" * 5000 + "46", 0),
        ("46\x00", 0),
    ],
)
def test_verifier_is_exact(completion, reward):
    task = tasks.get("arithmetic")
    verdict = task.verify(Problem("12+34=", 46), completion)
    assert verdict.ok and verdict.reward == reward


@pytest.mark.parametrize(
    "options",
    [
        {"min_digits": 3, "max_digits": 2},
        {"max_digits": 10},
        {"num_terms": 1},
        {"operations": "add+div"},
        {"operations": ""},
        {"num_test": 0},
    ],
    ids=str,
)
def test_impossible_options_are_named(options):
    with pytest.raises(ValueError, match=rf"^options\.{next(iter(options))}="):
        tasks.get("arithmetic", **options)
