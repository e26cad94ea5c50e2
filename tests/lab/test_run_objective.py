"""What the log of groups says of objectives, against enumeration and simulation."""

import itertools
import json

import numpy as np
import pytest

from jaxrl_surrogate.lab import effective, groups, ledger, replay
from jaxrl_surrogate.objectives import (
    advantages,
    induced_surrogate,
    mixed_only,
    surrogates,
)

SIZE = 6


def _simulated(random, num_groups, table, rates=None, bend=lambda right, count: 1.0):
    """Groups of Bernoulli policies whose applied weights are bent by a function."""
    rates = random.uniform(size=num_groups) if rates is None else rates
    correct = random.binomial(SIZE, rates, size=num_groups)
    noise = random.normal(1, 0.1, size=(2, num_groups))
    right = table.correct[np.maximum(correct - 1, 0)] * bend(True, correct) * noise[0]
    wrong = table.incorrect[np.minimum(correct, SIZE - 1)] * bend(False, correct)
    return groups.Groups(
        group_size=SIZE,
        step=np.arange(num_groups) // 50 + 1,
        correct=correct,
        verified=np.full(num_groups, SIZE),
        correct_weight=np.where(correct > 0, right, np.nan),
        incorrect_weight=np.where(correct < SIZE, wrong * noise[1], np.nan),
    )


@pytest.mark.parametrize("name", ["rloo", "grpo", "rejection_sampling"])
def test_what_was_not_bent_comes_back_within_its_errors(name, random):
    table = advantages.table(name, SIZE)
    scaled = _simulated(random, 4000, 0.25 * table)
    found = effective.effective_objective(scaled, table)
    assert found.scale == pytest.approx(0.25, rel=0.02)
    departure, error = found.departure()
    known = np.isfinite(departure) & np.isfinite(error)
    assert known.sum() >= SIZE - 1
    assert np.abs(departure[known] / error[known]).max() < 4.5
    p = np.linspace(0.05, 0.95, 9)
    nominal, slope, slope_error = found.slopes(p)
    np.testing.assert_allclose(nominal, induced_surrogate(table).slope(p))
    # The scale is an estimate too, with an error of its own.
    assert np.abs((slope - nominal) / np.hypot(slope_error, 0.01 * nominal)).max() < 4.5


def test_a_bend_is_seen_where_it_is(random):
    """Correct answers of groups with one are cut to half, as clipping might."""
    table = advantages.table("rloo", SIZE)

    def bend(right, count):
        return np.where((count == 1) & right, 0.5, 1.0)

    found = effective.effective_objective(
        _simulated(random, 4000, table, bend=bend), table
    )
    departure, error = found.departure()
    assert departure[0] < -0.3 and departure[0] + 10 * error[0] < 0
    assert np.abs(departure[1:]).max() < 0.15
    _, slope, slope_error = found.slopes(np.array([0.02, 0.5]))
    assert slope[0] + 5 * slope_error[0] < slope[1]


@pytest.mark.parametrize(("name", "params"), [("pkpo_loo", {"k": 2}), ("nsr", {})])
def test_groups_that_were_replaced_are_known_to_weigh_nothing(name, params, random):
    """Not filled in with what the rule would have given them, and not unknown."""
    alone = advantages.table(name, SIZE, **params)
    table = mixed_only(alone)
    logged = _simulated(random, 4000, table)
    logged = logged.where((logged.correct > 0) & (logged.correct < SIZE))
    found = effective.effective_objective(logged, table, mixed_only=True)
    p = np.array([0.1, 0.5, 0.9])
    nominal, slope, error = found.slopes(p)
    q = 1 - p
    expected = induced_surrogate(alone).slope(p)
    expected += alone.incorrect[0] * q ** (SIZE - 1)
    expected -= alone.correct[-1] * p ** (SIZE - 1)
    np.testing.assert_allclose(nominal, expected, atol=1e-12)
    assert np.abs((slope - nominal) / np.hypot(error, 0.01 * nominal)).max() < 4.5
    assert np.isfinite(found.gap_error).all()
    assert found.applied.incorrect[0] == found.applied.correct[-1] == 0


