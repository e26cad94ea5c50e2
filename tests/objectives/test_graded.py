"""Graded rewards: lifts against enumeration, published forms and their objectives."""

import itertools

import estimator_oracles
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import (
    advantages,
    from_surrogate,
    graded,
    induced_surrogate,
    surrogates,
    table_family,
)

RULES = [
    ("reinforce", {}),
    ("rloo", {}),
    ("grpo", {}),
    ("maxrl", {}),
    ("rejection_sampling", {}),
    ("pkpo", {"k": 2}),
    ("pass_at_k", {"k": 3}),
    ("softmax_grpo", {"tau": 0.5}),
    ("best_of_n_sft", {}),
]


# Compiled: one program for all tables of a size.
layer_cake, mean = jax.jit(graded.layer_cake), jax.jit(graded.mean)
REWARD_MODES = [
    pytest.param(layer_cake, id="layer_cake"),
    pytest.param(mean, id="mean"),
]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def tangent(covector):
    """Its action on directions that keep the sum of probabilities."""
    return np.asarray(covector - covector.mean())


@pytest.mark.parametrize("levels", [(0.0, 0.4, 1.0), (-1.0, 0.2, 3.0), (0.5, 2.0)])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("name", "params"), RULES)
def test_layer_cake_climbs_the_distorted_mean(name, params, size, levels, random):
    table = advantages.table(name, size, **params)
    h = induced_surrogate(table)
    mean_update = oracles.mean_update(lambda r: layer_cake(table, r), levels, size)
    p = jnp.asarray(random.dirichlet(np.full(len(levels), 3.0)))

    def objective(p):
        return graded.layer_cake_objective(h, levels, p)

    gradient = jax.grad(objective)(p)
    np.testing.assert_allclose(
        tangent(mean_update(p)), tangent(gradient), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("name", "params"), [r for r in RULES if r[1] != {"k": 3}])
def test_the_mean_lift_climbs_h_of_the_mean(name, params, size, random):
    levels = (0.1, 0.45, 1.0)
    table = advantages.table(name, size, **params)
    mean_update = oracles.mean_update(lambda r: mean(table, r), levels, size)
    p = jnp.asarray(random.dirichlet(np.full(3, 3.0)))
    gradient = induced_surrogate(table).slope(float(p @ np.array(levels)))
    np.testing.assert_allclose(
        tangent(mean_update(p)), tangent(gradient * np.array(levels)), atol=1e-10
    )


