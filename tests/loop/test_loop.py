"""The loop in this process, three steps of the nano model: numbers, not exit codes."""

import dataclasses
import io
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxrl_surrogate import assembly, cli, parallel
from jaxrl_surrogate.commands import replay
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.loop import loop, reexecution
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.telemetry import run_log

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


def open_run(directory, *words, screen=None):
    """A run of the quickstart made small, on one device, and its log."""
    config = cli.load_config(QUICKSTART, [f"--run_dir={directory}", *WORDS, *words])
    run = assembly.build_run(config)
    sampler = dataclasses.replace(run.collector.sampler, mesh=ONE)
    collectors = {
        name: dataclasses.replace(getattr(run, name), sampler=sampler)
        for name in ("collector", "evaluator")
    }
    log = run_log.RunLog(
        assembly.open_directory(config), config.train.steps,
        console=Console(file=screen or io.StringIO(), soft_wrap=True),
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

    def train(directory, *words, screen=None):
        if not directory.exists():
            shutil.copytree(warm / "checkpoints", directory / "checkpoints")
        run, log = open_run(directory, *words, screen=screen)
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

    Of S correct answers among M = 4 the correct ones get 1 - (S - 1) / 3, then 1.
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
        found = np.array(row["correct_weight"], float)[right > 0]
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


def test_replaced_groups_leave_the_objective_of_mixed_ones(train, tmp_path):
    """REINFORCE: 1 - p^3 with groups of 4, not 1; said before, applied, reported."""
    directory, screen = tmp_path / "run", io.StringIO()
    train(
        directory,
        "--objective.name=reinforce",
        "--train.dynamic_sampling_rounds=1",
        # So that many groups are not mixed, and some places are left to them.
        "--rollout.sampling.temperature=0.3",
        screen=screen,
    )
    assert "at p = 0.8 the slope h' is 0.488, not 1.000" in screen.getvalue()
    rows = rows_of(directory, "groups")
    correct = np.concatenate([row["correct"] for row in rows])
    weight = np.concatenate([np.array(row["correct_weight"], float) for row in rows])
    mixed = (correct > 0) & (correct < 4)
    assert mixed.any() and (correct == 4).any(), correct
    # Groups that are all correct and were not replaced count like those that were.
    np.testing.assert_allclose(weight[mixed], 1, rtol=1e-4)
    np.testing.assert_array_equal(weight[correct == 4], 0)
    config = cli.load_config(directory, [])
    report = replay.report_of(config, directory, ["reinforce", "pkpo:k=2"])
    found = report["effective"]
    p = np.array(found["p"])
    np.testing.assert_allclose(found["nominal_slope"], 1 - p**3, rtol=1e-9)
    np.testing.assert_allclose(found["effective_slope"], 1 - p**3, rtol=1e-4, atol=1e-5)
    for name in ("its own", "reinforce", "pkpo:k=2"):
        assert report["rules"][name]["mass"]["all correct"] == 0, name
    assert report["rules"]["reinforce"]["cosine"] == pytest.approx(1)
    assert any("objective of mixed groups" in line for line in report["warnings"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--objective.name=pkpo", "--objective.options={k: 2}"],
         r"pkpo falls: at p = 0\.9 its slope h' is -0\.757, not 0\.200.*pass_at_k"),
        (["--objective.schedule.to=group_max"],
         r"group_max falls: .*objective\.name=leave_one_out_max"),
        (["--objective.name=pass_at_k", "--objective.options={k: 2}",
          "--objective.rewards=mean"],
         r"groups of equal graded rewards are replaced"),
        (["--objective.name=reinforce", "--rollout.group_size=1"],
         r"rollout\.group_size of 2 or more"),
    ],
)  # fmt: skip
def test_refilling_that_turns_an_objective_is_refused(tmp_path, words, said):
    words = ["--rollout.group_size=8", *words, "--train.dynamic_sampling_rounds=2"]
    config = cli.load_config(QUICKSTART, [f"--run_dir={tmp_path}/run", *words])
    with pytest.raises(
        FieldErrors, match=rf"train\.dynamic_sampling_rounds=2: .*{said}"
    ):
        assembly.build_run(config)
    words[-1] = "--train.dynamic_sampling_rounds=0"
    config = cli.load_config(QUICKSTART, [f"--run_dir={tmp_path}/run", *words])
    assert assembly.build_run(config).notes == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--objective.name=rloo"],
         "is 0.821 x grad P(correct | finished), and nothing trains it to finish"),
        (["--objective.name=reinforce"], "is 1.624 x grad P(correct)"),
        (["--objective.name=nsr"],
         "is 0.974 x grad P(correct | finished) - 0.487 x grad log P(finished): it is "
         "trained to be cut rather than incorrect"),
        (["--objective.name=rloo_pass_at_k", "--objective.options={k: 2}"],
         "is 0.821 x grad P(correct | finished) + 0.281 x grad log P(finished): it is "
         "trained to finish"),
        (["--objective.name=rloo", "--objective.rewards=layer_cake"],
         "its objective is that of rewards given that one finished"),
    ],
)  # fmt: skip
def test_what_masked_completions_make_of_a_rule_is_said(tmp_path, words, said):
    words = [f"--run_dir={tmp_path}/run", "--rollout.group_size=4", *words]
    config = cli.load_config(QUICKSTART, [*words, "--train.overlong=mask"])
    (note,) = assembly.build_run(config).notes
    assert note.startswith("train.overlong=mask: ") and note.endswith(said)
    assert not assembly.build_run(cli.load_config(QUICKSTART, words)).notes