@pytest.mark.parametrize("name", ["rloo", "grpo", "rejection_sampling"])
def test_errors_are_those_of_repetition(name, random):
    """Weights of one group vary together, by a factor of its own; 400 runs of one kind.

    Counts are the same in every run, the factors are drawn afresh. Errors that took
    neighbouring gaps for independent were up to a third too small.
    """
    table = advantages.table(name, SIZE)
    num_groups, num_runs = 600, 400
    correct = random.binomial(SIZE, random.beta(0.7, 0.7, size=num_groups))
    correct[:2] = 3  # every count has at least two groups in the mean over draws
    p = np.array([0.05, 0.3, 0.5, 0.9])
    slopes, slope_errors, departures, departure_errors = [], [], [], []
    for _ in range(num_runs):
        own = np.exp(random.normal(0, 0.3, size=num_groups))
        side = random.normal(1, 0.1, size=(2, num_groups))
        right = table.correct[np.maximum(correct - 1, 0)] * own * side[0]
        wrong = table.incorrect[np.minimum(correct, SIZE - 1)] * own * side[1]
        logged = groups.Groups(
            group_size=SIZE,
            step=np.ones(num_groups, int),
            correct=correct,
            verified=np.full(num_groups, SIZE),
            correct_weight=np.where(correct > 0, 0.5 * right, np.nan),
            incorrect_weight=np.where(correct < SIZE, 0.5 * wrong, np.nan),
        )
        found = effective.effective_objective(logged, table)
        _, slope, error = found.slopes(p)
        slopes.append(slope)
        slope_errors.append(error)
        departure, error = found.departure()
        departures.append(departure)
        departure_errors.append(error)
    for values, errors in (
        (slopes, slope_errors),
        (departures, departure_errors),
    ):
        # The spread of 400 is known to 1 / sqrt(800).
        ratio = np.sqrt(np.mean(np.square(errors), 0)) / np.std(values, 0)
        assert np.abs(ratio - 1).max() < 0.17, ratio


def test_a_count_with_one_group_has_the_error_of_the_others(random):
    table = advantages.table("rloo", SIZE)
    logged = _simulated(random, 400, table, rates=np.full(400, 0.3))
    once = np.flatnonzero(logged.correct == 4)[:1]
    rows = np.concatenate([np.flatnonzero(logged.correct < 4), once])
    found = effective.effective_objective(logged.where(rows), table)
    assert np.isinf(found.gap_error[3]) and np.isfinite(found.gap_error[:3]).all()
    # At this rate the slope is that of the gaps 3 and 4, from one group.
    _, _, error = found.slopes(np.array([0.75]))
    assert 0.02 < error[0] < 1
    alone = effective.effective_objective(logged.where(once), table)
    assert np.isinf(alone.slopes(np.array([0.5]))[2]).all()


def test_groups_that_lost_samples_or_were_never_seen(random):
    table = advantages.table("rloo", SIZE)
    logged = _simulated(random, 300, table, rates=np.full(300, 0.02))
    logged.verified[:10] = SIZE - 1
    found = effective.effective_objective(logged, table)
    assert found.groups.sum() == 290
    assert np.isinf(found.gap_error[-1])
    assert np.isfinite(found.applied.gap).all()
    all_wrong = logged.where(logged.correct == 0)
    with pytest.raises(ValueError, match="none of them carries a weight"):
        effective.effective_objective(all_wrong, advantages.table("reinforce", SIZE))
    with pytest.raises(ValueError, match="group_size=6"):
        effective.effective_objective(logged, advantages.table("rloo", 4))


