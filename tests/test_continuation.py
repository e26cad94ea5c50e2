"""What a run that is there may be continued with, through the program itself."""

import json
import shutil
import typing

import pytest

from jaxrl_surrogate import assembly, cli, settings
from jaxrl_surrogate.assembly.continuation import Role, role
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors

SMALL = """
model: {preset: nano}
task: {options: {min_digits: 1, max_digits: 1}}
rollout: {prompts_per_step: 8, group_size: 4, max_completion_length: 4}
train: {steps: 2}
eval: {prompts: 0}
log: {tensorboard: false}
"""
# Never the bytes of a run: who holds it, and what is said of a process that looked.
_OF_THE_PROCESS = ("lock", "environment.json", "events.jsonl", "objective.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A config file and the finished run that it made."""
    folder = tmp_path_factory.mktemp("continued")
    path = folder / "small.yaml"
    path.write_text(f"run_dir: {folder}/{{name}}\n{SMALL}")
    assert cli.main(["train", str(path)]) == 0
    return path, folder / "small"


def _tree(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _kept(directory):
    return {k: v for k, v in _tree(directory).items() if k not in _OF_THE_PROCESS}


def _stored(directory):
    return settings.load(TrainConfig, directory / "config.yaml")


def _changes(directory):
    rows = map(json.loads, (directory / "events.jsonl").read_text().splitlines())
    return [
        (row["step"], row["name"], row["old"], row["new"])
        for row in rows
        if row["event"] == "config"
    ]


def test_every_setting_says_what_it_is_for_a_continued_run():
    """A new one has no role until somebody gives it one."""
    for path, *_ in settings.fields(TrainConfig):
        section, hint = TrainConfig, None
        for name in path.split("."):
            hint = typing.get_type_hints(section, include_extras=True)[name]
            section = typing.get_args(hint)[0] if typing.get_args(hint) else hint
        found = [note for note in hint.__metadata__ if note in typing.get_args(Role)]
        assert len(found) == 1, path
    assert role("sft.optimizer.offload") == "operational"
    assert role("sft.optimizer.b1") == role("optimizer.name") == "kept"
    assert role("optimizer.b1") == role("train.steps") == "numbers"
    assert role("task.options.max_digits") == "kept"
    assert role("objective.schedule.options.k") == "numbers"
    assert role("no.such.field") == "kept"


@pytest.mark.parametrize(
    "change",
    [
        "--objective.name=grpo",
        "--optimizer.learning_rate=0.5",
        "--eval.prompts=8",
        "--train.steps=1",
    ],
)
def test_a_finished_run_takes_no_other_numbers(finished, change, capsys):
    path, directory = finished
    before = _tree(directory)
    assert cli.main(["train", str(path), change]) == 2
    printed = capsys.readouterr()
    field, _, value = change.removeprefix("--").partition("=")
    (line,) = printed.err.splitlines()
    assert line.startswith(f"jaxrl: {field}=") and value in line
    assert "--name=small-2" in line and "--train.steps of more than 2" in line
    assert printed.out == ""
    assert _tree(directory) == before


def test_the_refusal_names_the_way_to_another_run(finished, capsys):
    path, directory = finished
    assert cli.main(["train", str(directory), "--objective.name=grpo"]) == 2
    assert f"--run_dir={directory}-2" in capsys.readouterr().err
    (directory.parent / "small-2").mkdir()
    assert cli.main(["train", str(path), "--seed=1"]) == 2
    line = capsys.readouterr().err
    assert "seed=1" in line and "--name=small-3" in line
    (directory.parent / "small-2").rmdir()


def test_a_finished_run_stays_as_it_was_computed(finished, capsys):
    """Operational settings are taken, and there is nothing to do with them."""
    path, directory = finished
    before, changes = _kept(directory), _changes(directory)
    assert cli.main(["train", str(path), "--log.every=2", "--mesh.fsdp=2"]) == 0
    assert "finished after step 2" in capsys.readouterr().out
    assert _kept(directory) == before and _changes(directory) == changes


@pytest.mark.slow
@pytest.mark.ci
def test_more_steps_go_on_with_other_operational_settings(finished, tmp_path, capsys):
    """The states are those of a run that had all steps and settings from the start."""
    path, done = finished
    shutil.copytree(done, tmp_path / "small")
    words = ["train", str(path), f"--run_dir={tmp_path}/{{name}}"]
    operational = {
        "task.verify_workers": 1,
        "task.verify_timeout_s": 5.0,
        "rollout.gather_weights": False,
        "checkpoint.keep_last": 5,
        "log.completions_every": 1,
    }
    more = [f"--{name}={json.dumps(value)}" for name, value in operational.items()]
    capsys.readouterr()
    assert cli.main([*words, "--train.steps=3", *more]) == 0
    printed = capsys.readouterr().out
    directory = tmp_path / "small"
    recorded = {name: (step, new) for step, name, _, new in _changes(directory)}
    wanted = operational | {"train.steps": 3}
    assert recorded == {name: (2, value) for name, value in wanted.items()}
    for name, value in wanted.items():
        assert f"from step 3 on: {name} " in printed and f"-> {value}" in printed
    assert cli.main([*words, "--train.steps=3", "--name=whole"]) == 0
    one, other = (
        [json.loads(line) for line in (run / "digests.jsonl").read_text().splitlines()]
        for run in (directory, tmp_path / "whole")
    )
    assert len(one) == 4
    for row, expected in zip(one, other, strict=True):
        assert row["step"] == expected["step"]
        assert row.get("verification") == expected.get("verification")
        assert (row.get("rollout") or {}).get("tokens") == (
            expected.get("rollout") or {}
        ).get("tokens")
    assert _stored(directory).task.verify_workers == 1


@pytest.mark.slow
def test_a_changed_objective_is_recorded_where_steps_are_left(
    finished, tmp_path, capsys
):
    """And the report of what was optimised says so: its nominal is the new one."""
    path, done = finished
    directory = tmp_path / "run"
    shutil.copytree(done, directory)
    words = ["train", str(path), f"--run_dir={directory}"]
    capsys.readouterr()
    assert cli.main([*words, "--train.steps=3", "--objective.name=grpo"]) == 0
    said = "after step 2 objective.name was changed from rloo to grpo: nominal is"
    assert said in capsys.readouterr().out
    replay = ["objective", "--replay", str(directory)]
    assert cli.main(replay) == 0
    assert said in capsys.readouterr().out
    assert cli.main([*replay, "--from-step=3"]) == 0
    assert said not in capsys.readouterr().out
    assert (2, "objective.name", "rloo", "grpo") in _changes(directory)
    assert _stored(directory).objective.name == "grpo"


def test_the_state_of_the_optimizer_keeps_its_parts(finished, tmp_path):
    """Momentum is there or not; a restore would fail of it."""
    path, _ = finished
    words = [f"--run_dir={tmp_path}/run", "--optimizer.name=sgd"]
    assembly.open_directory(cli.load_config(path, words))
    assert cli.main(["train", str(path), *words, "--optimizer.b1=0"]) == 2
    config = cli.load_config(path, [*words, "--optimizer.b1=0.5"])
    assert assembly.check_directory(config) == tmp_path / "run"
    adam = cli.load_config(path, [f"--run_dir={tmp_path}/run"])
    with pytest.raises(FieldErrors, match=r"optimizer\.name="):
        assembly.check_directory(adam)


def test_a_config_that_was_not_taken_up_is_not_stored(finished, tmp_path, monkeypatch):
    """Ended before the state was read: the next start does not find it as its own."""
    from jaxrl_surrogate.loop import loop

    path, _ = finished
    words = ["train", str(path), f"--run_dir={tmp_path}/run"]
    config = cli.load_config(path, words[2:])
    assembly.open_directory(config)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", killed)
        assert cli.main([*words, "--optimizer.learning_rate=0.5"]) == 130
    assert _stored(tmp_path / "run") == config
