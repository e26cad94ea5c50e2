"""Bias and variance, against sums over all reward vectors and closed forms."""

import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import (
    WeightTable,
    advantages,
    from_surrogate,
    induced_surrogate,
    surrogates,
    variance,
)

P = np.array([0.01, 0.2, 0.5, 0.7, 0.99])


def moments(table, p):
    """E[Z^2] and Var[(1/M) sum Z (R - p)] over all reward vectors."""
    rewards = oracles.reward_vectors(table.group_size)
    weights = np.empty_like(rewards)
    for row, out in zip(rewards, weights, strict=True):
        others = (row.sum() - row).astype(int)
        out[:] = np.where(row == 1, table.correct[others % len(row)], 0)
        out[row == 0] = table.incorrect[others[row == 0]]
    chance = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    update = (weights * (rewards - p)).mean(1)
    mean = chance @ update
    return chance @ (weights**2).mean(1), chance @ (update - mean) ** 2


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_against_enumeration(size, random):
    table = WeightTable(*random.normal(size=(2, size)))
    for p in (*P, 0.0, 1.0):
        square, spread = moments(table, p)
        assert variance.second_moment(table, p) == pytest.approx(square, rel=1e-12)
        got = variance.scalar_variance(table, p)
        assert got == pytest.approx(spread, rel=1e-11, abs=1e-15)
    assert variance.scalar_variance(table, P.reshape(1, 5)).shape == (1, 5)
    assert variance.second_moment(table, P.reshape(5, 1)).shape == (5, 1)


def test_large_groups_stay_finite():
    table = from_surrogate(surrogates.get("log"), 512)
    for fn in (variance.second_moment, variance.scalar_variance):
        assert np.isfinite(fn(table, np.linspace(0, 1, 50))).all()
        assert (fn(table, np.linspace(0, 1, 50)) >= 0).all()


def test_second_moments_of_the_theory():
    q = 1 - P
    for size in (2, 8):
        z = {
            name: variance.second_moment(advantages.table(name, size), P) / (P * q)
            for name in ("reinforce", "rloo")
        }
        np.testing.assert_allclose(z["reinforce"], 1 / q, rtol=1e-12)
        np.testing.assert_allclose(z["rloo"], size / (size - 1), rtol=1e-12)
    # THEORY 4, k = 4, M = 8 at p = .01, .2, .5, .7, over p q E[d^2].
    gap = advantages.table("pass_at_k", 8, k=4).gap
    p = np.array([0.01, 0.2, 0.5, 0.7])
    best = np.stack(
        [variance.second_moment(WeightTable(-x * gap, (1 - x) * gap), x) for x in p]
    )
    for name, expected in (
        ("pass_at_k", [1.01, 1.25, 2.0, 3.3]),
        ("rloo_pass_at_k", [1.05, 1.16, 1.45, 1.89]),
    ):
        found = variance.second_moment(advantages.table(name, 8, k=4), p) / best
        np.testing.assert_allclose(found, expected, rtol=0.02)


def test_bias_in_units_of_the_logit():
    table = advantages.table("rejection_sampling", 6)
    log = surrogates.get("log")
    expected = -((1 - P) ** 7)
    np.testing.assert_allclose(
        variance.bias(table, log, P), expected, rtol=1e-10, atol=1e-16
    )
    with pytest.raises(ValueError, match=r"p=0\.0: the slope of log is not finite"):
        variance.bias(table, log, np.array([0.0, 0.5]))


