"""verify_all: order, masks, and verifiers that raise, hang, exit or overwhelm."""

import dataclasses
import functools
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks import Problem, Verdict, processes, verify_all
from jaxrl_surrogate.tasks.environment import OneTurn
from jaxrl_surrogate.tasks.judging import judge, verifier_name


@dataclasses.dataclass(frozen=True)
class Hostile:
    """Does to its process what the completion says."""

    name: str = "hostile"
    train: tuple = ()
    test: tuple = ()

    def verify(self, problem, completion):
        if completion == "raise":
            raise RuntimeError("no such luck")
        if completion == "system exit":
            raise SystemExit(3)
        if completion == "hang":
            while True:
                time.sleep(0.01)
        if completion == "hang in C":
            10**10**9
        if completion == "exit":
            os._exit(7)
        if completion == "abort":
            os.abort()
        if completion == "deep":
            return self.verify(problem, completion)
        if completion == "nothing":
            return None
        if completion == "unsure":
            return Verdict(1.0, ok=False)
        if completion == "long":
            return Verdict(1.0, note="x" * 10**6)
        if completion == "process":
            return Verdict(float(os.getpid()))
        return Verdict(float(completion) + problem.answer)


class Unpicklable(Hostile):
    def __reduce__(self):
        raise TypeError("holds a socket")


@dataclasses.dataclass(frozen=True)
class Unloadable(Hostile):
    def __reduce__(self):
        return os._exit, (9,)


@pytest.fixture(autouse=True)
def no_processes_left():
    yield
    processes.close_shared()


PROBLEMS = [Problem("a", 0), Problem("b", 100)]


def _line(text):
    """file:line of this file that holds a text for the first time."""
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{1 + next(i for i, line in enumerate(lines) if text in line)}"


RAISED = f"RuntimeError: no such luck ({_line('raise RuntimeError(')})"


@pytest.mark.parametrize("workers", [0, 2])
def test_order_types_and_notes(workers):
    completions = [["1", "raise", "inf"], ["2", "nan", "3"]]
    rewards, mask, notes = verify_all(
        Hostile(), PROBLEMS, completions, workers=workers, timeout_s=60
    )
    np.testing.assert_array_equal(rewards, [[1, 0, 0], [102, 0, 103]])
    np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 0, 1]])
    assert (rewards.dtype, mask.dtype) == (np.float32, np.bool_)
    assert notes.tolist() == [
        ["", RAISED, "verify returned inf, which is not finite in float32"],
        ["", "verify returned nan, which is not finite in float32", ""],
    ]


