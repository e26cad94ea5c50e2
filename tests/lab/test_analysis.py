"""The report on a rule, as a user gets it: known rules, mistakes, weights asked for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.lab.analysis import analyse, silent_share
from jaxrl_surrogate.objectives import advantages

MISTAKES = '''
import jax.numpy as jnp

def flat_grpo(rewards):
    """GRPO whose epsilon is 1.0 for 1e-6."""
    return (rewards - rewards.mean()) / (rewards.std() + 1.0)

def neighbours(rewards):
    """A deviation over pairs of neighbours: the wrong axis of a reshaped batch."""
    std = rewards.reshape(-1, 2).std(axis=1).repeat(2)
    return (rewards - rewards.mean()) / (std + 1e-6)

def backwards(rewards):
    """Hard prompts are pushed down."""
    return (rewards - rewards.mean()) * (rewards.mean() - 0.5)
'''


def _report(capsys, *words):
    assert cli.main(["objective", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_known_rules_are_recognised(capsys):
    found = _report(capsys, "grpo", "--group-size", "8", "64", "--against", "arcsin")
    assert found["64"]["fits"][0][0] == "arcsin"
    assert found["64"]["fits"][0][2] < found["8"]["fits"][0][2]
    assert found["64"]["value_error"] < found["8"]["value_error"]
    found = _report(capsys, "pass_at_k:k=4")["8"]
    assert found["fits"][0][:2] == ["pass_at_k:k=4", pytest.approx(1)]
    assert found["exact"] and "pass_at_k" in found["against"]
    found = _report(capsys, "rejection_sampling", "--group-size", "64")["64"]
    assert found["exact"] and found["fits"][0][0] == "truncated_log:order=64"
    assert "log" in [name for name, *_ in found["fits"][:3]]


def test_mistakes_are_seen(tmp_path):
    (tmp_path / "mine.py").write_text(MISTAKES)

    def run(name, *more):
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "jaxrl_surrogate",
                "objective",
                f"mine:{name}",
                *more,
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )

    words = ("--group-size", "16", "--against", "arcsin", "--json")
    done = run("flat_grpo", *words)
    assert done.returncode == 0, done.stderr
    flat = json.loads(done.stdout)["16"]
    assert flat["fits"][0][0] != "arcsin"
    names = [name for name, _, _ in flat["fits"]]
    assert names.index("identity") < names.index("arcsin")
    done = run("neighbours", "--group-size", "6")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "not a function of the own reward" in done.stderr
    done = run("backwards")
    assert done.returncode == 0 and "WARNING: h_M falls on (0, 0.5" in done.stdout
    done = run("missing")
    assert done.returncode == 2 and "missing" in done.stderr


def test_weights_from_a_surrogate(capsys):
    words = ("--from", "log", "--method", "taylor", "--baseline", "none")
    found = _report(capsys, *words, "--group-size", "4")["4"]
    assert found["correct"] == pytest.approx([4, 2, 4 / 3, 1])
    assert found["incorrect"] == [0, 0, 0, 0]
    assert cli.main(["objective", *words]) == 0
    assert "nearest surrogates" in capsys.readouterr().out


def test_unknown_names_are_refused_with_the_nearest(capsys):
    for words in (["grop"], ["grpo", "--against", "arcsine"], ["--from", "lg"]):
        assert cli.main(["objective", *words]) == 2
        error = capsys.readouterr().err
        assert "did you mean" in error and "Traceback" not in error


def test_silent_groups_by_enumeration():
    """Of pass@4 in groups of 6: silent with none correct and with more than three."""
    table = advantages.table("rloo_pass_at_k", 6, k=4)
    for p in (0.1, 0.6):
        chances = [0.0, 0.0]
        for number in range(2**6):
            rewards = np.array([number >> i & 1 for i in range(6)])
            chance = p ** rewards.sum() * (1 - p) ** (6 - rewards.sum())
            silent = not np.asarray(table(rewards)).any()
            chances[silent] += chance
        assert silent_share(table, np.array([p]))[0] == pytest.approx(chances[1])
        assert chances[1] > 0.01
    assert analyse(table).silent.shape == (9,)


def test_what_has_no_objective_on_graded_rewards_is_said(capsys, tmp_path, monkeypatch):
    levels = ["--levels", "0", "0.5", "1", "--group-size", "4"]
    found = _report(capsys, "verl:grpo", *levels)["4"]["graded"]
    assert not found["has_objective"] and found["share"] > 0.1
    assert len(found["levels"]) == 3 and len(found["others"]) == 2
    for name in ("trl:rloo", "grpo", "maxrl"):
        assert _report(capsys, name, *levels)["4"]["graded"]["has_objective"]
    (tmp_path / "graded_rule.py").write_text(
        "def squared(r):\n    return (r - r.mean()) * (1 + r.var())\n"
    )
    monkeypatch.chdir(tmp_path)
    found = _report(capsys, "graded_rule:squared", *levels)["4"]["graded"]
    assert not found["has_objective"]
    assert cli.main(["objective", "verl:grpo", *levels]) == 0
    assert "the gradient of nothing" in capsys.readouterr().out
