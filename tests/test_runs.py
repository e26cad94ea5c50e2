"""`jaxrl runs`: what a folder of runs holds, read from their files alone."""

import json
import re

import pytest
from rich.console import Console

from jaxrl_surrogate import cli, settings
from jaxrl_surrogate.commands import runs
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.storage.lock import RunLock


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


def printed_rows(text):
    """Cells of a table's rows by heading, of lines that were not folded."""
    lines = text.rstrip().splitlines()
    (rule,) = [i for i, line in enumerate(lines) if line.startswith("──")]
    headings, *rows = [
        re.split(r" {2,}", line.rstrip())
        for line in (lines[rule - 1], *lines[rule + 1 :])
    ]
    # A run that cannot be read has no more than a name and a state.
    assert {len(row) for row in rows} <= {2, len(headings)}
    return [dict(zip(headings, row, strict=False)) for row in rows]


def test_the_table_names_every_number_and_cuts_nothing(
    folder, monkeypatch, capsys, tmp_path
):
    """In a pipe, whatever COLUMNS says; a terminal of 80 columns folds names."""
    monkeypatch.setenv("COLUMNS", "80")
    long = "a-sweep-over-many-things/objective=pass_at_k,seed=17"
    make(
        folder, long, "--train.steps=4", "--objective.name=pass_at_k",
        "--objective.options={k: 4}", "--objective.schedule.to=maxrl",
        "--objective.rewards=mean", "--objective.method=bernstein", rows=steps(4),
    )  # fmt: skip
    assert cli.main(["runs", str(folder)]) == 0
    rows = {row["run"]: row for row in printed_rows(capsys.readouterr().out)}
    found = rows[long]
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d", found.pop("written"))
    assert found == {
        "run": long, "state": "finished", "step": "4/4", "seed": "0",
        "objective": "pass_at_k:k=4, to maxrl, rewards=mean, method=bernstein",
        "reward": "0.04", "pass@1": "0.25",
    }  # fmt: skip
    assert rows["whole"]["objective"] == "rloo"
    with open(tmp_path / "screen", "w+") as screen:
        console = Console(file=screen, force_terminal=True, width=80, soft_wrap=True)
        assert runs.run(*cli.parse(["runs", str(folder)]), console) == 0
        screen.seek(0)
        lines = re.sub("\x1b\\[[0-9;]*m", "", screen.read()).rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    rule = lines.index("─" * 80)
    column = "".join(re.split(r" {2,}", line)[0] for line in lines[rule + 1 :])
    assert column.startswith(long) and column.endswith("whole")


def test_a_run_without_metrics_hides_no_other(folder, capsys):
    for name in ("refused", "warming"):
        make(folder, name, "--train.steps=7", "--sft.steps=40")
        (folder / name / "metrics.jsonl").unlink()
    warm = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 13)]
    (folder / "warming" / "warm_start.jsonl").write_text("\n".join(warm))
    make(folder, "broken").joinpath("metrics.jsonl").unlink()
    (folder / "broken" / "metrics.jsonl").mkdir()  # cannot be read
    with RunLock(folder / "warming"):
        assert cli.main(["runs", str(folder)]) == 0
        out = capsys.readouterr().out
    rows = {row["run"]: row for row in printed_rows(out)}
    assert rows["refused"]["state"] == "not started"
    assert rows["warming"]["state"].startswith("running, process ")
    assert rows["warming"]["step"] == "warm start 12/40"
    assert rows["broken"]["state"] == "unreadable" and "metrics.jsonl" in out
    assert rows["whole"]["reward"] == "0.2"
    (only,) = report(folder / "refused", capsys=capsys)
    assert (only["state"], only["metrics"], only["step"]) == ("not started", {}, 0)
    assert cli.main(["runs", str(folder / "refused")]) == 0
    (row,) = printed_rows(capsys.readouterr().out)
    assert row["run"] == "refused"
    words = ["--compare", "refused", "whole"]
    assert report(folder, *words, capsys=capsys)["steps"] == []
    assert cli.main(["runs", str(folder), *words]) == 0
    assert "no step that both have logged" in capsys.readouterr().out


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
    with pytest.raises(FieldErrors, match="did you mean whole"):
        cli.run(*cli.parse(["runs", str(folder), "--compare", "whol", "new"]))
    with pytest.raises(FieldErrors, match="no such folder"):
        cli.run(*cli.parse(["runs", str(folder / "none")]))
    (folder / "empty").mkdir()
    assert cli.main(["runs", str(folder / "empty")]) == 0
    assert "holds no run" in capsys.readouterr().out
