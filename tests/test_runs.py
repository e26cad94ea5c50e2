"""`jaxrl runs`: what a folder of runs holds, read from their files alone."""

import json

import pytest

from jaxrl_surrogate import cli, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.training.lock import RunLock


def make(folder, name, *overrides, rows=()):
    directory = folder / name
    directory.mkdir(parents=True)
    path = directory / "config.yaml"
    path.write_text(f"name: {name}\n")
    config = settings.load(TrainConfig, path, overrides)
    path.write_text(settings.to_yaml(config))
    lines = [json.dumps(row) for row in rows]
    (directory / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    return directory


def steps(count, lift=0.0):
    rows = [
        {"step": step, "reward": lift + step / 100, "loss": -step, "seconds": 0.5}
        for step in range(1, count + 1)
    ]
    rows[-1]["eval/pass@1"] = 0.25 + lift
    rows[-1]["eval/pass@1_low"] = 0.1
    return [{"step": 0, "eval/pass@1": 0.125}, *rows]


@pytest.fixture
def folder(tmp_path):
    make(tmp_path, "whole", "--train.steps=20", rows=steps(20))
    make(
        tmp_path, "sweep/short", "--train.steps=20", "--objective.name=grpo",
        "--seed=3", rows=steps(9, 0.1),
    )  # fmt: skip
    make(tmp_path, "new")
    return tmp_path


def report(folder, *words, capsys):
    assert cli.main(["runs", str(folder), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_states_and_last_numbers(folder, capsys):
    with RunLock(folder / "new"):
        rows = {row["run"]: row for row in report(folder, capsys=capsys)}
    found = {name.removeprefix(f"{folder}/"): row for name, row in rows.items()}
    assert {name: row["state"] for name, row in found.items()} == {
        "new": "running", "sweep/short": "stopped", "whole": "finished"
    }  # fmt: skip
    assert found["sweep/short"]["step"] == 9
    assert found["sweep/short"]["metrics"] == {
        "reward": pytest.approx(0.19), "loss": -9, "seconds": 0.5
    }  # fmt: skip
    assert found["sweep/short"]["evaluation"] == {"step": 9, "pass@1": 0.35}
    assert found["new"]["evaluation"] == {}
    assert cli.main(["runs", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "9/20" in printed and "0.35" in printed


def test_two_runs_side_by_side(folder, capsys):
    found = report(folder, "--compare", "whole", "sweep/short", capsys=capsys)
    changes = {change["name"]: change["values"] for change in found["config"]}
    assert changes == {"objective.name": ["rloo", "grpo"], "seed": [0, 3]}
    assert found["steps"][0] == 0 and found["steps"][-1] == 9
    assert len(found["steps"]) == 5
    one, other = found["metrics"]["reward"]
    assert one[-1] == pytest.approx(0.09) and other[-1] == pytest.approx(0.19)
    assert one[0] is None  # before the first step there is no reward
    assert cli.main(["runs", str(folder), "--compare", "whole", "sweep/short"]) == 0
    assert "objective.name" in capsys.readouterr().out


def test_what_is_no_run_is_said(folder, capsys):
    (folder / "broken").mkdir()
    (folder / "broken" / "config.yaml").write_text("seed: [1\n")
    rows = report(folder, capsys=capsys)
    assert "unreadable" in [row["state"] for row in rows]
    assert cli.main(["runs", str(folder)]) == 0
    with pytest.raises(SettingsError, match="did you mean whole"):
        cli._dispatch(["runs", str(folder), "--compare", "whol", "new"])
    with pytest.raises(SettingsError, match="no such folder"):
        cli._dispatch(["runs", str(folder / "none")])
    (folder / "empty").mkdir()
    assert cli.main(["runs", str(folder / "empty")]) == 0
    assert "holds no run" in capsys.readouterr().out
