"""The loop in this process, three steps of the nano model: numbers, not exit codes."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxrl_surrogate import build, cli, parallel
from jaxrl_surrogate.commands import replay
from jaxrl_surrogate.training import loop, reexecution, run_log

pytestmark = pytest.mark.usefixtures("quick_compiler")

ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
WORDS = [
    "--model.preset=nano",
    "--task.options={min_digits: 1, max_digits: 1}",
    "--sft.steps=60",
    "--sft.optimizer.warmup_steps=0",
    "--sft.optimizer.learning_rate=0.01",
    "--sft.batch_size=32",
    "--optimizer.learning_rate=0.002",
    "--loss.normalization=sequence_sum",
    "--train.steps=3",
    "--rollout.prompts_per_step=8",
    "--rollout.group_size=4",
    "--eval.prompts=0",
    "--checkpoint.every=1",
    "--checkpoint.keep_last=9",
    "--log.tensorboard=false",
]


@pytest.fixture(scope="module", autouse=True)
def programs_on_disk(tmp_path_factory):
    """Runs of the same programs compile them once."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def open_run(directory, *words):
    """A run of the quickstart made small, on one device, and its log."""
    config = cli.load_config(QUICKSTART, [f"--run_dir={directory}", *WORDS, *words])
    run = build.build_run(config)
    collectors = {
        name: dataclasses.replace(getattr(run, name), mesh=ONE)
        for name in ("collector", "evaluator")
    }
    log = run_log.RunLog(
        build.open_directory(config), config.train.steps, tensorboard=False,
        console=Console(file=io.StringIO()),
    )  # fmt: skip
    return dataclasses.replace(run, mesh=ONE, **collectors), log


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A run that has made its starting state and nothing else."""
    directory = tmp_path_factory.mktemp("warm")
    run, log = open_run(directory)
    loop.starting_state(run, log)
    return directory


@pytest.fixture
def train(warm):
    """Train a run, new or stored, from the common starting state."""

    def train(directory, *words):
        if not directory.exists():
            shutil.copytree(warm / "checkpoints", directory / "checkpoints")
        run, log = open_run(directory, *words)
        with log:
            return loop.train(run, log)

    return train


def rows_of(directory, name):
    text = (directory / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("shape", "end", "shares"), [("linear", 3, (0, 0.5, 1)), ("hold", 2, (0, 1, 1))]
)
def test_a_step_has_the_objective_of_the_schedule(train, tmp_path, shape, end, shares):
    """RLOO to REINFORCE without a baseline; a policy gradient applies them as they are.

    Of S right answers among M = 4 the right ones get 1 - (S - 1) / 3, then 1.
    """
    directory = tmp_path / "run"
    words = [
        "--objective.schedule.to=reinforce",
        f"--objective.schedule.end={end}",
        f"--objective.schedule.shape={shape}",
    ]
    train(directory, *words)
    rows = rows_of(directory, "groups")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row, share in zip(rows, shares, strict=True):
        right = np.array(row["correct"])
        found = np.array(row["right_weight"], float)[right > 0]
        rloo = 1 - (right[right > 0] - 1) / 3
        np.testing.assert_allclose(found, (1 - share) * rloo + share, rtol=1e-4)
        assert (rloo < 1).any()
    # What reads a run back means the same step by a number.
    config = cli.load_config(directory, [])
    report = replay.report_of(config, directory, from_step=end)
    departure = np.array(report["effective"]["departure"], float)
    assert np.isfinite(departure).any()
    np.testing.assert_allclose(departure[np.isfinite(departure)], 0, atol=1e-4)
    run, _ = open_run(directory, *words)
    found = reexecution.reexecute(run, run_log.read_digests(directory), 0, 3)
    assert found.difference is None and found.compared > 100