@pytest.mark.parametrize("name", ["rloo", "grpo", "rloo_pass_at_k"])
def test_estimators_have_the_objectives_as_expectation(name):
    """By enumeration of all reward vectors, at every p."""
    params = {"k": 3} if "pass" in name else {}
    table = advantages.table(name, SIZE, **params)
    found = ledger.estimators(table)
    for p in (0.1, 0.4, 0.9):
        means = dict.fromkeys(found, 0.0)
        for rewards in itertools.product((0, 1), repeat=SIZE):
            count = sum(rewards)
            chance = p**count * (1 - p) ** (SIZE - count)
            for key, values in found.items():
                means[key] += chance * values[count]
        for k in (1, 2, 4, 6):
            assert means[f"pass@{k}"] == pytest.approx(1 - (1 - p) ** k)
        assert means["trained"] == pytest.approx(induced_surrogate(table).value(p))
        series = sum((1 - (1 - p) ** k) / k for k in range(1, SIZE + 1))
        assert means["log"] == pytest.approx(series)
    ends = surrogates.get("arcsin").value(np.array([0.0, 1.0]))
    np.testing.assert_allclose(found["arcsin"][[0, -1]], ends)


def test_errors_of_the_ledger_are_honest(random):
    table = advantages.table("rloo", SIZE)
    rates = random.beta(0.5, 0.5, size=1000)
    far = []
    for _ in range(60):
        found = ledger.ledger(_simulated(random, 1000, table, rates=rates), table)
        truth = 1 - (1 - rates) ** 4
        far.append((found["pass@4"].mean - truth.mean()) / found["pass@4"].error)
    # Rates are the same in all rounds: the spread is that of sampling alone, smaller.
    assert np.std(far) < 1.3 and abs(np.mean(far)) < 1


def test_a_loss_of_diversity_is_said(random):
    table = advantages.table("rloo", SIZE)
    before = _simulated(random, 1000, table, rates=np.full(1000, 0.3))
    solved = np.where(random.random(1000) < 0.5, 0.98, 0.0)
    after = _simulated(random, 1000, table, rates=solved)
    rows = {
        name: np.concatenate([getattr(before, name), getattr(after, name)])
        for name in ("correct", "verified", "correct_weight", "incorrect_weight")
    }
    both = groups.Groups(SIZE, np.repeat(np.arange(40), 50), **rows)
    said = ledger.warnings(ledger.trends(both, table))
    assert any("pass@1 rose" in line and "pass@4 fell" in line for line in said)
    assert not ledger.warnings(ledger.trends(before, table))


def test_replay_by_hand():
    """Two groups of 6, one right and five right: weights and shares written out."""
    logged = groups.Groups(
        SIZE, np.array([1, 1]), np.array([1, 5]), np.array([6, 6]),
        np.ones(2), np.ones(2),
    )  # fmt: skip
    rloo, psr = advantages.table("rloo", SIZE), advantages.table("reinforce", SIZE)
    same = replay.replay(logged, rloo, rloo)
    assert same.cosine == pytest.approx(1) and same.wasted == 0
    found = replay.replay(logged, rloo, psr)
    assert found.wasted == pytest.approx(6 / 12)
    own = np.array([1.0, *[-0.2] * 5, *[0.2] * 5, -1.0])
    theirs = np.array([1.0, *[0.0] * 5, *[1.0] * 5, 0.0])
    expected = own @ theirs / np.linalg.norm(own) / np.linalg.norm(theirs)
    assert found.cosine == pytest.approx(expected)
    assert found.mass == {
        "none correct": 0, "to a quarter": pytest.approx(1 / 6), "to three quarters": 0,
        "more": pytest.approx(5 / 6), "all correct": 0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="group_size=4"):
        replay.replay(logged, rloo, advantages.table("rloo", 4))


def test_a_log_is_read_up_to_the_line_that_a_kill_cut(tmp_path):
    row = {
        "step": 3, "prompts": [5, 6], "correct": [0, 2], "verified": [6, 5],
        "correct_weight": [None, 0.5], "incorrect_weight": [-1.0, None],
    }  # fmt: skip
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row)[:20])
    found = groups.read_groups(tmp_path, 6)
    assert len(found) == 2 and len(found.whole) == 1
    assert np.isnan(found.correct_weight[0]) and found.correct_weight[1] == 0.5
    path.write_text("")
    with pytest.raises(ValueError, match="holds no step"):
        groups.read_groups(tmp_path, 6)
    path.unlink()
    with pytest.raises(ValueError, match=r"no groups\.jsonl"):
        groups.read_groups(tmp_path, 6)
