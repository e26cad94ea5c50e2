"""Configs: typed, merged, and refused by name."""

import pytest

from jaxrl_surrogate import build, cli, settings
from jaxrl_surrogate.config import TrainConfig


def _load(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return settings.load(TrainConfig, path, overrides)


def test_values_are_typed(tmp_path):
    config = _load(
        tmp_path,
        "optimizer: {learning_rate: 1e-4}\ntask: {options: {max_digits: 3}}\n",
        "--rollout.sampling.top_p=0.9",
        "--model.init_from=null",
        "--train.steps=1e3",
    )
    assert config.optimizer.learning_rate == 1e-4
    assert config.task.options == {"max_digits": 3}
    assert config.rollout.sampling.top_p == 0.9
    assert config.train.steps == 1000


def test_round_trip(tmp_path):
    config = _load(tmp_path, "seed: 3\nloss: {normalization: dapo}\n")
    assert _load(tmp_path, settings.to_yaml(config)) == config


def test_extends(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 3\ntrain: {steps: 7}\n")
    config = _load(tmp_path, "extends: base.yaml\ntrain: {epochs: 2}\n")
    assert (config.seed, config.train.steps, config.train.epochs) == (3, 7, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rollout: {group_sizes: 4}", ["rollout.group_sizes", "rollout.group_size?"]),
        ("rollout: {group_size: many}", ["rollout.group_size='many'", "integer"]),
        ("loss: {normalization: dr_grop}", ["loss.normalization", "'dr_grpo'?"]),
        ("rollout: {sampling: {top_p: 2}}", ["rollout.sampling.top_p=2.0"]),
        ("train: {minibatches: 3}", ["train.minibatches=3", "divisor"]),
        ("seed: -1", ["seed=-1"]),
        ("log: 3", ["log", "section"]),
    ],
)
def test_faults_are_named(tmp_path, text, words):
    with pytest.raises(settings.SettingsError) as caught:
        _load(tmp_path, text)
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_faults_are_reported_together(tmp_path):
    with pytest.raises(settings.SettingsError) as caught:
        _load(tmp_path, "sed: 1\nrollout: {group_size: x, groups: 2}\n")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--objective.name=rlo", ["objective", "rloo"]),
        ("--objective.options.k=2", ["objective"]),
        ("--task.name=arithmetics", ["task.name", "'arithmetic'?"]),
        ("--task.options.max_digit=2", ["task.options.max_digit", "'max_digits'?"]),
        ("--model.preset=tinny", ["model.preset", "'tiny'?"]),
        ("--model.overrides.num_layer=2", ["model.num_layer", "num_layers"]),
        ("--mesh.tensor=3", ["mesh.", "8"]),
    ],
)
def test_rooms_refuse_by_name(tmp_path, override, words):
    config = _load(tmp_path, f"run_dir: {tmp_path}/run\n", override)
    with pytest.raises(ValueError) as caught:
        build.build_run(config)
    assert all(word in str(caught.value) for word in words), caught.value


def test_mistakes_cost_a_line_not_a_traceback(tmp_path, capsys):
    assert cli.main(["train", str(tmp_path / "no.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_help_lists_every_field(capsys):
    assert cli.main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    for path, *_ in settings.fields(TrainConfig):
        assert f"--{path}" in printed
    assert "rloo_pass_at_k" in printed and "max_digits" in printed
