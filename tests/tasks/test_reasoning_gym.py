"""Datasets of reasoning-gym: no shared problems, scores, answers, missing library."""

import pickle
import sys

import pytest

from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks import reasoning_gym as room

NAMES = ["chain_sum", "leg_counting", "string_manipulation", "list_functions"]


@pytest.fixture
def library():
    return pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("name", NAMES)
def test_answers_score_and_travel(library, name):
    task = tasks.get(f"reasoning_gym:{name}", size=30, num_test=10)
    assert (len(task.train), len(task.test)) == (30, 10)
    problems = [task.train[index] for index in range(10)]
    assert problems == [task.train[index] for index in range(10)]
    copy = pickle.loads(pickle.dumps(task))
    assert [copy.test[index] for index in range(10)] == list(task.test)
    for problem in problems:
        assert task.verify(problem, problem.completion).reward == 1
        tagged = f"well <answer> {problem.completion} </answer>"
        assert copy.verify(problem, tagged).reward == 1
        assert task.verify(problem, "nonsense").reward == 0


def test_train_and_test_share_no_problem(library):
    task = tasks.get("reasoning_gym:chain_sum", size=300, num_test=100, min_digits=4)
    train = {task.train[index].prompt for index in range(300)}
    assert len(train) > 290
    assert not train & {problem.prompt for problem in task.test}
    with pytest.raises(IndexError):
        task.train[300]


def test_seed_and_template(library):
    options = {"size": 5, "template": "Q: {question} A: "}
    first = tasks.get("reasoning_gym:chain_sum", **options)
    other = tasks.get("reasoning_gym:chain_sum", seed=1000, **options)
    assert first.train[0].prompt.startswith("Q: ")
    assert first.train[0] != other.train[0]


def test_scores_threshold_and_crashes(library):
    task = tasks.get("reasoning_gym:chain_sum", size=5)
    graded = tasks.get("reasoning_gym:chain_sum", size=5, graded=True)
    lenient = tasks.get("reasoning_gym:chain_sum", size=5, threshold=0.01)
    problem = task.train[0]
    padded = f"{problem.answer} and more words"
    assert task.verify(problem, padded).reward == 0
    assert 0 < graded.verify(problem, padded).reward < 1
    assert lenient.verify(problem, padded).reward == 1

    class Crashing:
        def score_answer(self, answer, entry):
            raise KeyError("lost")

    task._made = Crashing()
    verdict = task.verify(problem, "1")
    assert not verdict.ok and verdict.note == "scorer: KeyError: 'lost'"


def test_global_random_state_is_left_alone(library):
    import random

    task = tasks.get("reasoning_gym:list_functions", size=5)
    before = random.getstate()
    task.train[0]
    assert random.getstate() == before


def test_names_and_options_are_checked(library):
    with pytest.raises(ValueError, match="did you mean chain_sum"):
        tasks.get("reasoning_gym:chainsum")
    with pytest.raises(ValueError, match=r"options\.min_term=3.*did you mean min_te"):
        tasks.get("reasoning_gym:chain_sum", min_term=3)
    with pytest.raises(ValueError, match=r"options\.min_terms='3': expected integer"):
        tasks.get("reasoning_gym:chain_sum", min_terms="3")
    with pytest.raises(ValueError, match="refuses it"):
        tasks.get("reasoning_gym:chain_sum", min_terms=9, max_terms=2)
    with pytest.raises(ValueError, match=r"options\.size=0"):
        tasks.get("reasoning_gym:chain_sum", size=0)
    assert tasks.options("reasoning_gym:chain_sum")["min_terms"].default == 2
    assert "chain_sum" in room.dataset_names()


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tasks\]'"):
        tasks.get("reasoning_gym:chain_sum")
