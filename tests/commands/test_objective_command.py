"""One spelling of parameters in every place; tables that say what they show."""

import itertools
import json
import re

import numpy as np
import pytest

from jaxrl_surrogate import assembly, cli, settings
from jaxrl_surrogate.commands import replay
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.objectives import advantages, names, surrogates
from jaxrl_surrogate.objectives.config import ObjectiveConfig


def _gaps(capsys, *words):
    assert cli.main(["objective", *words, "--group-size", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["6"]
    return np.array(found["correct"]) - found["incorrect"], found


def _run(tmp_path):
    """The directory of a run: four groups of 4 of RLOO, as the loop logs them."""
    path = tmp_path / "config.yaml"
    path.write_text("rollout: {group_size: 4}\n")
    config = settings.load(TrainConfig, path, [])
    path.write_text(settings.to_yaml(config))
    rloo = advantages.table("rloo", 4)
    rows = [
        {
            "step": step,
            "prompts": [1, 2, 3, 4],
            "correct": [0, 1, 2, 3],
            "verified": [4, 4, 4, 4],
            "correct_weight": [None, *(float(rloo.correct[m - 1]) for m in (1, 2, 3))],
            "incorrect_weight": [float(rloo.incorrect[m]) for m in (0, 1, 2, 3)],
        }
        for step in (1, 2)
    ]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return config


def test_one_spelling_everywhere(capsys, tmp_path, monkeypatch):
    wanted = advantages.table("pass_at_k", 6, k=3).gap
    gap, found = _gaps(capsys, "pass_at_k:k=3", "--against", "pass_at_k:k=3")
    np.testing.assert_allclose(gap, wanted)
    assert found["exact"] and found["against"] == "pass_at_k:k=3"
    gap, found = _gaps(capsys, "--from", "pass_at_k:k=3", "--method", "exact")
    np.testing.assert_allclose(gap, wanted, atol=1e-12)
    assert found["against"] == "pass_at_k:k=3"
    gap, _ = _gaps(capsys, "grpo:std=sample:epsilon=1e-4")
    np.testing.assert_allclose(gap, advantages.table("trl:grpo", 6).gap)
    gap, _ = _gaps(capsys, "passk_training:analytic:k=3")
    np.testing.assert_allclose(
        gap, advantages.get("passk_training:analytic", k=3).table(6).gap
    )
    (tmp_path / "my_rules.py").write_text(
        "def scaled(rewards, by=1.0):\n    return by * (rewards - rewards.mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    gap, _ = _gaps(capsys, "my_rules:scaled:by=3")
    np.testing.assert_allclose(gap, 3 * advantages.table("dr_grpo", 6).gap)
    config = _run(tmp_path)
    listed = ["maxrl", "pass_at_k:k=2", "maxrl:pkpo:k=2", "my_rules:scaled:by=2"]
    found = replay.report_of(config, tmp_path, listed)["rules"]
    assert list(found) == ["its own", *listed]
    assert found["my_rules:scaled:by=2"]["cosine"] == pytest.approx(1)
    words = ["objective", "--replay", str(tmp_path), "--as", ",".join(listed)]
    assert cli.main(words) == 0
    assert "pass_at_k:k=2 would have made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pass_at_k:4"], "expected pass_at_k:k=4"),
        (["pass_at_k(k=4)"], "such as pass_at_k:k=4"),
        (["pass_at_k"], "needs the parameter 'k', for example pass_at_k:k=4"),
        (["pass_at_k:n=4"], "n=4: pass_at_k has no such parameter; expected one of k"),
        (["pass_at_k:k=4:k=5"], "each parameter once"),
        (["rloo:4"], "rloo takes no parameters"),
        (["passk_training:k=4"], "expected passk_training:analytic"),
        (["maxrl:pkpo:k=x"], "k='x': expected an integer"),
        (["grpo:epsilon=x"], "epsilon='x': expected a number"),
        (["grpo:epsilon_inside=3"], "epsilon_inside=3: expected true or false"),
        (["rs_grpo:beta=x"], "beta='x': expected a number"),
        (["--from", "pass_at_k:4"], "expected pass_at_k:k=4"),
        (["--from", "regularized:base_params=3"], "base_params=3: expected a dict"),
        (["grpo", "--against", "log:2"], "log takes no parameters"),
        (["json:dump:k=4"], "it is called with the rewards (M,) of a group"),
    ],
)
def test_other_spellings_are_told_this_one(words, said, capsys):
    assert cli.main(["objective", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_the_option_of_old_is_told_where_parameters_go(capsys):
    assert cli.main(["objective", "pass_at_k", "--param", "k=4"]) == 2
    assert "parameters follow the name, as pass_at_k:k=4" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["name", "schedule.to"])
def test_a_config_has_options(field, tmp_path):
    root = "objective" if field == "name" else "objective.schedule"
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\n")
    config = settings.load(TrainConfig, path, [f"--objective.{field}=pass_at_k:k=4"])
    wanted = f"--objective.{field}=pass_at_k --{root}.options.k=4"
    with pytest.raises(FieldErrors, match=re.escape(wanted)):
        assembly.build_objective(config)


def test_what_is_shown_can_be_typed():
    for text in (
        "rloo",
        "pass_at_k:k=4",
        "grpo:std=sample:epsilon=0.0001:epsilon_inside=true",
    ):
        assert names.spell(*names.parse(text)) == text
        fn = advantages.parse(text)
        assert advantages.parse(names.spell(fn.name, dict(fn.params))) == fn
    config = ObjectiveConfig(name="pass_at_k", options={"k": 4})
    assert advantages.parse(config.label()) == advantages.get("pass_at_k", k=4)
    h = surrogates.parse("arcsin_pass_at_k:k=4")
    assert h.slope(0.3) == surrogates.get("arcsin_pass_at_k", k=4).slope(0.3)


def _explained(text):
    """Every heading over a rule of lines, and whether the text says what it is."""
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if below.strip() and set(below.strip()) <= {"─", "━", "-", " "}:
            yield from (name for name in re.split(r"\s{2,}", line.strip()) if name)


def test_every_column_is_explained(capsys, tmp_path):
    assert cli.main(["objective", "pass_at_k:k=4"]) == 0
    text = capsys.readouterr().out
    headings = list(_explained(text))
    assert {"gap", "h_M'(p)", "groups of weight 0"} <= set(headings)
    for name in headings:
        assert f"{name.split(' if ')[0]}:" in text, name
    slope = surrogates.get("pass_at_k", k=4).slope(np.array([0.1, 0.5, 0.9]))
    hard, easy = slope[0] / slope[1], slope[2] / slope[1]
    assert f"p = 0.1 counts {hard:.2f} times" in text
    assert f"p = 0.9 {easy:.2f} times" in text
    assert "hard prompts count more than easy ones" in text
    assert cli.main(["objective", "rloo"]) == 0
    assert "all prompts count alike" in capsys.readouterr().out
    assert cli.main(["objective", "--from", "pass_hat_k:k=3", "--method=exact"]) == 0
    assert "easy prompts count more than hard ones" in capsys.readouterr().out
    _run(tmp_path)
    assert cli.main(["objective", "--replay", str(tmp_path), "--as", "maxrl"]) == 0
    text = capsys.readouterr().out
    for name in ("mean", "departure", "cosine", "wasted", "others correct", "nominal"):
        assert f"{name}:" in text, name
    assert "So the run ascended what it was asked to" in text


def test_the_departure_is_put_in_words(capsys, tmp_path):
    _run(tmp_path)
    path = tmp_path / "groups.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["correct_weight"][1] *= 0.5  # of groups with one correct sample
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 20))
    assert cli.main(["objective", "--replay", str(tmp_path)]) == 0
    assert "another objective than asked for: with 0 others correct" in (
        capsys.readouterr().out
    )


def test_the_frontier_is_put_in_words(capsys):
    words = ["objective", "--from", "pass_at_k:k=2", "--frontier", "--group-size", "4"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert re.search(r"\S+ with \S+ is nearest to the surrogate \(bias 0.0%\)", text)
