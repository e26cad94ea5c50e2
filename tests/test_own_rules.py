"""Rules for weights from a user's own file, through the commands that users type."""

import hashlib
import json
import re

import numpy as np
import pytest

from jaxrl_surrogate import assembly, cli, objectives, yaml_text
from jaxrl_surrogate.lab.groups import read_groups
from jaxrl_surrogate.telemetry.run_log import (
    read_digests,
    read_environment,
    read_metrics,
)

RULES = '''
import jax.numpy as jnp
import numpy as np


def centred(rewards, by=1.0):
    """The mean of the group as a baseline, in NumPy."""
    rewards = np.asarray(rewards)
    return by * (rewards - rewards.mean())


def by_place(rewards):
    """No table: the sample before it is the baseline."""
    return rewards - jnp.roll(rewards, 1)


def from_median(rewards, scale=1.0):
    return scale * (rewards - jnp.median(rewards))


def from_mean(rewards, mask):
    return rewards - rewards.sum() / jnp.maximum(mask.sum(), 1)


def length(completion, answer):
    return 2 * len(completion) - 3.25


def undefined(rewards):
    return rewards / rewards.sum()


def failing(rewards):
    return rewards / {}["group"]


class Square:
    """h(t) = t^2 as an object of this file."""

    def __init__(self, times=1.0):
        self.times = times

    def value(self, t):
        return self.times * t**2

    def slope(self, t):
        return 2 * self.times * t


square = Square()
'''
TASK = """
task: {name: arithmetic, options: {min_digits: 1, max_digits: 1}}
model: {preset: nano}
sft: {steps: 30, batch_size: 32, optimizer: {warmup_steps: 0, learning_rate: 0.01}}
rollout: {prompts_per_step: 8, group_size: 4, max_completion_length: 8}
train: {steps: 2}
eval: {prompts: 0}
checkpoint: {every: 1}
loss: {normalization: sequence_sum}
log: {tensorboard: false}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """A folder with a config and a file of rules, which is the working directory."""
    # A name of its own: a process imports a file once.
    name = "rules_" + re.sub(r"\W", "_", request.node.name)
    (tmp_path / f"{name}.py").write_text(RULES)
    (tmp_path / "config.yaml").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path, f"{name}.py"


def _train(folder, rule, *words, run="run"):
    path, _ = folder
    return cli.main(
        ["train", "config.yaml", f"--run_dir={path / run}",
         f"--objective.name={rule}", *words]
    )  # fmt: skip


def _config(folder, rule, *words):
    words = [f"--objective.name={rule}", *words]
    return cli.load_config(folder[0] / "config.yaml", words)


def _same_bits(one, other):
    first, second = read_digests(one), read_digests(other)
    assert first == second and max(first) == 2


def _applied_are_centred(directory):
    """Every weight that was applied is the reward less the mean of its group."""
    groups = read_groups(directory, 4)
    weights = np.stack([groups.correct_weight, groups.incorrect_weight], -1)
    wanted = np.array([1, 0]) - groups.correct[:, None] / 4
    given = np.isfinite(weights)
    assert (given.all(-1)).any()
    np.testing.assert_allclose(weights[given], wanted[given], atol=1e-5)


def test_a_rule_of_a_file_trains_as_its_table(folder, capsys):
    """The weights applied are those of the rule: the bits of `dr_grpo`, twice it."""
    path, file = folder
    assert _train(folder, f"{file}:centred", "--objective.options.by=1") == 0
    assert _train(folder, "dr_grpo", run="named") == 0
    _same_bits(path / "run", path / "named")
    stored = yaml_text.load((path / "run" / "config.yaml").read_text())
    assert stored["objective"]["name"] == f"{path / file}:centred"
    config = cli.load_config(path / "run", [])
    found = assembly.build_objective(config)(1).table()
    expected = objectives.advantages.table("dr_grpo", 4)
    np.testing.assert_allclose(found.correct, expected.correct, rtol=1e-12)
    _applied_are_centred(path / "run")


def test_every_group_size_has_its_table_and_options_are_keywords(folder):
    _, file = folder
    rule = _config(folder, f"{file}:centred", "--objective.options.by=2.5")
    family = assembly.build_objective(rule)(1)
    assert family.table(1).correct == family.table(1).incorrect == 0
    for size in (2, 3, 4):
        expected = objectives.advantages.table("dr_grpo", size)
        np.testing.assert_allclose(family.table(size).gap, 2.5 * expected.gap)


def test_a_module_is_named_as_a_file_is(folder):
    _, file = folder
    config = _config(folder, f"{file.removesuffix('.py')}:centred")
    assert config.objective.name == f"{file.removesuffix('.py')}:centred"
    found = assembly.build_objective(config)(1).table()
    np.testing.assert_allclose(found.correct, [0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("kind", ["auto", "surrogate"])
@pytest.mark.parametrize(("name", "times"), [("square", 1), ("Square", 3)])
def test_a_surrogate_of_a_file_is_turned_into_weights(folder, kind, name, times):
    words = [f"--objective.kind={kind}", "--objective.method=bernstein"]
    if times != 1:
        words.append(f"--objective.options.times={times}")
    config = _config(folder, f"{folder[1]}:{name}", *words)
    gap = assembly.build_objective(config)(1).table().gap
    np.testing.assert_allclose(gap, 2 * times * np.arange(4) / 3, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "words", "said"),
    [
        ("by_place", [], [
            "objective.name=", "Rewards [1 0 0 0] give the weights [ 1. -1.  0.  0.]",
            "the same rewards sorted give", "objective.kind=function trains it",
        ]),
        ("undefined", [], ["weights of the rewards [0 0 0 0] are [nan nan nan nan]"]),
        ("failing", [], ["[0 0 0 0] make it raise KeyError: 'group'"]),
        ("centred", ["--objective.options.b=1"], ["unexpected keyword argument 'b'"]),
        ("absent", [], ["has no 'absent'"]),
        ("centred", ["--objective.kind=surrogate"], ["with value(p) and slope(p)"]),
        ("square", ["--objective.kind=advantage"], ["a function of the rewards (M,)"]),
        ("square", ["--objective.options.times=2"], ["name the class or function"]),
        ("undefined", ["--objective.kind=function"], ["[0 0 0 0] are [nan nan nan"]),
        ("centred", ["--objective.kind=function"], ["in jax.numpy", "Tracer"]),
        ("by_place", ["--objective.kind=function", "--objective.rewards=mean"],
         ["objective.rewards='mean': lifts tables"]),
        ("by_place", ["--objective.kind=function", "--objective.schedule.to=rloo"],
         ["objective.schedule.to='rloo': a schedule mixes tables"]),
        ("by_place", ["--objective.kind=function", "--objective.method=exact"],
         ["objective.method='exact': makes weights of a surrogate"]),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_before_anything_is_made(
    folder, rule, words, said, capsys
):
    assert _train(folder, f"{folder[1]}:{rule}", *words) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in said), error
    assert "Traceback" not in error and not (folder[0] / "run").exists()


def test_kind_function_is_for_functions(folder, capsys):
    assert _train(folder, "rloo", "--objective.kind=function") == 2
    assert "expected my.py:my_rule" in capsys.readouterr().err


def test_a_function_that_is_no_table_trains_by_its_kind(folder, capsys):
    path, file = folder
    words = ["--objective.kind=function"]
    assert _train(folder, f"{file}:from_mean", *words) == 0
    assert "has no exact h(p)" in capsys.readouterr().out
    _applied_are_centred(path / "run")
    report = json.loads((path / "run" / "objective.json").read_text())
    assert report["effective"]["nominal_gap"] == pytest.approx([0.75] * 4)
    # It was compiled once, and never again after the first step.
    assert read_metrics(path / "run")[-1]["compiles"] == 0


def test_a_function_run_resumes_and_reexecutes_bit_by_bit(folder, capsys):
    path, file = folder
    words = ["--objective.kind=function", "--objective.options.scale=2"]
    assert _train(folder, f"{file}:from_median", *words, run="whole") == 0
    once = [*words, "--train.steps=1"]
    assert _train(folder, f"{file}:from_median", *once, run="parts") == 0
    assert _train(folder, f"{file}:from_median", *words, run="parts") == 0
    _same_bits(path / "whole", path / "parts")
    assert cli.main(["verify", str(path / "parts"), "--from", "1"]) == 0
    assert cli.main(["objective", "--replay", str(path / "parts")]) == 0


def test_incomplete_groups_of_a_function_without_mask_are_told_of(folder, capsys):
    words = ["--objective.kind=function", "--train.overlong=mask"]
    config = _config(folder, f"{folder[1]}:from_median", *words)
    assert any(
        "has no parameter `mask`" in note and "cut at the limit" in note
        for note in assembly.objective_notes(config)
    )
    config = _config(folder, f"{folder[1]}:from_mean", *words)
    assert len(assembly.objective_notes(config)) == 1


def test_with_dynamic_sampling_equal_groups_weigh_nothing(folder):
    words = ["--objective.kind=function", "--train.dynamic_sampling_rounds=1"]
    config = _config(folder, f"{folder[1]}:from_mean", *words)
    rule = assembly.build_objective(config)(1)
    assert rule.mixed_only and rule.takes_mask
    assert any("equal rewards" in note for note in assembly.objective_notes(config))


def test_the_command_names_rules_as_the_config_does(folder, capsys):
    assert cli.main(["objective", f"{folder[1]}:centred:by=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = 2 * objectives.advantages.table("dr_grpo", 8)
    np.testing.assert_allclose(found["8"]["correct"], table.correct)


def test_a_run_records_what_its_file_was_and_warns_of_another(folder, capsys):
    path, file = folder
    words = ["--sft.steps=0", "--train.steps=1"]
    assert _train(folder, f"{file}:centred", *words) == 0
    start = read_environment(path / "run", 1)["user_code"]
    digest = hashlib.sha256((path / file).read_bytes()).hexdigest()
    assert start == {str(path / file): digest}
    with (path / file).open("a") as text:
        text.write("\n# another file from here on\n")
    assert _train(folder, f"{file}:centred", *words, "--train.steps=2") == 0
    assert f"{path / file} has changed" in " ".join(capsys.readouterr().out.split())


def test_a_function_gets_the_values_of_graded_rewards(folder, capsys):
    """Rewards grow with the completion, from below 0 to beyond 1."""
    path, file = folder
    words = [f"--task.reward={file}:length", "--objective.kind=function"]
    assert _train(folder, f"{file}:from_mean", *words) == 0
    assert read_metrics(path / "run")[0]["graded"] > 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no objective.json" in printed and "neither 0 nor 1" in printed
    assert cli.main(["objective", "--replay", str(path / "run")]) == 2
    groups = read_groups(path / "run", 4)
    number = np.stack([groups.correct, 4 - groups.correct], -1)
    weights = np.stack([groups.correct_weight, groups.incorrect_weight], -1)
    sums = np.where(number > 0, number * np.nan_to_num(weights), 0).sum(-1)
    np.testing.assert_allclose(sums, 0, atol=1e-4)
    assert np.nanmax(np.abs(weights)) > 0
