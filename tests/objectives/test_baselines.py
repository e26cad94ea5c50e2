"""Baselines: one objective, sums of zero, least noise; against enumeration."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import (
    advantages,
    baselines,
    bernstein,
    from_surrogate,
    induced_surrogate,
    priors,
    surrogates,
)

SIZES = st.integers(2, 7)
NUMBERS = st.floats(-3, 3, allow_subnormal=False)


def gaps(size):
    return st.lists(NUMBERS, min_size=size, max_size=size).map(np.array)


def enumerate_weights(table):
    """(2^M, M): Z from the definition, one reward vector at a time."""
    rows = []
    for rewards in oracles.reward_vectors(table.group_size):
        others = rewards.sum() - rewards
        rows.append(
            [
                table.correct[int(s)] if r else table.incorrect[int(s)]
                for r, s in zip(rewards, others, strict=True)
            ]
        )
    return np.array(rows)


def noise(table, p, score_noise):
    """E[((1/M) sum Z (R - p))^2] + noise / M E[Z^2], over all reward vectors."""
    rewards = oracles.reward_vectors(table.group_size)
    weights = enumerate_weights(table)
    chance = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    scalar = (weights * (rewards - p)).mean(1)
    squares = (weights**2).mean(1) / table.group_size
    if np.isinf(score_noise):
        return float(chance @ squares)
    return float(chance @ (scalar**2 + score_noise * squares))


@hypothesis.given(st.data())
@hypothesis.settings(deadline=None, max_examples=40)
def test_every_baseline_keeps_the_objective(data):
    size = data.draw(SIZES)
    # A gap of degree M - 2, which all of them can serve.
    gap = bernstein.elevate(data.draw(gaps(size - 1)), size)
    p = data.draw(st.floats(0.05, 0.95))
    for name in baselines.names():
        table = baselines.apply(name, gap)
        np.testing.assert_allclose(table.gap, gap, rtol=0, atol=1e-8)
        update = oracles.expected_update(enumerate_weights(table), p)
        assert abs(update - oracles.exact_bernstein(gap, p)) < 1e-7


@hypothesis.given(st.data())
@hypothesis.settings(deadline=None, max_examples=40)
def test_zero_sum_in_every_group(data):
    size = data.draw(SIZES)
    gap = bernstein.elevate(data.draw(gaps(size - 1)), size)
    weights = enumerate_weights(baselines.zero_sum(gap))
    np.testing.assert_allclose(weights.sum(1), 0, rtol=0, atol=1e-12)
    assert not weights[0].any()
    assert not weights[-1].any()


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_zero_sum_finds_centred_methods_again(size):
    for name, params in (
        ("dr_grpo", {}),
        ("grpo", {}),
        ("maxrl", {}),
        ("grpo_pass_at_k", {"k": max(1, size // 2)}),
    ):
        table = advantages.table(name, size, **params)
        again = baselines.zero_sum(table.gap)
        np.testing.assert_allclose(again.correct, table.correct, rtol=0, atol=1e-9)
        np.testing.assert_allclose(again.incorrect, table.incorrect, rtol=0, atol=1e-9)


def test_zero_sum_says_what_it_cannot_do():
    size = 6
    with pytest.raises(ValueError, match=r"degree 5 here.*degree 4 and less"):
        baselines.zero_sum(advantages.table("pass_at_k", size, k=size).gap)
    baselines.zero_sum(advantages.table("pass_at_k", size, k=size - 1).gap)
    gap = advantages.table("rejection_sampling", size).gap
    with pytest.raises(ValueError, match=r"off by 0\.0\d+ of the largest"):
        baselines.zero_sum(gap)
    near = baselines.zero_sum(gap, tolerance=0.05)
    np.testing.assert_allclose(enumerate_weights(near).sum(1), 0, atol=1e-12)
    moved = np.abs(near.gap - gap).max()
    assert 1e-3 < moved < 0.05 * gap.max()
    with pytest.raises(ValueError, match="group_size=1"):
        baselines.zero_sum(np.ones(1))


@pytest.mark.parametrize("prior", [None, (0.5, 3.0), ([0.1, 0.3, 0.8], [1, 2, 1])])
@pytest.mark.parametrize("score_noise", [np.inf, 5.0, 0.3, 0.0])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_min_variance_is_the_least_under_its_model(prior, score_noise, size, random):
    gap = random.normal(size=size)
    grid = priors.settle(prior, 16)

    def mean(table):
        return grid.mean([noise(table, p, score_noise) for p in grid.points])

    table = baselines.min_variance(gap, prior, score_noise)
    np.testing.assert_allclose(table.gap, gap, rtol=0, atol=1e-12)
    least = mean(table)
    for name in baselines.names():
        if name == "zero_sum" or (name == "leave_one_out" and size == 1):
            continue
        assert least <= mean(baselines.apply(name, gap)) + 1e-12
    for _ in range(5):
        shift = 0.1 * random.normal(size=size)
        other = type(table)(table.incorrect + shift, table.correct + shift)
        assert least <= mean(other) + 1e-12
    # Stationary: a first-order change costs nothing.
    shift = random.normal(size=size)
    up, down = (
        mean(type(table)(table.incorrect + e * shift, table.correct + e * shift))
        for e in (1e-3, -1e-3)
    )
    assert abs(up - down) < 1e-9


def test_min_variance_in_closed_form():
    size, alpha, beta = 8, 0.7, 2.5
    gap = advantages.table("grpo", size).gap
    table = baselines.apply("min_variance", gap, prior=(alpha, beta))
    s = np.arange(size)
    expected = -(s + alpha) / (size - 1 + alpha + beta) * gap
    np.testing.assert_allclose(table.incorrect, expected, rtol=1e-14)
    # A prior with all its weight at one rate gives the oracle baseline.
    point = baselines.min_variance(gap, ([0.3], [1.0]))
    np.testing.assert_allclose(point.incorrect, -0.3 * gap, rtol=1e-13)


def test_options_through_from_surrogate():
    h = surrogates.get("arcsin")
    table = from_surrogate(h, 8, baseline="min_variance", prior=(1.0, 3.0))
    expected = baselines.min_variance(table.gap, (1.0, 3.0))
    np.testing.assert_allclose(table.correct, expected.correct, rtol=1e-14)
    table = from_surrogate(h, 8, baseline="zero_sum", tolerance=0.5)
    weights = enumerate_weights(table)
    np.testing.assert_allclose(weights.sum(1), 0, rtol=0, atol=1e-12)
    with pytest.raises(
        ValueError, match=r"prior=.*: method 'kantorovich' with .* no such option"
    ):
        from_surrogate(h, 8, baseline="none", prior=(1.0, 1.0))
    with pytest.raises(ValueError, match="did you mean score_noise"):
        from_surrogate(h, 8, baseline="min_variance", score_noize=1)
    with pytest.raises(ValueError, match="score_noise=-1"):
        from_surrogate(h, 8, baseline="min_variance", score_noise=-1)


def test_the_registry():
    with pytest.raises(ValueError, match="did you mean zero_sum"):
        baselines.apply("zerosum", np.ones(3))
    with pytest.raises(ValueError, match="prior"):
        baselines.apply("min_variance", np.ones(3), priors=(1, 1))
    slope = induced_surrogate(baselines.apply("zero_sum", np.ones(4))).slope
    np.testing.assert_allclose(slope(oracles.GRID), 1, rtol=1e-12)
