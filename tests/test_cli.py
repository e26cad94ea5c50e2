"""The program: what it prints, and the status it ends with."""

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxrl_surrogate
from jaxrl_surrogate import assembly, cli, objectives, settings, tasks
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.typed_fields import type_name

pytestmark = pytest.mark.both_pythons


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"run_dir: {tmp_path}/run\nmodel: {{preset: nano}}\n")
    return path


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_usage(arguments, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in ("train", "sft", "eval"))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert jaxrl_surrogate.__version__ in capsys.readouterr().out


def test_help_lists_every_field_option_and_objective(capsys):
    printed = ""
    for field in dataclasses.fields(TrainConfig):
        words = [f"--help={field.name}"]
        if not dataclasses.is_dataclass(getattr(TrainConfig(), field.name)):
            words = ["some.yaml", "--help"]
        assert cli.main(["train", *words]) == 0
        printed += capsys.readouterr().out
    for path, kind, _, text in settings.fields(TrainConfig):
        assert f"--{path} " in printed and f"{text} ({type_name(kind)}" in printed
    for task in tasks.names():
        for option in tasks.task_options(task):
            assert f"--task.options.{option}=" in printed
    for name in (*objectives.advantages.names(), *objectives.surrogates.names()):
        assert name in printed


def test_help_begins_with_a_line_for_every_section(capsys):
    for command in ("train", "sft", "eval", "sample"):
        assert cli.main([command, "--help"]) == 0
        printed = capsys.readouterr().out
        for section in ("task", "objective", "mesh"):
            assert re.search(rf"^  --{section}\.\* +[A-Z].*\.$", printed, re.MULTILINE)
        assert "--objective.kind" not in printed and "CONFIG" in printed


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_program_starts_without_jax(argument):
    code = f"from jaxrl_surrogate import cli; cli.main(['{argument}']); import sys; "
    code += "print(*{'jax', 'numpy', 'pydantic'} & {*sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")


