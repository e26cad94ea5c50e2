"""Three steps of the loop with everything on, recomputed from what went in.

The update is watched, not replaced: what each one was given is kept, and the record of
the run is compared with the equations in float64.
"""

import dataclasses
import functools
import io
import json
import shutil
import time
import types
from pathlib import Path

import decoder_oracle
import jax
import numpy as np
import pytest
from rich.console import Console

from jaxrl_surrogate import assembly, cli, parallel
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.telemetry import run_log
from jaxrl_surrogate.training.step import make_update

pytestmark = pytest.mark.both_pythons


ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
RATE, FINAL, KL = 0.05, 0.5, 0.3
WORDS = [
    "--model.preset=nano",
    "--task.options={min_digits: 1, max_digits: 1}",
    "--sft.steps=60",
    "--sft.optimizer.warmup_steps=0",
    "--sft.optimizer.learning_rate=0.01",
    "--sft.batch_size=32",
    # Plain descent: the gradient is what the parameters moved by, over the rate.
    "--optimizer.name=sgd",
    "--optimizer.b1=0",
    "--optimizer.clip_norm=0",
    f"--optimizer.learning_rate={RATE}",
    f"--optimizer.final_fraction={FINAL}",
    "--optimizer.schedule=linear",
    "--loss.policy=ppo_clip",
    "--loss.clip_low=0.05",
    "--loss.clip_high=0.1",
    f"--loss.kl_coef={KL}",
    "--loss.kl_estimator=k2",
    "--objective.schedule.to=maxrl",
    "--train.steps=3",
    "--train.epochs=2",
    "--train.minibatches=2",
    "--train.dynamic_sampling_rounds=1",
    "--rollout.prompts_per_step=8",
    "--rollout.group_size=4",
    "--eval.prompts=8",
    "--eval.samples=4",
    "--eval.every=2",
    "--checkpoint.every=2",
    "--log.tensorboard=false",
]
CLOCKS = ("seconds", "seconds_update", "tokens_per_second", "compiles")


class Interrupted(Exception):
    """What ends a run in the middle."""


