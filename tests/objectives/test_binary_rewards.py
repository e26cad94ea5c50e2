"""A binary rule takes 0 and 1 and rounds nothing to them, at every entrance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import (
    advantages,
    graded,
    group_advantages,
    table_family,
)

FAMILY = table_family(advantages.get("grpo").table, 4)
ENTRANCES = {
    "named": advantages.get("grpo"),
    "table": FAMILY.table(),
    "family": FAMILY,
    "groups, by name": lambda rewards: group_advantages("grpo", rewards),
    "groups, named": lambda rewards: group_advantages(advantages.get("grpo"), rewards),
    "groups, table": lambda rewards: group_advantages(FAMILY.table(), rewards),
    "groups, family": lambda rewards: group_advantages(FAMILY, rewards),
    "groups, a peer by name": lambda rewards: group_advantages("verl:grpo", rewards),
}


@pytest.fixture(params=ENTRANCES)
def weigh(request):
    return ENTRANCES[request.param]


def _groups(random, count=5):
    return random.integers(0, 2, (count, 4)).astype(np.float32)


@pytest.mark.parametrize("value", [0.7, 0.3, 0.5, np.nan, np.inf, -1.0, 2.0, 1 + 1e-9])
@pytest.mark.parametrize("on_device", [False, True])
def test_other_rewards_are_refused_with_their_place(weigh, value, on_device, random):
    rewards = _groups(random).astype(np.float64)
    rewards[3, 1] = rewards[4, 0] = value
    if on_device:
        rewards = jnp.asarray(rewards)
        if float(rewards[3, 1]) == 1:  # in float32 it is
            return
    with pytest.raises(ValueError, match=r"rewards\[3, 1\]=") as caught:
        weigh(rewards)
    said = str(caught.value)
    assert f"={value:g}" in said and "graded.layer_cake" in said and ">= 0.5" in said


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16, np.float64])
def test_zeros_and_ones_of_any_type(weigh, dtype, random):
    rewards = _groups(random)
    expected = np.stack([np.asarray(weigh(row[None]))[0] for row in rewards])
    np.testing.assert_array_equal(weigh(rewards.astype(dtype)), expected)
    np.testing.assert_array_equal(weigh(rewards.astype(dtype).tolist()), expected)


def test_groups_of_any_shape(random):
    """(G, M) and (A, B, M) by the function itself, as by vmap; one group as before."""
    rewards = _groups(random, 6)
    for fn in (advantages.get("grpo"), advantages.get("pass_at_k", k=2)):
        found = fn(rewards)
        np.testing.assert_array_equal(found, jax.vmap(fn)(jnp.asarray(rewards)))
        np.testing.assert_array_equal(found[2], fn(rewards[2]))
        np.testing.assert_array_equal(
            fn(rewards.reshape(2, 3, 4)), np.asarray(found).reshape(2, 3, 4)
        )
    by_name = group_advantages("pass_at_k:k=2", rewards)
    np.testing.assert_array_equal(by_name, found)
    with pytest.raises(ValueError, match="expected groups of shape"):
        advantages.get("grpo")(np.float32(1))
    with pytest.raises(ValueError, match="did you mean grpo"):
        group_advantages("grop", rewards)
    with pytest.raises(ValueError, match="expected pass_at_k:k=2"):
        group_advantages("pass_at_k:2", rewards)


@pytest.mark.parametrize("value", [0.7, np.nan, -1.0])
def test_inside_jit_other_rewards_are_nan_and_the_rest_the_same_bits(value, random):
    """A group with such a reward has no weights; the others are as without it."""
    rewards = _groups(random)
    mask = np.ones((5, 4), bool)
    mask[2, 3] = False
    tables = {
        "table": (FAMILY.table(), ()),
        "named": (advantages.get("grpo"), ()),
        "family": (FAMILY, (mask,)),
    }
    for name, (fn, rest) in tables.items():
        plain = np.asarray(fn(rewards, *rest))
        np.testing.assert_array_equal(jax.jit(fn)(rewards, *rest), plain, name)
        spoiled = rewards.copy()
        spoiled[3, 1] = value
        found = np.asarray(jax.jit(fn)(spoiled, *rest))
        assert np.isnan(found[3]).all()
        np.testing.assert_array_equal(np.delete(found, 3, 0), np.delete(plain, 3, 0))


@pytest.mark.parametrize("value", [0.7, np.nan, 9.0])
def test_what_is_masked_may_hold_anything(value, random):
    rewards = _groups(random)
    mask = np.ones((5, 4), bool)
    mask[3, 1] = mask[0, 0] = False
    spoiled = np.where(mask, rewards, value)
    for fn in (
        FAMILY,
        jax.jit(FAMILY),
        lambda *given: group_advantages(FAMILY, *given),
        lambda *given: group_advantages("grpo", *given),
        lambda *given: graded.binary(FAMILY, *given),
    ):
        found = np.asarray(fn(spoiled, mask))
        np.testing.assert_array_equal(found, FAMILY(rewards, mask))
        assert (found[~mask] == 0).all()


def test_the_binary_setting_counts_from_one_half_on(random):
    """What the trainer does where `objective.rewards` is binary: said, not silent."""
    rewards = random.uniform(size=(6, 4)).astype(np.float32)
    rewards[0, 0] = 0.5
    for fn in (graded.binary, jax.jit(graded.binary)):
        np.testing.assert_array_equal(fn(FAMILY, rewards), FAMILY(rewards >= 0.5))
        lost = rewards.copy()
        lost[2, 2] = np.nan
        found = np.asarray(fn(FAMILY, lost))
        assert np.isnan(found[2]).all() and np.isfinite(np.delete(found, 2, 0)).all()