_PLACE = ["run_dir=", "expected a folder that can be made or written to"]
_NAME = ["name=", "expected a name below the folder of runs"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "x.yaml"], ["trian", "train?"]),
        (["train"], ["jaxrl train: ", "required: CONFIG"]),
        (["train", "--seed=1"], ["required: CONFIG"]),
        (["train", "--help=objectiv"], ["--help='objectiv'", "objective?"]),
        (["--vers"], ["--vers"]),
        (["runs", "{tmp}", "--jsn"], ["--jsn: unknown argument", "--json?"]),
        (["runs", "{tmp}", "more"], ["more: unknown argument"]),
        (["objective", "rloo", "--as=x"], ["--as='x'", "--replay RUN"]),
        (["objective", "--replay=x", "--group-size=4"], ["--group-size=[4]", "leave"]),
        (["objective", "rloo", "--group-size=x"], ["--group-size", "'x'"]),
        (["plan", "--topology=cpu"], ["jaxrl plan: ", "required: CONFIG"]),
        (["plan", "{tmp}/mine.yaml", "--tpology=cpu"], ["tpology: unknown field"]),
        (["reproduce", "{tmp}"], ["has no config.yaml"]),
        (["verify", "{tmp}"], ["has no config.yaml"]),
        (["train", "{tmp}/min.yaml"], ["no such file", "mine.yaml?"]),
        (["train", "{tmp}"], ["has no config.yaml", "mine.yaml"]),
        (["train", "{tmp}/mine.yaml", "--sed=1"], ["sed: unknown", "seed?"]),
        (["train", "{tmp}/mine.yaml", "--seed", "x"], ["seed='x'", "integer"]),
        (["train", "{tmp}/mine.yaml", "seed"], ["seed: expected --section"]),
        (["train", "{tmp}/mine.yaml", "--objective.name=rlo"], ["rloo?"]),
        (["sft", "{tmp}/mine.yaml"], ["sft.steps=0", "at least 1"]),
        (["eval", "{tmp}/mine.yaml"], ["run_dir=", "no checkpoint"]),
        (["sample", "{tmp}/mine.yaml", "--eval.prompts=0"], ["eval.prompts=0"]),
        (["train", "{tmp}/mine.yaml", "--run_dir=/proc/nope/x"], _PLACE),
        (["train", "{tmp}/mine.yaml", "--run_dir={tmp}/mine.yaml"], _PLACE),
        (["train", "{tmp}/mine.yaml", "--run_dir={tmp}/mine.yaml/run"], _PLACE),
        (["train", "{tmp}/mine.yaml", f"--run_dir={'x' * 300}"], _PLACE),
        (["train", "{tmp}/mine.yaml", "--name=../../evil"], _NAME),
        (["eval", "{tmp}/mine.yaml", "--name=/evil"], _NAME),
        (["train", "{tmp}/mine.yaml", "--name=//evil"], _NAME),
        (["train", "{tmp}/mine.yaml", "--name=."], _NAME),
        (["train", "{tmp}/mine.yaml", "--name=a/../.."], _NAME),
        (["train", "{tmp}/mine.yaml", "--name=a\nb"], _NAME),
    ],
)
def test_mistakes_cost_a_line_not_a_traceback(
    arguments, words, config_file, tmp_path, capsys
):
    arguments = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("jaxrl: ") and all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_every_mistake_has_its_line(config_file, capsys):
    assert cli.main(["train", str(config_file), "--sed=1", "--train.steps=x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("jaxrl: ") for line in lines)


def _raise(monkeypatch, error):
    def failing(*_):
        raise error

    monkeypatch.setattr(loop, "train", failing)


def test_late_errors_about_the_config_are_the_users(config_file, monkeypatch, capsys):
    error = FieldError("rollout.max_prompt_length", 6, problem="a longer prompt")
    _raise(monkeypatch, error)
    arguments = ["train", str(config_file), "--rollout.prompts_per_step=8"]
    assert cli.main([*arguments, "--log.tensorboard=false"]) == 2
    assert "jaxrl: rollout.max_prompt_length=6" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(config_file, monkeypatch):
    _raise(monkeypatch, ValueError("shapes do not match"))
    arguments = ["train", str(config_file), "--rollout.prompts_per_step=8"]
    with pytest.raises(ValueError, match="shapes do not match"):
        cli.main([*arguments, "--log.tensorboard=false"])


def test_a_second_ctrl_c_ends_with_130(config_file, monkeypatch, capsys):
    _raise(monkeypatch, KeyboardInterrupt())
    arguments = ["train", str(config_file), "--rollout.prompts_per_step=8"]
    assert cli.main([*arguments, "--log.tensorboard=false"]) == 130
    assert "checkpoint" in capsys.readouterr().err


def test_the_name_of_a_run(tmp_path):
    path = tmp_path / "1e3.yaml"
    path.write_text("seed: 1\n")
    assert cli.load_config(path, []).name == "1e3"
    assert cli.load_config(path, ["--name=other"]).name == "other"
    path.write_text("name: its own\n")
    assert cli.load_config(path, []).name == "its own"


def test_a_run_directory_is_where_it_was_found(config_file, tmp_path):
    config = cli.load_config(config_file, ["--seed=7"])
    directory = assembly.open_directory(config)
    moved = directory.rename(tmp_path / "moved {x}")
    found = cli.load_config(moved, ["--log.every=3"])
    assert (found.seed, found.name, found.log.every) == (7, "mine", 3)
    assert assembly.run_directory(found) == moved
    assert assembly.check_directory(found) == moved


@pytest.mark.slow
@pytest.mark.multiprocess
def test_the_module_is_the_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxrl_surrogate", "train", "none.yaml"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "none.yaml: no such file" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("command", ["objective", "plan", "runs", "reproduce"])
def test_help_of_commands_with_arguments_of_their_own(command, capsys):
    assert cli.main([command, "-h"]) == 0
    wanted = {"objective": "--from-step", "plan": "--topology", "runs": "--compare"}
    assert wanted.get(command, "--from STEP") in capsys.readouterr().out


def test_overrides_keep_their_order_and_their_values(config_file):
    args, overrides = cli.parse(
        ["plan", str(config_file), "--seed", "5", "--topology=cpu", "--seed=-1", "x=2"]
    )
    assert (args.topology, overrides) == ("cpu", ["--seed", "5", "--seed=-1", "x=2"])


def test_what_is_missing_is_installed_from_the_checkout():
    """The name on the package index is not this project's."""
    root = Path(__file__).parents[1]
    texts = {
        path: path.read_text(encoding="utf-8")
        for folder in ("jaxrl_surrogate", "docs", "examples", "configs")
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".sh")
    }
    assert len(texts) > 100
    named = [str(p) for p, text in texts.items() if re.search(r"surrogate\[\w", text)]
    assert named == []
    told = set()
    for text in texts.values():
        told |= set(re.findall(r"pip install -e '\.\[(\w+)\]'", text))
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert {"tasks", "hf", "tensorboard", "plots", "tpu"} <= told
    assert told <= set(extras["optional-dependencies"])
