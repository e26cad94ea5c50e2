"""What stands in the way of a run's report is said in the words of who asked for it."""

import json

import pytest

from jaxrl_surrogate import cli, settings
from jaxrl_surrogate.commands import replay
from jaxrl_surrogate.config import TrainConfig


def _run(tmp_path, verified, *overrides):
    """A run of three steps, each of one group of which so many had a verdict."""
    path = tmp_path / "config.yaml"
    path.write_text("rollout: {group_size: 4}\n")
    config = settings.load(TrainConfig, path, overrides)
    path.write_text(settings.to_yaml(config))
    rows = [
        {"step": step, "prompts": [step], "correct": [1], "verified": [verified],
         "correct_weight": [0.5], "incorrect_weight": [-0.5]}
        for step in (1, 2, 3)
    ]  # fmt: skip
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return config


def test_a_run_whose_groups_all_lost_samples(tmp_path):
    config = _run(tmp_path, 3, "--train.overlong=mask")
    (warning,) = replay.store_report(config, tmp_path)
    expected = f"warning: no objective.json: {tmp_path}: from step 1 on no group"
    assert warning.startswith(expected)
    assert "all its 4 samples" in warning and "train.overlong=mask" in warning
    assert "--from-step" not in warning  # nobody gave it


@pytest.mark.parametrize("rewards", ["layer_cake", "mean"])
def test_a_run_with_graded_rewards_is_warned_of_nothing(tmp_path, rewards, capsys):
    config = _run(tmp_path, 4, f"--objective.rewards={rewards}")
    (line,) = replay.store_report(config, tmp_path)
    assert line.startswith(f"no objective.json: objective.rewards={rewards} trains on")
    assert not (tmp_path / "objective.json").exists()
    assert cli.main(["objective", "--replay", str(tmp_path)]) == 2  # who asks is told
    assert f"objective.rewards={rewards!r}: expected" in capsys.readouterr().err


def test_a_first_step_after_the_last(tmp_path, capsys):
    config = _run(tmp_path, 4)
    replay.store_report(config, tmp_path)
    assert json.loads((tmp_path / "objective.json").read_text())["groups"] == 3
    words = ["objective", "--replay", str(tmp_path)]
    assert cli.main([*words, "--from-step=4"]) == 2
    assert "--from-step=4: expected at most 3" in capsys.readouterr().err
    assert cli.main([*words, "--from-step=3"]) == 0
