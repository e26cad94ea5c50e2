"""A run whose verifier fails stops and says where; one that works prints nothing."""

import json
import multiprocessing
import re
import time
from pathlib import Path

import numpy as np
import pytest

from jaxrl_surrogate import cli, tasks
from jaxrl_surrogate.tasks import Verdict, processes
from jaxrl_surrogate.tasks.arithmetic import Arithmetic


class KeyMissing(Arithmetic):
    """Looks into `info` for what is not there."""

    def verify(self, problem, completion):
        return Verdict(float(completion == problem.info["solution"]))


class GivesNothing(Arithmetic):
    """Has lost its return."""

    def verify(self, problem, completion):
        super().verify(problem, completion)


class GivesSeven(Arithmetic):
    """Takes a point for each of seven virtues, once in a while."""

    def verify(self, problem, completion):
        return 7 if problem.answer % 2 else 0


class Grades(Arithmetic):
    """Gives plain numbers: what is even has most of a point."""

    def verify(self, problem, completion):
        return 0.7 if problem.answer % 2 else sum(map(ord, completion)) % 2 == 0


class Workers(Arithmetic):
    """Judges in a verifier process alone, and never comes back on a problem."""

    def verify(self, problem, completion):
        if multiprocessing.parent_process() is None:
            raise RuntimeError("judged in the trainer's process")
        while problem.id == 1:
            time.sleep(0.01)
        return True


ALL = (KeyMissing, GivesNothing, GivesSeven, Grades, Workers)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`jaxrl COMMAND` of a small run with a task of this file."""
    for task in ALL:
        monkeypatch.setitem(tasks._TASKS, task.__name__, task)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "task: {name: arithmetic, options: {min_digits: 1, max_digits: 1}}\n"
        "model: {preset: nano}\n"
        f"run_dir: {tmp_path}/run\n"
        "rollout: {prompts_per_step: 8, group_size: 4, max_prompt_length: 4, "
        "max_completion_length: 3}\n"
        "eval: {prompts: 0, samples: 4}\n"
        "log: {tensorboard: false}\n"
    )

    def run(name, task, *more):
        return cli.main([name, str(path), f"--task.name={task.__name__}", *more])

    return run


def _events(tmp_path, *wanted):
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    return [event for event in events if event in wanted]


def _line(text):
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{1 + next(i for i, line in enumerate(lines) if text in line)}"


STOPS = {
    KeyMissing: [
        "no verdict on 32 of 32 completions",
        f"KeyError: 'solution' ({_line('problem.info[')}) (32 times)",
        "KeyMissing.verify, " + _line("def verify"),
    ],
    GivesNothing: [
        "no verdict on 32 of 32 completions",
        "verify returned NoneType; expected a Verdict or a number (32 times)",
    ],
    GivesSeven: [
        "rewards are not in [0, 1], such as 7",
        "objective.rewards=binary",
        "set objective.rewards=layer_cake",
    ],
}


@pytest.mark.parametrize("task", STOPS, ids=lambda task: task.__name__)
def test_the_first_batch_stops_a_run_that_could_learn_nothing(
    command, task, tmp_path, capsys
):
    shown = []
    for _ in range(2):  # started again, it judges what it had sampled, and says so
        assert command("train", task, "--train.steps=3") == 3
        error = capsys.readouterr().err
        assert error.startswith("jaxrl: step 1: ")
        assert all(words in error for words in STOPS[task]), error
        assert re.search(r"  prompt: '\d\+\d='\n  completion: '.*'\n", error)
        shown.append(error)
    assert shown[0] == shown[1]
    assert _events(tmp_path, "rollout", "verify") == ["rollout", "verify", "verify"]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("update/*"))


def test_an_evaluation_without_verdicts_has_no_score(command, capsys):
    more = "--eval.prompts=8", "--train.steps=1"
    assert command("train", KeyMissing, *more) == 3
    printed = capsys.readouterr()
    assert printed.err.startswith("jaxrl: evaluation: no verdict on 32 of 32")
    assert "pass@1" not in printed.out


def test_plain_numbers_train_and_grades_are_said_once(command, tmp_path, capsys):
    assert command("train", Grades, "--train.steps=3", "--log.every=1") == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("warning:") == 1
    assert "of 32 rewards are neither 0 nor 1" in printed.out
    assert "takes 0.5 and more as correct" in printed.out
    assert "0.7 as correct" in printed.out
    assert "Grades.verify, " in printed.out
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["unverified"] for row in rows] == [0, 0, 0]
    assert all(0 < row["reward"] < 1 for row in rows)
    # The first and the last step have samples, however short the run is.
    lines = (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert [row["step"] for row in samples] == [1] * 4 + [3] * 4
    assert {row["reward"] for row in samples} <= {np.float32(0.7).item(), 0, 1}


@pytest.mark.slow
@pytest.mark.multiprocess
def test_sample_judges_as_the_run_does_and_shows_what_groups_are(command, capsys):
    """In worker processes, with their limits, and each completion once."""
    limits = "--task.verify_workers=2", "--task.verify_timeout_s=1"
    assert command("train", Workers, "--train.steps=0", *limits) == 0
    capsys.readouterr()
    assert command("sample", Workers, "--eval.prompts=8", *limits) == 0
    processes.close_shared()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "parameters after step 0"
    groups = [line for line in lines if re.match(r"'\d\+\d=': ", line)]
    assert [group.split(": ")[1] for group in groups] == [
        "no verdict" if row == 1 else "4 of 4 correct, mean reward 1"
        for row in range(8)
    ]
    note = "(the verifier exceeded its limit of 1 s)"
    assert sum(line.startswith("  1     '") for line in lines) == 28
    assert sum(line.startswith("  none  '") and note in line for line in lines) == 4
    assert lines[-6:] == [
        "8 of 8 prompts shown; all of them, with 4 completions each:",
        "  groups   7 all correct, 1 without a verdict",
        "  rewards  mean 1.000, standard deviation 0.000, from 1 to 1",
        "  correct  28 of 28 completions with a verdict",
        "4 of 32 completions have no verdict and count as incorrect",
        "verifier: the verifier exceeded its limit of 1 s (4 times)",
    ]
