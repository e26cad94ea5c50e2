"""Whole jobs on real data and on tasks of a library: train, stop, go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrl_surrogate import tasks

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
_ROOT = Path(__file__).resolve().parents[1]


def _command(config, directory, *more):
    return [
        sys.executable, "-m", "jaxrl_surrogate", "train", str(_ROOT / config),
        f"--run_dir={directory}", "--log.tensorboard=false", *more,
    ]  # fmt: skip


def _environment():
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def _train(*words):
    done = subprocess.run(
        _command(*words), env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(directory, name):
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def test_five_steps_on_real_questions_stopped_and_resumed(tmp_path):
    beside = _ROOT.parent / "shared" / "data" / "gsm8k"
    path = Path(os.environ.get("JAXRL_GSM8K", beside))
    if not (path / "test.jsonl").is_file():
        pytest.skip(
            "needs the GSM8K files: set JAXRL_GSM8K to the directory that holds "
            "train.jsonl and test.jsonl"
        )
    pytest.importorskip("tokenizers")
    directory = tmp_path / "run"
    words = (
        "configs/gsm8k_small.yaml", directory, f"--task.options.path={path}",
        "--log.completions_every=1",
    )  # fmt: skip
    process = subprocess.Popen(
        _command(*words),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (directory / "checkpoints" / "update" / "2").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    stopped = _rows(directory, "metrics.jsonl")[-1]["step"]
    assert 2 <= stopped < 5
    printed = _train(*words)
    assert f"resumed after step {stopped}" in printed
    rows = _rows(directory, "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(6))
    assert all(row["sampler_trainer_logprob_diff_max"] < 1e-4 for row in rows[1:])
    tokenizer = tasks.tokenizers.get(str(directory / "tokenizer.json"))
    assert tokenizer.vocab_size == 2048
    questions = {problem.prompt for problem in tasks.get("gsm8k", path=str(path)).train}
    shown = _rows(directory, "completions.jsonl")
    assert {row["step"] for row in shown} == {1, 2, 3, 4, 5}
    assert all(row["prompt"] in questions and row["verified"] for row in shown)


@pytest.mark.parametrize("dataset", ["chain_sum", "leg_counting"])
def test_datasets_of_reasoning_gym(dataset, tmp_path):
    pytest.importorskip("reasoning_gym")
    words = (
        "configs/quickstart.yaml", tmp_path / "run", "--model.preset=nano",
        f"--task.name=reasoning_gym:{dataset}", "--task.options={size: 50}",
        "--rollout.max_prompt_length=400", "--rollout.max_completion_length=16",
        "--rollout.prompts_per_step=4", "--rollout.group_size=4",
        "--sft.steps=3", "--sft.optimizer.warmup_steps=0", "--sft.batch_size=4",
        "--eval.prompts=4", "--eval.samples=2",
    )  # fmt: skip
    _train(*words, "--train.steps=2")
    printed = _train(*words, "--train.steps=4")
    assert "resumed after step 2" in printed
    rows = _rows(tmp_path / "run", "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(5))
    assert all(row["unverified"] == 0 for row in rows[1:])