def test_a_report_says_how_many_groups_lost_samples(tmp_path):
    words = [f"--run_dir={tmp_path}/run", "--train.overlong=mask"]
    config = cli.load_config(QUICKSTART, [*words, "--rollout.group_size=4"])
    directory = assembly.open_directory(config)
    row = {
        "step": 1, "prompts": [1, 2, 3], "correct": [2, 1, 1], "verified": [4, 4, 2],
        "correct_weight": [2 / 3, 1, 1], "incorrect_weight": [-2 / 3, -1 / 3, -1],
    }  # fmt: skip
    (directory / "groups.jsonl").write_text(json.dumps(row) + "\n")
    said = replay.report_of(config, directory)["warnings"]
    assert any("1 of 3 groups lost samples" in line for line in said)
    assert any("nothing trains it to finish" in line for line in said)


def test_a_second_epoch_of_truncated_sampling_and_one_entropy(train, tmp_path):
    """Tokens that the update excludes are counted, and nothing in the run is NaN."""
    words = ["--rollout.sampling.top_k=3", "--optimizer.learning_rate=0.02"]
    words += ["--rollout.sampling.min_p=0.05", "--train.epochs=2"]
    train(tmp_path / "plain", *words)
    train(tmp_path / "bonus", *words, "--loss.entropy_coef=0.01")
    plain, bonus = (rows_of(tmp_path / name, "metrics") for name in ("plain", "bonus"))
    assert max(row["excluded_fraction"] for row in plain) > 0
    for row in (*plain, *bonus):
        assert row["skipped"] == 0
        names = {name for name, value in row.items() if value is None}
        assert not names, names
    # The first step's tokens are the same, and so is what is said of them.
    assert bonus[0]["reward"] == plain[0]["reward"]
    assert bonus[0]["entropy"] == plain[0]["entropy"]
    assert "entropy_exact" not in plain[0] and bonus[0]["entropy_exact"] > 0


def test_updates_without_a_finite_loss_are_counted_like_those_without_a_gradient():
    nan = float("nan")
    for losses, norms, count in (
        ((1, 1, 1), (1, nan, 1), 0),
        ((1, nan, 1), (1, 1, nan), 2),
        ((nan, nan), (1, 1), 2),
    ):
        history = [
            {"loss": loss, "grad_norm": norm}
            for loss, norm in zip(losses, norms, strict=True)
        ]
        assert loop._in_a_row(history) == count


def test_a_state_is_digested_where_it_is_stored_and_once(train, tmp_path, monkeypatch):
    taken, real = [], digests.device_digests

    def counted(arrays):
        taken.append(len(arrays))
        return real(arrays)

    monkeypatch.setattr(digests, "device_digests", counted)
    outcome = train(tmp_path / "run", "--checkpoint.every=2")
    arrays = len(jax.tree.leaves(outcome.state))
    # The starting state as it was read and for its row; those after steps 2 and 3.
    assert [count for count in taken if count == arrays] == [arrays] * 4
    rows = rows_of(tmp_path / "run", "digests")
    assert [row["step"] for row in rows if "state" in row] == [0, 2, 3]
    assert all({"rollout", "verification", "update"} < row.keys() for row in rows[1:])
    last = rows[-1]["state"]
    assert last == digests.state_digests(outcome.state)["state"]
    record = tmp_path / "run/checkpoints/update/3/meta/metadata"
    stored = json.loads(record.read_text(encoding="utf-8"))["arrays"]
    assert stored == {name: f"device:{digest}" for name, digest in last.items()}
    run, _ = open_run(tmp_path / "run", "--checkpoint.every=2")
    logged = run_log.read_digests(tmp_path / "run")
    found = reexecution.reexecute(run, logged, 0, 3)
    assert found.difference is None
    train(tmp_path / "other", "--checkpoint.every=2", "--log.digests_every=1")
    every = run_log.read_digests(tmp_path / "other")
    assert [step for step, row in every.items() if "state" in row] == [0, 1, 2, 3]
    assert digests.first_difference(every[3], logged[3]) is None
    train(tmp_path / "none", "--checkpoint.every=2", "--log.digests=false")
    assert not (tmp_path / "none" / "digests.jsonl").exists()


@pytest.mark.parametrize("step", [2, 3])
def test_an_evaluation_that_a_signal_put_off_is_made_up(
    train, tmp_path, monkeypatch, step
):
    """The signal comes within the update of a step with an evaluation, or the last."""
    words = ["--eval.prompts=8", "--eval.samples=2", "--eval.every=2"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = train(whole, *words)
    update_phase = loop.update_phase

    def interrupted(run, update, state, batch, reference, now):
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return update_phase(run, update, state, batch, reference, now)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update_phase", interrupted)
        assert train(stopped, *words).step == step
    assert [row["step"] for row in rows_of(stopped, "evaluations")][-1] < step
    found = train(stopped, *words)
    assert rows_of(stopped, "evaluations") == rows_of(whole, "evaluations")
    assert found.after == expected.after and found.after
    for one, other in zip(
        *(rows_of(run, "metrics") for run in (stopped, whole)), strict=True
    ):
        assert one.keys() == other.keys()
        assert all(one[name] == other[name] for name in one if "eval/" in name)
    train(stopped, *words)  # and made once
    assert rows_of(stopped, "evaluations") == rows_of(whole, "evaluations")
