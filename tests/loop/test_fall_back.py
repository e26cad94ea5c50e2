"""A run that falls back behind damaged states has the bits of the run never damaged."""

import json
import os
import shutil
import sys

import pytest
from faults import ROOT, SMALL

from jaxrl_surrogate import cli
from jaxrl_surrogate.telemetry.run_log import RunLog

LAST = 11


class Interrupted(Exception):
    """What ends a run in the middle."""


def _train(directory, *more):
    config = str(ROOT / "configs" / "quickstart.yaml")
    words = [*SMALL, "--sft.steps=4", "--checkpoint.every=3", f"--train.steps={LAST}"]
    return cli.main(["train", config, f"--run_dir={directory}", *words, *more])


def _rows(directory, name):
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def _sampled(directory):
    """Steps in the order in which their rollouts were sampled."""
    events = _rows(directory, "events.jsonl")
    return [row["step"] for row in events if row["event"] == "rollout"]


def _stored(directory, phase):
    names = (path.name for path in (directory / "checkpoints" / phase).iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of 11 steps, and one that ended when the rollout of step 11 was stored."""
    whole = tmp_path_factory.mktemp("runs") / "whole"
    assert _train(whole) == 0
    ended = whole.with_name("ended")
    event = RunLog.event

    def interrupt(log, step, name, **details):
        event(log, step, name, **details)
        if (step, name) == (LAST, "verify"):
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "event", interrupt)
        with pytest.raises(Interrupted):
            _train(ended)
    assert _stored(ended, "update") == [3, 6, 9]
    assert _stored(ended, "rollout") == [10, 11]
    return whole, ended


def _damage(run, phase, step):
    (run / "checkpoints" / phase / str(step) / "meta" / "metadata").unlink()


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        ({"update": [9]}, [7, 8, 9]),
        ({"update": [6, 9], "rollout": [11]}, [4, 5, 6, 7, 8, 9, 11]),
    ],
)
def test_later_rollouts_are_used_when_their_step_comes(runs, tmp_path, damaged, again):
    whole, ended = runs
    run = tmp_path / "run"
    shutil.copytree(ended, run)
    for phase, steps in damaged.items():
        for step in steps:
            _damage(run, phase, step)
    before = len(_sampled(run))
    assert _train(run) == 0
    assert _rows(run, "digests.jsonl") == _rows(whole, "digests.jsonl")
    assert _sampled(run)[before:] == again
    aside = {path.name for path in (run / "checkpoints" / "damaged").iterdir()}
    assert {f"{phase}-{step}" for phase in damaged for step in damaged[phase]} <= aside


def test_rollouts_of_another_policy_are_not_used(runs, tmp_path, capsys):
    """The objective is changed on the way: step 10 comes with other parameters."""
    run = tmp_path / "run"
    shutil.copytree(runs[1], run)
    _damage(run, "update", 9)
    before = len(_sampled(run))
    assert _train(run, "--objective.name=grpo") == 0
    assert _sampled(run)[before:] == [7, 8, 9, 10, 11]
    said = capsys.readouterr().out
    for step in (10, 11):
        assert f"rollout/{step} was sampled by other parameters; sampling" in said
        assert (run / "checkpoints" / "damaged" / f"rollout-{step}").is_dir()
    # The next rollout after a state is that state's, whatever is changed for later.
    run = tmp_path / "next"
    shutil.copytree(runs[1], run)
    assert _train(run, "--objective.name=grpo") == 0
    assert _sampled(run)[before:] == [11]


@pytest.mark.slow
def test_a_run_without_a_sound_state_can_be_begun_again(runs, tmp_path, capsys):
    whole, ended = runs
    run = tmp_path / "run"
    shutil.copytree(ended, run)
    for step in (3, 6, 9):
        _damage(run, "update", step)
    for _ in range(2):
        assert _train(run) == 3
        said = capsys.readouterr().err
        assert f"Remove {run}/checkpoints/update to begin again" in said
    shutil.rmtree(run / "checkpoints" / "update")
    assert _train(run) == 0
    assert _rows(run, "digests.jsonl") == _rows(whole, "digests.jsonl")


@pytest.mark.slow
def test_a_damaged_starting_state_is_made_again(runs, tmp_path, capsys):
    whole, ended = runs
    run = tmp_path / "run"
    shutil.copytree(ended, run)
    shutil.rmtree(run / "checkpoints" / "update")
    _damage(run, "start/update", 0)
    assert _train(run) == 3
    said = capsys.readouterr().err
    assert "start/update/0/meta/metadata is missing" in said
    assert f"Remove {run}/checkpoints/start to make" in said
    shutil.rmtree(run / "checkpoints" / "start")
    assert _train(run) == 0
    assert _rows(run, "digests.jsonl") == _rows(whole, "digests.jsonl")


def test_a_byte_that_is_no_text_in_every_log(runs, tmp_path, capsys):
    """Readers read the rest; the trainer sets the line aside, names it and goes on."""
    whole, ended = runs
    run = tmp_path / "run"
    shutil.copytree(ended, run)
    logs = [
        run / f"{name}.jsonl" for name in ("metrics", "groups", "digests", "events")
    ]
    logs.append(run / "checkpoints" / "rewards" / "11.jsonl")
    logs[-1].parent.mkdir(exist_ok=True)
    logs[-1].write_text('\n{"group": 99, "rewards": [1], "mask": [true]}\n' * 3)
    for path in logs:
        lines = path.read_bytes().split(b"\n")
        lines[2] = b"\xff" + lines[2][1:]
        path.write_bytes(b"\n".join(lines))
    assert cli.main(["runs", str(run)]) == 0
    assert cli.main(["objective", f"--replay={run}"]) == 0
    assert cli.main(["verify", str(run)]) == 0
    capsys.readouterr()
    assert _train(run) == 0
    said = capsys.readouterr().out
    for path in logs[:-1]:
        assert f"{path}: damaged in line 3; set aside in {run}/damaged/" in said
    assert f"{logs[-1]}: line 2 is cut or damaged" in said
    expected = _rows(whole, "digests.jsonl")
    assert expected[2]["step"] == 2
    assert _rows(run, "digests.jsonl") == expected[:2] + expected[3:]


def test_a_closed_standard_output_does_not_end_the_training(
    runs, tmp_path, monkeypatch
):
    """As by `jaxrl train ... | head -1`."""
    whole, ended = runs
    run = tmp_path / "run"
    shutil.copytree(ended, run)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", 1) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert _train(run, "--log.every=1", "--log.completions_every=1") == 0
    assert _rows(run, "digests.jsonl") == _rows(whole, "digests.jsonl")