@dataclasses.dataclass
class Lab:
    """One run's parts, for many directories: programs are compiled once."""

    run: object
    config: object
    start: Path  # checkpoints of the starting state

    def train(self, directory, patch, *, on_update=None, log=run_log.RunLog, **changes):
        """Train in a directory, new or old, on the parts of the one run.

        `changes` are fields of the run's settings, by section.
        """
        if not directory.exists():
            shutil.copytree(self.start, directory / "checkpoints" / "start")
        self.run.prompts.restore({"position": 0})
        run = dataclasses.replace(
            self.run,
            directory=directory,
            **{
                section: dataclasses.replace(getattr(self.run, section), **fields)
                for section, fields in changes.items()
            },
        )
        compiled = self.update

        def watched(*fixed):
            def update(*inputs):
                if on_update is not None:
                    on_update(*inputs)
                return compiled(*fixed)(*inputs)

            return update

        patch.setattr(loop, "make_update", watched)
        record = log(
            directory, run.loop.steps,
            console=Console(file=io.StringIO()),
        )  # fmt: skip
        with record:
            return loop.train(run, record)

    @functools.cached_property
    def update(self):
        """`make_update`, which gives the same function for the same parts."""
        return functools.lru_cache(make_update)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The quickstart made small, on one device."""
    directory = tmp_path_factory.mktemp("parts")
    config = cli.load_config(QUICKSTART, [f"--run_dir={directory}", *WORDS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda _: ONE)
        run = assembly.build_run(config)
    log = run_log.RunLog(directory, 3, console=Console(file=io.StringIO()))
    loop.starting_state(run, log)
    return Lab(run, config, directory / "checkpoints" / "start")


@pytest.fixture(scope="module")
def whole(lab, tmp_path_factory):
    """The undisturbed run: its directory, outcome, and what every update was given."""
    directory, given = tmp_path_factory.mktemp("whole") / "run", []

    def keep(state, piece, objective, reference):
        # As arrays of their own: the state is donated.
        inputs = state.params, piece, objective, reference
        given.append(jax.tree.map(np.array, inputs))

    with pytest.MonkeyPatch.context() as patch:
        outcome = lab.train(directory, patch, on_update=keep)
    return directory, outcome, given


def rows_of(directory, name):
    text = (directory / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def timeless(directory):
    """Metrics that do not measure time or the process."""
    return [
        {name: value for name, value in row.items() if name not in CLOCKS}
        for row in rows_of(directory, "metrics")
    ]


def stored(directory, phase="update"):
    names = (path.name for path in (directory / "checkpoints" / phase).iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def test_every_update_has_its_rows_and_the_objective_of_its_step(whole):
    _, _, given = whole
    assert len(given) == 3 * 2 * 2
    counts = np.arange(1, 5)
    rloo, maxrl = 1 - (counts - 1) / 3, 4 / counts - 1
    wrong_rloo, wrong_maxrl = -np.arange(4) / 3, np.array([0.0, -1, -1, -1])
    for turn, (_, piece, objective, _) in enumerate(given):
        share = turn // 4 / 2  # 0, 1/2, 1 at steps 1, 2, 3
        right = (1 - share) * rloo + share * maxrl
        wrong = (1 - share) * wrong_rloo + share * wrong_maxrl
        np.testing.assert_allclose(objective.correct[-1], right, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(objective.incorrect[-1], wrong, rtol=1e-6, atol=1e-7)
        # The second epoch has the minibatches of the first; both together are a batch.
        first = given[turn - 2 if turn % 4 >= 2 else turn][1]
        jax.tree.map(np.testing.assert_array_equal, piece, first)
        if turn % 4 == 1:
            both = np.concatenate([given[turn - 1][1].prompts.ids, piece.prompts.ids])
            assert len(set(both.tolist())) == 8


def test_losses_kl_and_gradients_are_those_of_the_equations(lab, whole):
    directory, outcome, given = whole
    run, rows = lab.run, rows_of(directory, "metrics")
    start = given[0][0]
    after = [params for params, *_ in given[1:]]
    after.append(jax.tree.map(np.array, outcome.state.params))

    def scores(params, piece):
        return decoder_oracle.token_scores(
            run.model, params, piece.prompts, piece.completions, run.update.sampling
        )[0]

    losses, penalties, norms, gaps = [], [], [], []
    for turn, (params, piece, objective, reference) in enumerate(given):
        jax.tree.map(np.testing.assert_array_equal, reference, start)
        mask = np.asarray(piece.completions.mask)
        assert piece.reward_mask.all()
        right = (piece.rewards >= 0.5).sum(-1, keepdims=True)
        advantages = np.where(
            piece.rewards >= 0.5,
            objective.correct[-1][np.maximum(right - 1, 0)],
            objective.incorrect[-1][np.minimum(right, 3)],
        )
        new, ref = scores(params, piece), scores(start, piece)
        old = piece.completions.sampler_logprobs

        def loss(logprobs, piece=piece, old=old, advantages=advantages, ref=ref):
            return decoder_oracle.batch_loss(
                run.update.loss, logprobs, old, advantages, np.zeros(old.shape), ref,
                piece.completions.lengths, piece.reward_mask,
            )  # fmt: skip

        losses.append(loss(new))
        penalties.append(((new - ref)[mask] ** 2 / 2).mean())
        gaps.append(np.abs(new - old)[mask].max())
        rate = RATE * (1 - (1 - FINAL) * turn / 11)
        grads = jax.tree.map(
            lambda a, b, rate=rate: (a - np.float64(b)) / rate, params, after[turn]
        )
        norm = np.sqrt(sum(np.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)))
        norms.append(norm)
        if turn == 6:  # in the second epoch of step 2, where ratios are not 1
            found, expected = decoder_oracle.slopes(
                lambda params, piece=piece, loss=loss: loss(scores(params, piece)),
                params, grads, jax.tree.map(lambda g, n=norm: g / n, grads),
            )  # fmt: skip
            assert found == pytest.approx(norm, rel=1e-6)
            assert expected == pytest.approx(norm, rel=2e-2)
    assert penalties[0] < 1e-9 < penalties[3]
    for step in (1, 2, 3):
        row, turns = rows[step], slice(4 * step - 4, 4 * step)
        assert row["step"] == step and row["skipped"] == 0
        assert row["loss"] == pytest.approx(np.mean(losses[turns]), abs=2e-6)
        assert row["kl"] == pytest.approx(np.mean(penalties[turns]), rel=1e-3, abs=1e-8)
        assert row["grad_norm"] == pytest.approx(np.mean(norms[turns]), rel=1e-3)
        # Of the first update: later ones have moved away from the sampler on purpose.
        assert row["sampler_trainer_logprob_diff_max"] < 1e-4 < gaps[4 * step - 1]


def answered(run, params, step):
    """The next 8 prompts: the number of each, and whether each answer is correct."""
    problems = run.prompts.take(8)
    run.collector.sampler.load(params, step - 1)
    _, done = run.collector.sample(problems, step)
    return [
        (problem.id, np.array([text.strip() == problem.completion for text in texts]))
        for problem, texts in zip(
            problems, run.collector.verification.texts(done), strict=True
        )
    ]


def test_refilled_batches_are_those_of_the_prompt_stream(lab, whole):
    """Groups without signal give their places to the next prompts that have some."""
    directory, _, given = whole
    rows, run = rows_of(directory, "metrics"), lab.run
    run.prompts.restore({"position": 0})
    refilled = 0
    for step in (1, 2, 3):
        params, first, *_ = given[4 * step - 4]
        second = given[4 * step - 3][1]
        rounds = [answered(run, params, step)]
        ids, rewards = map(list, zip(*rounds[0], strict=True))
        if any(row.sum() in (0, 4) for row in rewards):
            rounds.append(answered(run, params, step))
            fresh = [pair for pair in rounds[1] if 0 < pair[1].sum() < 4]
            for place in range(8):
                if rewards[place].sum() in (0, 4) and fresh:
                    ids[place], rewards[place] = fresh.pop(0)
                    refilled += 1
        together = np.empty(8, int), np.empty((8, 4))
        for part, piece in enumerate((first, second)):
            together[0][part::2], together[1][part::2] = (
                piece.prompts.ids,
                piece.rewards,
            )
        np.testing.assert_array_equal(together[0], ids)
        np.testing.assert_array_equal(together[1], rewards)
        row = rows[step]
        assert row["refill_rounds"] == len(rounds) - 1
        assert row["reward"] == pytest.approx(np.mean(rewards))
        mixed = [0 < row.sum() < 4 for pairs in rounds for _, row in pairs]
        assert row["mixed_group_fraction"] == pytest.approx(np.mean(mixed))
    assert refilled > 0


def test_evaluations_are_of_the_states_they_name(lab, whole):
    directory, outcome, given = whole
    rows = rows_of(directory, "evaluations")
    assert [row["step"] for row in rows] == [0, 2, 3]
    states = given[0][0], given[8][0], outcome.state.params
    metrics = {row["step"]: row for row in rows_of(directory, "metrics")}
    assert list(metrics) == [0, 1, 2, 3]
    assert not any(name.startswith("eval/") for name in metrics[1])
    for row, params in zip(rows, states, strict=True):
        found = loop.run_evaluation(lab.run, params, 0)
        assert row["correct"] == found.num_correct.tolist()
        share = np.mean(row["correct"]) / 4
        assert metrics[row["step"]]["eval/pass@1"] == pytest.approx(share)
    assert outcome.before["eval/pass@1"] == metrics[0]["eval/pass@1"]
    assert outcome.after["eval/pass@1"] == metrics[3]["eval/pass@1"]
    assert stored(directory) == [2, 3]


def test_minutes_are_counted_from_the_last_state_stored(lab, tmp_path, monkeypatch):
    """40 seconds a step and a state a minute: 2, 4, and the last one."""
    clock = [1000.0]
    own = types.SimpleNamespace(
        monotonic=lambda: clock[0], perf_counter=time.perf_counter
    )
    monkeypatch.setattr(loop, "time", own)

    def pass_time(*_):
        clock[0] += 10.0

    directory = tmp_path / "run"
    outcome = lab.train(
        directory,
        monkeypatch,
        on_update=pass_time,
        loop={"steps": 5},
        checkpoint={"every": 100, "every_minutes": 1, "keep_last": 9},
        evaluation={"every": 0},
    )
    assert outcome.step == 5 and clock[0] == 1000 + 5 * 40
    assert stored(directory) == [2, 4, 5]


# What is called where a run ends, at which step, and the step it goes on from.
BOUNDARIES = {
    "before the first update": (("event", 1, "rollout"), 0),
    "between rollout and verdicts": (("event", 2, "verify"), 0),
    "between epochs": (("update", 2, 3), 0),
    "between update and evaluation": (("evaluation", 2), 0),
    "between evaluation and record": (("digests", 2), 0),
    "between record and state": (("metrics", 2), 0),
    "after the state": (("event", 3, "rollout"), 2),
    "after the last update": (("evaluation", 3), 2),
}


@pytest.mark.parametrize("refill_rounds", [0, 1])
def test_resumed_at_each_boundary_it_has_the_same_bits(
    lab, whole, tmp_path, monkeypatch, refill_rounds
):
    """Rollouts are stored before their verdicts where no round of refilling follows."""
    directory, outcome, _ = whole
    rounds = {"dynamic_sampling_rounds": refill_rounds}
    if not refill_rounds:
        directory = tmp_path / "whole"
        outcome = lab.train(directory, monkeypatch, loop=rounds)
    for name, (place, resumes) in BOUNDARIES.items():
        updates = []

        def count(*_, updates=updates, place=place):
            updates.append(None)
            if place[0] == "update" and len(updates) == 4 * (place[1] - 1) + place[2]:
                raise Interrupted

        class Ends(run_log.RunLog):
            def _reached(self, *at, place=place):
                if at[: len(place)] == place:
                    raise Interrupted

            def event(self, step, event, **details):
                super().event(step, event, **details)
                self._reached("event", step, event)

            def evaluation(self, step, found):
                self._reached("evaluation", step)
                super().evaluation(step, found)

            def digests(self, step, row):
                self._reached("digests", step)
                super().digests(step, row)

            def metrics(self, step, values):
                super().metrics(step, values)
                self._reached("metrics", step)

        ended = tmp_path / name.replace(" ", "_")
        with pytest.raises(Interrupted):
            lab.train(ended, monkeypatch, on_update=count, log=Ends, loop=rounds)
        assert max([0, *stored(ended)]) == resumes, name
        updates.clear()
        again = lab.train(ended, monkeypatch, loop=rounds)
        jax.tree.map(np.testing.assert_array_equal, again.state, outcome.state)
        assert (again.before, again.after) == (outcome.before, outcome.after), name
        assert timeless(ended) == timeless(directory), name
        for file in ("digests", "groups", "evaluations"):
            assert rows_of(ended, file) == rows_of(directory, file), (name, file)
        assert stored(ended) == stored(directory)
        if not refill_rounds:  # what was sampled is sampled once
            events = rows_of(ended, "events")
            sampled = [row["step"] for row in events if row["event"] == "rollout"]
            assert sampled == sorted([1, 2, 3, *[place[1]] * ("rollout" in place)])
