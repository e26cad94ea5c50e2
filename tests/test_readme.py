"""Every command of the README, in its order, in a copy of the checkout, made small."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_PROGRAM = re.compile(r"(\.venv/bin/)?(jaxrl|python3?|pytest)\b")
# Installing and the tests themselves: CI does the first, and this is the second.
_LEFT_OUT = re.compile(r"python3 -m venv|\.venv/bin/pip|(\.venv/bin/)?pytest\b")
_SMALL = (
    "--model.preset=nano --rollout.prompts_per_step=8 --sft.steps=20 "
    "--sft.batch_size=8 --sft.optimizer.warmup_steps=0 --train.steps=4 "
    "--eval.prompts=8 --eval.samples=4 --checkpoint.every=2"
)
_ONE_DIGIT = " --task.options.min_digits=1 --task.options.max_digits=1"
_GSM8K = os.environ.get("JAXRL_GSM8K", ROOT.parent / "shared" / "data" / "gsm8k")
# Commands that take long as they stand, by how they begin: what makes them small, and
# what their output must hold. All others run as they stand.
_SMALLER = {
    "jaxrl train configs/quickstart.yaml": (
        _SMALL + _ONE_DIGIT,
        "finished after step 4",
    ),
    "jaxrl train configs/quickstart.yaml --name=reverse": (
        _SMALL,
        "finished after step 4",
    ),
    "jaxrl train configs/gsm8k_small.yaml": (
        "--model.preset=nano --train.steps=1 --sft.steps=2 --eval.prompts=4 "
        "--task.tokenizer=bpe:300 --rollout.max_prompt_length=200 "
        "--rollout.max_completion_length=150",
        "finished after step 1",
    ),
    "python -m tests.faults": ("--kills=1 --steps=6", "digests that differ: none"),
    "python -m jaxrl_surrogate.lab.gradient_check": ("--copies=8 --batches=8", ""),
    "python -m benchmarks.": ("--help", "usage:"),
}
_SAYS = {
    "jaxrl train runs/quickstart": "finished after step 4",
    "jaxrl eval": "pass@4",
    "jaxrl objective --replay": "maxrl",
    "jaxrl reproduce": "same: steps",
    "jaxrl runs": "objective.name",
    "jaxrl train --help=objective": "--objective.name",
    "jaxrl objective grpo": "arcsin",
    "jaxrl objective my.py:": "my.py:shrunk",
}
# What a command needs that a machine may lack, and what it says then.
_LACKING = {"jaxrl plan": "expected package libtpu"}


def _blocks(text):
    """Blocks of shell and the code in sentences, in order; other languages left out."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    indented = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
    inline = re.compile(r"`([^`]+)`", re.DOTALL)
    found, rest = [], text
    for pattern in (fence, indented, inline):
        for match in pattern.finditer(rest):
            if pattern is not fence or match[1] == "sh":
                found.append((match.start(), match[match.lastindex or 0]))
        rest = pattern.sub(lambda match: " " * len(match[0]), rest)
    return [block for _, block in sorted(found)]


def commands(text):
    """The commands of a Markdown text that this file can run, in order."""
    out = []
    for block in _blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.partition(" #")[0].split("&&"):
                part = " ".join(part.split())
                # The name of a command alone, in a sentence, is no command.
                if _PROGRAM.match(part) and len(part.split()) > 2:
                    out.append(part)
    return [
        part.removeprefix(".venv/bin/") for part in out if not _LEFT_OUT.match(part)
    ]


# Files that the README shows, by the name in their first line.
FILES = re.findall(
    r"^```python\n# (\w+\.py)\n(.*?)^```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
COMMANDS = commands((ROOT / "README.md").read_text(encoding="utf-8"))


def _param(command):
    long = command.startswith(("python", "jaxrl train configs/gsm8k"))
    marks = [pytest.mark.slow, pytest.mark.multiprocess] + [pytest.mark.ci] * (not long)
    return pytest.param(command, id=command, marks=marks)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that looks like the checkout, with the programs that are named."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "tests", "benchmarks", "jaxrl_surrogate"):
        (folder / name).symlink_to(ROOT / name)
    for name, text in FILES:
        with (folder / name).open("a") as file:
            file.write(text)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, words in (("jaxrl", "-m jaxrl_surrogate"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def _environment(folder):
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {
        "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }


def _longest(table, command):
    fitting = [start for start in table if command.startswith(start)]
    return table[max(fitting, key=len)] if fitting else None


def test_the_readme_has_the_commands_that_are_run():
    """Extraction that finds nothing would make all of this pass."""
    assert COMMANDS[0] == "jaxrl train configs/quickstart.yaml"
    assert sum(command.startswith("jaxrl") for command in COMMANDS) >= 14
    assert "my.py" in dict(FILES)
    for start in (*_SMALLER, *_SAYS, *_LACKING):
        assert any(command.startswith(start) for command in COMMANDS), start


@pytest.mark.parametrize("command", [_param(command) for command in COMMANDS])
def test_each_command_in_order(checkout, command):
    more, said = _longest(_SMALLER, command) or ("", _longest(_SAYS, command) or "")
    if "DIRECTORY" in command:
        if not (Path(_GSM8K) / "test.jsonl").is_file():
            pytest.skip("needs the GSM8K files: set JAXRL_GSM8K to their directory")
        command = command.replace("DIRECTORY", str(_GSM8K))
    done = subprocess.run(
        ["sh", "-c", f"{command} {more}"],
        cwd=checkout,
        env=_environment(checkout),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lacking = _longest(_LACKING, command)
    if done.returncode == 2 and lacking and lacking in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