def test_means_over_a_prior():
    table = advantages.table("rejection_sampling", 6)
    log = surrogates.get("log")
    found = variance.bias_variance(table, log)
    # Uniform prior: int q^14 dp = 1 / 15, and int (p q / p)^2 = 1 / 3.
    assert found.rms_bias == pytest.approx(np.sqrt(1 / 15), rel=1e-10)
    assert found.signal == pytest.approx(np.sqrt(1 / 3), rel=1e-10)
    points, weights = np.array([0.0, 0.1, 0.6]), np.array([0.0, 1.0, 3.0])
    found = variance.bias_variance(table, log, (points, weights))
    off = variance.bias(table, log, points[1:])
    assert found.rms_bias == pytest.approx(np.sqrt(off**2 @ [0.25, 0.75]))
    assert (found.worst_bias, found.worst_bias_at) == (abs(off[0]), 0.1)
    noise = variance.scalar_variance(table, points[1:]) @ [0.25, 0.75]
    square = variance.second_moment(table, points[1:]) @ [0.25, 0.75]
    assert found.scalar_variance == pytest.approx(noise)
    assert found.score_variance == pytest.approx(square / 6)
    error = found.mean_squared_error(60, 4.0)
    expected = found.rms_bias**2 + (noise + 4 * square / 6) / 10
    assert error == pytest.approx(expected)


def test_the_mean_squared_error_is_that_of_the_update(random):
    # A policy with scores (R - p) g + noise, sampled: no closed form shared.
    size, p, v, groups = 4, 0.3, 2.0, 60_000
    table = from_surrogate(surrogates.get("arcsin"), size)
    rewards = (random.uniform(size=(groups, size)) < p).astype(int)
    others = rewards.sum(1, keepdims=True) - rewards
    weights = np.where(
        rewards == 1,
        table.correct[np.minimum(others, size - 1)],
        table.incorrect[np.minimum(others, size - 1)],
    )
    along = (weights * (rewards - p)).mean(1)
    beside = (weights * random.normal(size=rewards.shape) * np.sqrt(v)).mean(1)
    wanted = p * (1 - p) * surrogates.get("arcsin").slope(p)
    squares = (along - wanted) ** 2 + beside**2
    found = variance.bias_variance(
        table, surrogates.get("arcsin"), ([p], [1.0])
    ).mean_squared_error(size, v)
    error = squares.std() / np.sqrt(groups)
    assert abs(squares.mean() - found) < 5 * error


def test_frontier():
    log = surrogates.get("log")
    baselines = ("none", "leave_one_out", "min_variance")
    rows = variance.frontier(
        log, ["taylor", "durrmeyer"], (1, 4, 16, 64), baselines, (0.5, 2.0)
    )
    assert len(rows) == 2 * 3 * 4
    by = {(row.method, row.baseline, row.group_size): row for row in rows}
    assert by["durrmeyer", "none", 4].result is None
    assert "infinite under this prior" in by["durrmeyer", "none", 4].refused
    assert "group_size=1" in by["taylor", "leave_one_out", 1].refused
    for baseline in baselines:
        found = [by["taylor", baseline, size].result for size in (4, 16, 64)]
        # Larger groups reach further, and pay in noise per sample.
        assert (np.diff([x.rms_bias for x in found]) < 0).all()
        noise = [x.score_variance * x.group_size for x in found]
        assert (np.diff(noise) > 0).all()
    for size in (4, 16, 64):
        noise = [by["taylor", b, size].result.score_variance for b in baselines]
        assert noise[2] < noise[1] < noise[0]
    with pytest.raises(ValueError, match="did you mean taylor"):
        variance.frontier(log, ["tailor"], [4])


def test_scalar_variance_in_p_itself():
    # (p q)^2 times the variance of the gradient in p, whose mean is h_M'.
    table, p = advantages.table("grpo", 6), 0.35
    rewards = oracles.reward_vectors(6)
    weights = oracles.all_weights("grpo", 6)
    chance = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    update = (weights * np.where(rewards == 1, 1 / p, -1 / (1 - p))).mean(1)
    mean = chance @ update
    assert mean == pytest.approx(induced_surrogate(table).slope(p))
    spread = chance @ (update - mean) ** 2 * (p * (1 - p)) ** 2
    assert variance.scalar_variance(table, p) == pytest.approx(spread)