def test_the_mean_lift_is_the_mean_over_coins(random):
    size = 5
    table = advantages.table("grpo", size)
    rewards = random.random(size)
    expected = np.zeros(size)
    for coins in itertools.product((0.0, 1.0), repeat=size):
        chance = np.prod(np.where(np.array(coins) == 1, rewards, 1 - rewards))
        expected += chance * np.asarray(table(np.array(coins)))
    np.testing.assert_allclose(mean(table, rewards), expected, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", ["pkpo", "pkpo_loo", "pass_at_k"])
def test_layer_cake_of_pass_at_k_is_pkpo_for_continuous_rewards(name, k, random):
    """The oracle takes the best of explicit subsets, of any rewards."""
    size = 5
    table = advantages.table(name, size, k=k)
    for rewards in (random.normal(size=size), random.integers(0, 3, size) / 2):
        expected = estimator_oracles.ESTIMATORS[name](rewards, k=k)
        got = layer_cake(table, rewards)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_linear_methods_are_themselves(random):
    rewards = random.normal(size=6)
    others = (rewards.sum() - rewards) / 5
    for name, expected in (
        ("rloo", rewards - others),
        ("dr_grpo", rewards - rewards.mean()),
        ("reinforce", rewards),
    ):
        got = layer_cake(advantages.table(name, 6), rewards)
        np.testing.assert_allclose(got, expected, atol=1e-13)
    chances = random.random(6)
    others = (chances.sum() - chances) / 5
    got = mean(advantages.table("rloo", 6), chances)
    np.testing.assert_allclose(got, chances - others, atol=1e-13)


def test_layer_cake_of_maxrl_is_the_centred_sum_of_steps(random):
    """A_(i) = N sum_{j<=i} step_j / (N - j + 1), then less its mean."""
    rewards = np.sort(random.random(7))
    steps = np.diff(rewards, prepend=0.0)
    raw = 7 * np.cumsum(steps / (7 - np.arange(7)))
    got = layer_cake(advantages.table("maxrl", 7), rewards)
    np.testing.assert_allclose(got, raw - raw.mean(), atol=1e-13)


@pytest.mark.parametrize("lift", REWARD_MODES)
@pytest.mark.parametrize(("name", "params"), RULES)
def test_binary_rewards_get_the_table(lift, name, params, random):
    rewards = random.integers(0, 2, (50, 6)).astype(float)
    table = advantages.table(name, 6, **params)
    np.testing.assert_allclose(lift(table, rewards), table(rewards), atol=1e-14)
    np.testing.assert_array_equal(graded.binary(table, rewards), table(rewards))


@pytest.mark.parametrize("lift", REWARD_MODES)
def test_masks_are_smaller_groups_and_places_do_not_matter(lift, random):
    size = 6
    rule = advantages.get("grpo")
    family = table_family(rule.table, size)
    rewards = random.choice([0, 0.25, 0.5, 1.0], (60, size))
    mask = random.random((60, size)) < 0.7
    mask[0], mask[1] = True, False
    shown = np.where(mask, rewards, random.choice([np.nan, np.inf, -7], (60, size)))
    weights = np.asarray(lift(family, shown, mask))
    for row, kept, got in zip(rewards, mask, weights, strict=True):
        assert (got[~kept] == 0).all()
        if kept.sum() >= 2:
            expected = lift(rule.table(int(kept.sum())), row[kept])
            np.testing.assert_allclose(got[kept], expected, atol=1e-13)
        else:
            assert (got == 0).all()
    order = random.permutation(size)
    np.testing.assert_allclose(
        lift(family, rewards[:, order]), lift(family, rewards)[:, order], atol=1e-13
    )


@pytest.mark.parametrize("lift", REWARD_MODES)
def test_equal_rewards_have_equal_weights_and_equal_groups_none(lift):
    table = advantages.table("grpo", 5)
    with jax.enable_x64(False):
        weights = np.asarray(lift(table, np.array([0.3, 0.3, 0.7, 0.3, 0.7])))
        # A mean adds the chances of the others in their order, which may round.
        rounding = 0 if lift is layer_cake else 4 * np.finfo(np.float32).eps
        assert np.ptp(weights[[0, 1, 3]]) <= rounding
        assert np.ptp(weights[[2, 4]]) <= rounding
        assert weights.dtype == np.float32
    if lift is layer_cake:
        same = np.full((3, 5), [[0.1], [-2.0], [0.9]])
        assert (np.asarray(lift(table, same)) == 0).all()


@pytest.mark.parametrize("lift", REWARD_MODES)
def test_float32_is_near(lift, random):
    rewards = random.random((200, 16))
    for name, params in RULES:
        table = advantages.table(name, 16, **params)
        exact = np.asarray(lift(table, rewards))
        with jax.enable_x64(False):
            got = np.asarray(lift(table, rewards.astype(np.float32)))
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_a_surrogate_with_graded_rewards(random):
    """The whole way: name h, take its weights, lift them."""
    h = surrogates.get("arcsin")
    table = from_surrogate(h, 4)
    levels = (0.0, 0.5, 1.0)
    mean_update = oracles.mean_update(lambda r: layer_cake(table, r), levels, 4)
    p = jnp.asarray([0.3, 0.3, 0.4])
    induced = induced_surrogate(table)
    gradient = jax.grad(lambda p: graded.layer_cake_objective(induced, levels, p))(p)
    np.testing.assert_allclose(tangent(mean_update(p)), tangent(gradient), atol=1e-10)


def test_refusals():
    table = advantages.table("rloo", 4)
    for lift in graded.REWARD_MODES.values():
        with pytest.raises(ValueError, match="groups of 4"):
            lift(table, np.zeros(5))
        with pytest.raises(ValueError, match="mask: one table"):
            lift(table, np.zeros(4), np.ones(4, bool))
    family = table_family(advantages.get("rloo").table, 4)
    with pytest.raises(ValueError, match="mask: expected the shape"):
        graded.layer_cake(family, np.zeros((2, 4)), np.ones(4, bool))
    with pytest.raises(ValueError, match="did you mean layer_cake"):
        graded.get("layercake")
