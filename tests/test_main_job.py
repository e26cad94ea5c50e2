"""The whole job as a user runs it: processes, kill -9, resumption, wrong configs."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxrl_surrogate import cli

SMALL = [
    "--model.preset=nano",
    # Enough to be correct now and then: updates without a gradient would show little.
    "--task.options={min_digits: 1, max_digits: 1}",
    "--sft.steps=40",
    "--sft.optimizer.warmup_steps=0",
    "--sft.optimizer.learning_rate=0.01",
    "--sft.batch_size=32",
    "--train.steps=6",
    "--rollout.prompts_per_step=8",
    "--rollout.group_size=4",
    "--eval.prompts=8",
    "--eval.samples=4",
    "--checkpoint.every=2",
    "--log.tensorboard=false",
]


def _environment():
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def _command(directory, *more):
    config = os.path.join(os.path.dirname(__file__), "..", "configs/quickstart.yaml")
    return [
        sys.executable, "-m", "jaxrl_surrogate", "train", config,
        f"--run_dir={directory}", *SMALL, *more,
    ]  # fmt: skip


def _train(directory, *more):
    return subprocess.run(
        _command(directory, *more),
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def _digest(directory):
    """Bits of the final parameters, by a process of their own."""
    code = (
        "import sys, hashlib, jax, numpy as np\n"
        "from pathlib import Path\n"
        "from jaxrl_surrogate import assembly, cli\n"
        "from jaxrl_surrogate.training.state import abstract_state\n"
        "from jaxrl_surrogate.storage.state_reader import StateReader\n"
        "run = assembly.build_run(cli.load_config(Path(sys.argv[1]), []))\n"
        "abstract = abstract_state(run.model, run.optimizer, run.mesh)\n"
        "reader = StateReader(run.directory)\n"
        "step = reader.steps()[-1]\n"
        "state, _ = reader.state(step, abstract)\n"
        "digest = hashlib.sha256()\n"
        "for leaf in jax.tree.leaves(state):\n"
        "    digest.update(np.asarray(leaf).tobytes())\n"
        "print(step, digest.hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _lines(directory):
    return (directory / "metrics.jsonl").read_text().splitlines()


def _metrics(directory):
    """Metrics that do not measure time or the process."""
    rows = [json.loads(line) for line in _lines(directory)]
    clock = ("seconds", "seconds_update", "tokens_per_second", "compiles")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "whole"
    done = _train(directory)
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.both_pythons
@pytest.mark.multiprocess
def test_the_job_ends_and_compiles_nothing_after_the_second_step(undisturbed):
    directory, printed = undisturbed
    assert "pass@1" in printed and "before RL" in printed
    rows = [json.loads(line) for line in _lines(directory)]
    assert [row["step"] for row in rows] == list(range(7))
    assert rows[1]["compiles"] > 0
    assert all(row["compiles"] == 0 for row in rows[3:])
    assert sum(row["mixed_group_fraction"] > 0 for row in rows[1:]) >= 4
    assert all(row["sampler_trainer_logprob_diff_max"] < 1e-5 for row in rows[1:])


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.both_pythons
@pytest.mark.multiprocess
@pytest.mark.parametrize("phase", ["rollout", "update"])
def test_killed_and_run_again_gives_the_bits_of_the_run_never_stopped(
    undisturbed, tmp_path, phase
):
    directory = tmp_path / "killed"
    process = subprocess.Popen(
        _command(directory),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Step 3 is between checkpoints. Its rollout on disk: the update is running or to
    # come; before that, its rollout is.
    waited = {
        "rollout": directory / "checkpoints" / "update" / "2",
        "update": directory / "checkpoints" / "rollout" / "3",
    }[phase]
    deadline = time.monotonic() + 200
    while not waited.exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = _train(directory)
    assert again.returncode == 0, again.stderr
    assert _digest(directory) == _digest(undisturbed[0])
    assert _metrics(directory) == _metrics(undisturbed[0])


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(undisturbed, tmp_path, number):
    directory = tmp_path / "stopped"
    process = subprocess.Popen(
        _command(directory),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not (directory / "checkpoints" / "rollout" / "1").exists():
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode in (130, 0)
    again = _train(directory)
    assert again.returncode == 0, again.stderr
    assert _digest(directory) == _digest(undisturbed[0])


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_second_signal_ends_at_once(undisturbed, tmp_path):
    directory = tmp_path / "twice"
    process = subprocess.Popen(
        _command(directory),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (directory / "checkpoints" / "rollout" / "1").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    said = process.stderr.readline() + process.stderr.readline()
    assert "once more stops now" in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) in (-signal.SIGTERM, 130, 0)
    again = _train(directory)
    assert again.returncode == 0, again.stderr
    assert _digest(directory) == _digest(undisturbed[0])


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "objective",
    [
        ["--objective.name=grpo"],
        ["--objective.name=rejection_sampling"],
        ["--objective.name=rloo_pass_at_k", "--objective.options.k=2"],
        ["--objective.name=log"],
        ["--objective.name=log", "--objective.schedule.to=rloo"],
    ],
)
def test_every_kind_of_objective_trains(tmp_path, objective):
    done = _train(tmp_path / "run", "--train.steps=2", "--eval.prompts=0", *objective)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.multiprocess
def test_what_the_run_optimised_is_reported(undisturbed, capsys, tmp_path):
    """One update on each rollout, no clipping: the weights applied are the nominal."""
    words = ["objective", "--replay", str(undisturbed[0]), "--as", "grpo,pass_at_k:k=2"]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["groups"] == 48 and report["steps"] == [1, 6]
    found = report["effective"]
    # sequence sums over the longest completion of 4 tokens (dr_grpo)
    assert found["scale"] == pytest.approx(1 / 4, rel=1e-3)
    for departure in found["departure"]:
        assert departure is None or abs(departure) < 1e-3
    assert list(report["rules"]) == ["its own", "grpo", "pass_at_k:k=2"]
    assert report["rules"]["its own"]["cosine"] == pytest.approx(1)
    stored = json.loads((undisturbed[0] / "objective.json").read_text())
    assert stored["ledger"] == report["ledger"]
    figure = tmp_path / "effective.svg"
    assert cli.main([*words, "--figure", str(figure)]) == 0
    assert "effective slope" in capsys.readouterr().out
    assert "departure of the applied weights" in figure.read_text()
    assert cli.main([*words[:3], "--as", "grop"]) == 2
    assert "grpo" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_changed_seed_is_refused_on_an_old_run(undisturbed):
    done = _train(undisturbed[0], "--seed=1")
    assert done.returncode == 2
    assert "seed=1" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_graded_rewards_are_trained_with_and_seen(tmp_path):
    task = [
        "--task.name=countdown",
        "--task.options={num_numbers: 2, partial_credit: 0.2}",
        "--rollout.max_prompt_length=12",
        "--rollout.max_completion_length=8",
        "--train.steps=2",
    ]
    done = _train(tmp_path / "rounded", *task)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("set objective.rewards to layer_cake or mean") == 1
    done = _train(tmp_path / "graded", *task, "--objective.rewards=layer_cake")
    assert done.returncode == 0, done.stderr
    assert "set objective.rewards" not in done.stdout
    assert "no objective.json: objective.rewards=layer_cake" in done.stdout
    first = [_metrics(tmp_path / name)[1] for name in ("rounded", "graded")]
    assert first[0]["graded"] == first[1]["graded"] > 0
    assert first[0]["loss"] != first[1]["loss"]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_gradients_that_are_not_finite_stop_the_run(tmp_path):
    """Parameters that overflow in the first update: nothing is trained on after it."""
    wild = ["--optimizer.learning_rate=1e38", "--train.nonfinite_limit=2"]
    wild += ["--optimizer.warmup_steps=0", "--train.steps=20"]
    done = _train(tmp_path / "run", *wild)
    assert done.returncode == 3, done.stderr
    assert "the last 3 updates had a loss or gradient not finite" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("updates skipped: loss or gradient not finite") == 3
    rows = _metrics(tmp_path / "run")
    assert rows[-1]["skipped"] == 3
    done = _train(tmp_path / "run", *wild)  # from the state before, the same again
    assert done.returncode == 3
