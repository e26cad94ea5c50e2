"""A task and a reward from files outside the package: trained, continued, evaluated."""

import json
import os
import sys

import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.tasks import processes

TASK = '''
from typing import Annotated

from jaxrl_surrogate.tasks import Problem


class Reversed:
    """Write a word backwards; a point for its length and one for its first letter."""

    def __init__(self, letters: Annotated[str, "to make words of"] = "abcdef",
                 length: int = 2, *, bonus: float = 0.5):
        words = [a + b for a in letters for b in letters][: len(letters) ** length]
        self.bonus = bonus
        problems = [Problem(f"{word}:", word[::-1], completion=word[::-1])
                    for word in words]
        self.train, self.test = problems[4:], problems[:4]

    def verify(self, problem, completion):
        right = completion[:1] == problem.answer[:1]
        return right * self.bonus + (len(completion) == len(problem.answer)) * 0.5


def even(completion, answer):
    """1 where the codes of the characters add up to an even number."""
    if not completion:
        return None
    return sum(map(ord, completion + answer)) % 2 == 0
'''
SMALL = (
    "model: {preset: nano}\n"
    "rollout: {prompts_per_step: 8, group_size: 4, max_prompt_length: 8, "
    "max_completion_length: 3}\n"
    "train: {steps: 2}\n"
    "objective: {rewards: layer_cake}\n"
    "eval: {prompts: 4, samples: 4}\n"
    "checkpoint: {every: 1, keep_last: 9}\n"
    "log: {tensorboard: false, completions_every: 1, completions: 4}\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a config; what is imported from it is forgotten."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    processes.close_shared()
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _write(folder, name, text=TASK):
    path = folder / name
    path.write_text(text)
    return path


def _rows(run, name):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def _check_samples(run, reward_of):
    """Every logged sample has the reward that the user's function gives its text."""
    samples = _rows(run, "completions.jsonl")
    assert len(samples) >= 8
    for row in samples:
        expected = reward_of(row["prompt"], row["completion"])
        assert row["verified"] == (expected is not None)
        assert row["reward"] == pytest.approx(float(expected or 0))
    return samples


@pytest.mark.multiprocess
def test_a_task_from_a_file(folder, capsys):
    _write(folder, "own_task.py")
    words = [
        "small.yaml", "--task.name=own_task.py:Reversed", "--task.options.length=2.0",
        "--task.options.bonus=0.25", "--task.verify_workers=2",
    ]  # fmt: skip
    assert cli.main(["train", *words]) == 0, capsys.readouterr().err
    run = folder / "runs" / "small"
    made = sys.modules["own_task"].Reversed(bonus=0.25)
    by_prompt = {problem.prompt: problem for problem in made.train}
    _check_samples(run, lambda prompt, text: made.verify(by_prompt[prompt], text))
    assert _rows(run, "evaluations.jsonl")[0]["problems"] == [0, 1, 2, 3]
    assert f"name: {folder}/own_task.py:Reversed" in (run / "config.yaml").read_text()
    # From another working directory, by the run's own config.
    os.chdir("/")
    capsys.readouterr()
    assert cli.main(["eval", str(run)]) == 0
    assert "4 test problems" in capsys.readouterr().out
    assert cli.main(["sample", str(run)]) == 0
    assert "'aa:'" in capsys.readouterr().out
    # And from here, as it was begun.
    os.chdir(folder)
    assert cli.main(["train", *words, "--train.steps=3", "--eval.prompts=0"]) == 0
    assert [row["step"] for row in _rows(run, "metrics.jsonl")] == [0, 1, 2, 3]


def test_a_reward_from_a_file(folder, capsys):
    text = TASK.replace("completion + answer", "completion + str(answer)")
    path = _write(folder, "own_reward.py", text)
    words = [
        "small.yaml", "--task.reward=own_reward.py:even", "--task.options.max_digits=1",
        "--task.verify_max_failures=0.9", "--eval.prompts=0",
    ]  # fmt: skip
    assert cli.main(["train", *words]) == 0, capsys.readouterr().err
    run = folder / "runs" / "small"

    def reward_of(prompt, text):
        one, other = prompt.removesuffix("=").split("+")
        return sys.modules["own_reward"].even(text, str(int(one) + int(other)))

    _check_samples(run, reward_of)
    rows, groups = _rows(run, "metrics.jsonl"), _rows(run, "groups.jsonl")
    for row, group in zip(rows, groups, strict=True):
        share = sum(group["correct"]) / sum(group["verified"])
        assert row["reward"] == pytest.approx(share)
        assert row["unverified"] == pytest.approx(1 - sum(group["verified"]) / 32)
    assert 0 < sum(row["reward"] for row in rows) < len(rows)
    # Continued with a function that has changed: said once, and named by `verify`.
    path.write_text(path.read_text() + "# changed\n")
    os.chdir("/")
    shown = []
    for steps in (3, 4):
        assert cli.main(["train", str(run), f"--train.steps={steps}"]) == 0
        shown.append(capsys.readouterr().out)
    warning = f"warning: {path} has changed since this run used it; what is stored"
    assert [text.count(warning) for text in shown] == [1, 0]
    starts = [row for row in _rows(run, "events.jsonl") if row["event"] == "start"]
    then, now, again = (row["environment"]["user_code"] for row in starts)
    assert list(then) == [str(path)] and then != now == again
    assert cli.main(["verify", str(run), "--from=1", "--steps=1"]) == 0
    assert f"user_code.{path}: {then[str(path)]} then, {now[str(path)]} now" in (
        capsys.readouterr().out
    )
    assert cli.main(["train", str(run), f"--task.reward={path}:odd"]) == 2
    assert f"task.reward='{path}:odd': {run} was started with" in (
        capsys.readouterr().err
    )


REFUSED = {
    "own_task.py:Revrsed": ["task.name=", "no 'Revrsed'", "did you mean Reversed?"],
    "own_tsk.py:Reversed": ["task.name=", "there is no file", "own_task.py"],
    "bad_a.py:NoTrain": ["the task has no train", "sequences of Problem"],
    "bad_a.py:NoVerify": ["the task has no verify"],
    "bad_a.py:Text": ["verify cannot be called: it is of type str"],
    "bad_a.py:OneArgument": [
        "verify cannot be called with (problem, completion): too many positional"
    ],
    "bad_a.py:Empty": ["train is empty; expected at least 1 problem"],
    "bad_a.py:Generator": ["train is of type generator; expected a sequence"],
    "bad_a.py:Dicts": ["train[0] is of type dict; expected a jaxrl_surrogate.tasks.Pr"],
    "bad_a.py:Shared": ["2 of 3 test problems are in train as well, such as 'b'"],
    "bad_a.py:Raises": ["Raises(...) raised KeyError: 'k' (", "bad_a.py:8)"],
    "bad_a.py:Late": ["train[0] raised ZeroDivisionError:", "bad_a.py:12)"],
    "bad_a.py:three": ["train is of type int"],
    "bad_a.py:absent_problems": ["the task has no train"],
}
BAD = """
from jaxrl_surrogate.tasks import Problem

a, b, c, d = map(Problem, "abcd", "1234")

class Raises:
    def __init__(self):
        {}["k"]

class Slow(list):
    def __getitem__(self, index):
        return 1 / 0

class Base:
    train, test = [a, b, c], [d]
    def verify(self, problem, completion):
        return 1

class NoTrain(Base): train = None
class NoVerify: train, test = [a], []
class Text(Base): verify = "exact"
class OneArgument(Base):
    def verify(self, completion): return 1
class Empty(Base): train = []
class Generator(Base): train = (x for x in [a])
class Dicts(Base): train = [{"prompt": "a"}]
class Shared(Base): test = [b, d, c]
class Late(Base): train = Slow([a])
class three(Base): train = 3
absent_problems = object()
"""


@pytest.mark.parametrize("spec", REFUSED)
def test_a_task_that_cannot_be_trained_is_refused(folder, spec, capsys):
    _write(folder, "own_task.py")
    _write(folder, "bad_a.py", BAD)
    assert cli.main(["train", "small.yaml", f"--task.name={spec}"]) == 2
    error = capsys.readouterr().err
    lines = 3 if spec.endswith("absent_problems") else 1
    assert error.count("jaxrl: task.name=") == error.count("\n") == lines, error
    assert all(words in error for words in REFUSED[spec]), error
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--task.options.lenght=3"],
            "task.options.lenght=3: {task} has no such option; expected letters, "
            "length, bonus; did you mean length?",
        ),
        (["--task.options.length=two"], "task.options.length='two': expected integer"),
        (["--task.options.bonus=x"], "task.options.bonus='x': expected number"),
        (
            ["--task.options.letters=3"],
            "task.options.letters=3: expected text (to make words of)",
        ),
    ],
)
def test_options_are_checked_from_the_signature(folder, words, said, capsys):
    path = _write(folder, "own_options.py")
    spec = f"{path}:Reversed"
    assert cli.main(["train", "small.yaml", f"--task.name={spec}", *words]) == 2
    assert capsys.readouterr().err == f"jaxrl: {said.format(task=spec)}\n"