def test_every_way_to_give_no_verdict():
    texts = ["system exit", "deep", "nothing", "unsure", "1e39", "long", "4"]
    rewards, mask, notes = verify_all(Hostile(), PROBLEMS[:1], [texts])
    np.testing.assert_array_equal(mask, [[0, 0, 0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(rewards, [[0, 0, 0, 0, 0, 1, 4]])
    (notes,) = notes.tolist()
    assert notes[0] == f"SystemExit: 3 ({_line('raise SystemExit(3)')})"
    assert notes[1].startswith("RecursionError")
    assert notes[1].endswith(f"({_line('return self.verify(problem, ')})")
    assert notes[2] == "verify returned NoneType; expected a Verdict or a number"
    assert notes[3] == "the verifier gave no verdict"
    assert notes[4:] == [
        "verify returned 1e+39, which is not finite in float32",
        "x" * 200,
        "",
    ]


@pytest.mark.parametrize(
    "value", [1.0, 1, True, np.float32(1), np.int64(1), np.bool_(True)]
)
def test_a_plain_number_is_a_reward(value):
    class Plain(Hostile):
        def verify(self, problem, completion):
            return value

    verdict = judge(OneTurn(Plain()), PROBLEMS[0], "1")
    assert (verdict.reward, verdict.ok, verdict.note) == (1.0, True, "")
    assert type(verdict.reward) is float


def test_the_verifier_is_named_by_file_and_line():
    where = _line("    def verify(self, problem, completion):")
    assert verifier_name(Hostile()) == f"Hostile.verify, {where}"

    class Wrapped(Hostile):
        @functools.wraps(Hostile.verify)
        def verify(self, problem, completion):
            return 1.0

    assert verifier_name(Wrapped()).endswith(where)
    # A verifier that cannot be called so is named too: the fault is where it begins.
    task = Hostile()
    object.__setattr__(task, "verify", lambda only: 1.0)
    note = judge(OneTurn(task), PROBLEMS[0], "1").note
    assert re.fullmatch(rf"TypeError: .* \({re.escape(__file__)}:\d+\)", note)


def test_a_fault_in_a_library_is_placed_at_the_line_that_called_it():
    class Parsing(Hostile):
        def verify(self, problem, completion):
            return Verdict(json.loads("{"))

    note = judge(OneTurn(Parsing()), PROBLEMS[0], "1").note
    assert note.startswith("JSONDecodeError: ")
    assert note.endswith(f"({_line('return Verdict(json.loads')})")


def test_keyboard_interrupt_passes():
    class Interrupted(Hostile):
        def verify(self, problem, completion):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_all(Interrupted(), PROBLEMS[:1], [["1"]])


@pytest.mark.multiprocess
def test_hung_and_dead_verifiers_are_replaced():
    texts = ["1", "hang", "2", "exit", "3", "hang in C", "4", "abort", "5", "raise"]
    outcomes = []
    for _ in range(2):
        rewards, mask, notes = verify_all(
            Hostile(), PROBLEMS[:1], [texts], workers=2, timeout_s=1.0
        )
        np.testing.assert_array_equal(mask, [[1, 0, 1, 0, 1, 0, 1, 0, 1, 0]])
        np.testing.assert_array_equal(rewards, [[1, 0, 2, 0, 3, 0, 4, 0, 5, 0]])
        outcomes.append(notes)
    said = [
        "the verifier exceeded its limit of 1 s",
        "the verifier died (exit code 7)",
        "the verifier exceeded its limit of 1 s",
        "the verifier died (exit code -6)",
        RAISED,
    ]
    for notes in outcomes:
        assert notes[0, 1::2].tolist() == said
        assert not any(notes[0, ::2])


@pytest.mark.multiprocess
def test_processes_stay_between_batches():
    task = Hostile()
    first, _, _ = verify_all(task, PROBLEMS[:1], [["process"] * 20], workers=1)
    again, _, _ = verify_all(task, PROBLEMS[:1], [["process"] * 20], workers=1)
    assert set(first.flat) == set(again.flat) != {os.getpid()}
    assert len(set(first.flat)) == 1


@pytest.mark.multiprocess
def test_killed_from_outside_is_tried_again():
    task = Hostile()
    (pid,), _, _ = verify_all(task, PROBLEMS[:1], [["process"]], workers=1)
    os.kill(int(pid.item()), 9)
    rewards, mask, notes = verify_all(task, PROBLEMS[:1], [["1", "2"]], workers=1)
    np.testing.assert_array_equal(rewards, [[1, 2]])
    assert mask.all() and not any(notes.flat)


@pytest.mark.multiprocess
def test_large_completions_go_through():
    texts = ["1" + " " * 3_000_000, "2"]
    rewards, mask, _ = verify_all(Hostile(), PROBLEMS[:1], [texts], workers=1)
    np.testing.assert_array_equal(rewards, [[1, 2]])
    assert mask.all()


@pytest.mark.multiprocess
def test_tasks_that_cannot_travel_are_refused():
    with pytest.raises(FieldError, match=r"does not pickle.*use 0 workers"):
        verify_all(Unpicklable(), PROBLEMS[:1], [["1"]], workers=1)
    with pytest.raises(FieldError, match=r"died \(exit code 9\) before it was ready"):
        verify_all(Unloadable(), PROBLEMS[:1], [["1"]], workers=1)


def test_empty_and_ragged_batches():
    rewards, mask, notes = verify_all(Hostile(), [], [], workers=2)
    assert rewards.shape == mask.shape == notes.shape == (0, 0)
    rewards, _, _ = verify_all(Hostile(), PROBLEMS, [[], []], workers=2)
    assert rewards.shape == (2, 0)
    with pytest.raises(ValueError, match=r"^completions: have 2 groups of \[1, 2\]"):
        verify_all(Hostile(), PROBLEMS, [["1"], ["1", "2"]])
    with pytest.raises(ValueError, match="expected 2 groups"):
        verify_all(Hostile(), PROBLEMS, [["1"]])
    with pytest.raises(ValueError, match=r"^workers=-1"):
        verify_all(Hostile(), PROBLEMS, [["1"], ["1"]], workers=-1)
    with pytest.raises(ValueError, match=r"^timeout_s=0"):
        verify_all(Hostile(), PROBLEMS, [["1"], ["1"]], timeout_s=0)
