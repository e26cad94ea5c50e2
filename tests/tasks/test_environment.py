"""Environments of one turn, and the processes that they are judged in."""

import dataclasses
import sys

import numpy as np
import pytest

from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks import Problem, Verdict, processes, verify_all
from jaxrl_surrogate.tasks.environment import OneTurn, Turn, environment_of
from jaxrl_surrogate.tasks.judging import verifier_name


@pytest.fixture(autouse=True)
def no_processes_left():
    yield
    processes.close_shared()


@dataclasses.dataclass(frozen=True)
class Guess:
    """Not a task: it has no verifier, and a state that it makes for each episode."""

    secret: int = 7

    def reset(self, problem):
        return {"left": problem.answer, "secret": self.secret}

    def step(self, state, text):
        state["left"] -= 1
        if text == "raise":
            raise RuntimeError("no such luck")
        if text == "nothing":
            return None
        done = state["left"] == 0
        return Turn("" if done else "again", float(int(text) == state["secret"]), done)


PROBLEMS = [Problem("once", 1), Problem("twice", 2)]


@pytest.mark.parametrize(
    "workers", [0, pytest.param(1, marks=pytest.mark.multiprocess)]
)
def test_an_environment_of_one_turn_is_judged_as_a_task(workers):
    texts = [["7", "8", "raise", "nothing"]] * 2
    rewards, mask, notes = verify_all(Guess(), PROBLEMS, texts, workers=workers)
    np.testing.assert_array_equal(rewards, [[1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [0, 0, 0, 0]])
    notes = notes.tolist()
    assert notes[0][:2] == ["", ""]
    assert notes[0][2].startswith(f"RuntimeError: no such luck ({__file__}:")
    assert notes[0][3].startswith("AttributeError: 'NoneType' object has no attribute")
    assert notes[1][:2] == ["step goes on after one turn; expected done=True"] * 2
    assert verifier_name(Guess()).startswith(f"Guess.step, {__file__}:")


@pytest.mark.parametrize("name", [n for n in tasks.names() if n != "gsm8k"])
def test_a_task_is_the_environment_of_one_turn(name):
    task = tasks.get(name, num_test=8)
    environment = environment_of(task)
    assert environment == OneTurn(task) and environment_of(environment) is environment
    rewards = []
    for problem in task.test:
        for text in (problem.completion, "neither"):
            turn = environment.step(environment.reset(problem), text)
            assert (turn.observation, turn.done) == ("", True)
            assert turn.reward == task.verify(problem, text)
            rewards.append(turn.reward.reward)
    assert rewards == [1, 0] * 8


HEAVY = (
    "jax", "jaxlib", "flax", "optax", "orbax", "chex", "grain", "pydantic", "rich",
    "yaml", "tokenizers", "reasoning_gym",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Imported:
    """Rewards a process that has the module of the completion."""

    def verify(self, problem, completion):
        if problem.prompt == "import":
            __import__(completion)
        return Verdict(float(completion in sys.modules))


@pytest.mark.multiprocess
def test_a_verifier_process_imports_what_verifies_and_no_more():
    names = ["jaxrl_surrogate.tasks.arithmetic", "numpy", *HEAVY]
    rewards, mask, _ = verify_all(Imported(), PROBLEMS[:1], [names], workers=1)
    assert mask.all()
    assert dict(zip(names, rewards[0], strict=True)) == {
        "jaxrl_surrogate.tasks.arithmetic": 1,
        "numpy": 1,
    } | dict.fromkeys(HEAVY, 0)
    # The test can tell: once a verifier imports one, it is there.
    problems = [Problem("import", 0), Problem("", 0)]
    found, _, _ = verify_all(Imported(), problems, [["yaml"]] * 2, workers=1)
    np.testing.assert_array_equal(found, [[1], [1]])