def test_options_that_are_needed_and_options_of_any_name(folder, capsys):
    _write(
        folder,
        "own_needs.py",
        BAD + "class Needs(Base):\n    def __init__(self, size, **more):\n"
        "        assert (size, more) == (3, {'depth': 'x'})\nready = Base()\n",
    )
    words = ["train", "small.yaml", "--train.steps=0", "--eval.prompts=0"]
    needs = [*words, "--task.name=own_needs.py:Needs", "--task.options.depth=x"]
    assert cli.main(needs) == 2
    assert "task.options.size: " in capsys.readouterr().err
    assert cli.main([*needs, "--task.options.size=3"]) == 0
    # An object has no options.
    ready = [*words, "--name=ready", "--task.name=own_needs.py:ready"]
    assert cli.main(ready) == 0
    capsys.readouterr()
    assert cli.main([*ready, "--name=other", "--task.options.size=3"]) == 2
    assert "has no such option; expected none" in capsys.readouterr().err
    # The test set may be empty, but then there is nothing to evaluate on.


REWARDS = """
class Kind: pass
def one(completion): return 1
def three(completion, answer, other): return 1
nameless = lambda completion, answer: 1.0
number = 3
def text(completion, answer): return "1"
def nan(completion, answer): return float("nan")
def broken(completion, answer):
    return {}["k"]
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Kind", "it is a class; expected a function of (completion, answer)"),
        ("one", "its arguments are (completion); expected a function of (completion,"),
        ("three", "its arguments are (completion, answer, other); expected"),
        ("number", "it is of type int; expected a function"),
        ("thre", "did you mean three?"),
    ],
)
def test_a_reward_that_cannot_be_called_is_refused(folder, name, said, capsys):
    _write(folder, "bad_rewards.py", REWARDS)
    words = ["train", "small.yaml", f"--task.reward=bad_rewards.py:{name}"]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxrl: task.reward='") and said in error, error
    assert not (folder / "runs").exists()


def test_what_does_not_pickle_is_refused_for_worker_processes(folder, capsys):
    _write(folder, "bad_rewards.py", REWARDS)
    words = [
        "train", "small.yaml", "--task.reward=bad_rewards.py:nameless",
        "--train.steps=0", "--eval.prompts=0",
    ]  # fmt: skip
    assert cli.main([*words, "--task.verify_workers=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxrl: task.verify_workers=1: the task or its reward does")
    assert "or use 0 workers" in error
    assert not (folder / "runs").exists()
    assert cli.main(words) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "text returned str; expected a Verdict or a number (32 times)"),
        ("nan", "nan returned nan, which is not finite in float32 (32 times)"),
        ("broken", "KeyError: 'k' ({file}:10) (32 times)"),
    ],
)
def test_a_reward_that_is_none_is_named_and_masked(folder, name, said, capsys):
    path = _write(folder, "bad_rewards.py", REWARDS)
    words = ["train", "small.yaml", f"--task.reward=bad_rewards.py:{name}"]
    assert cli.main([*words, "--eval.prompts=0"]) == 3
    error = capsys.readouterr().err
    assert said.format(file=path) in error
    assert f"  verifier: {name}, {path}:" in error


@pytest.mark.multiprocess
def test_a_file_that_imports_jax_works_in_a_process(folder, capsys):
    _write(
        folder,
        "with_jax.py",
        "import jax.numpy as jnp\n\n\n"
        "def ones(completion, answer):\n    return float(jnp.ones(3).sum() == 3)\n",
    )
    words = ["train", "small.yaml", "--task.reward=with_jax.py:ones"]
    more = ["--task.verify_workers=1", "--eval.prompts=0", "--train.steps=1"]
    assert cli.main([*words, *more, "--task.verify_timeout_s=100"]) == 0
    (row,) = _rows(folder / "runs" / "small", "metrics.jsonl")
    assert (row["reward"], row["unverified"]) == (1, 0)
