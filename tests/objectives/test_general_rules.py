"""Rules that are any function of a group's rewards."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import advantages, induced_surrogate
from jaxrl_surrogate.objectives.general_rules import (
    GeneralRule,
    general_rule,
)


def _median(rewards):
    return rewards - jnp.median(rewards)


def _masked_mean(rewards, mask):
    return rewards - rewards.sum() / jnp.maximum(mask.sum(), 1)


def _by_place(rewards):
    """Each sample against its neighbour: no function of counts."""
    return 2 * rewards - jnp.roll(rewards, 1) + 0.1 * jnp.arange(len(rewards))


def test_weights_are_the_functions_in_a_compiled_step(random):
    rule = general_rule(_median, 5)
    rewards = random.normal(size=(7, 5)).astype(np.float32)
    found = jax.jit(lambda rule, rewards: rule(rewards))(rule, rewards)
    np.testing.assert_array_equal(found, [np.asarray(_median(row)) for row in rewards])
    assert jax.tree.leaves(rule) == []


def test_a_mask_is_handed_on_or_leaves_incomplete_groups_out(random):
    rewards = random.normal(size=(4, 5)).astype(np.float32)
    mask = np.ones((4, 5), bool)
    mask[1, 2] = mask[2, :4] = mask[3] = False
    broken = np.where(mask, rewards, np.nan)
    found = np.asarray(general_rule(_masked_mean, 5)(broken, mask))
    for row, kept, weights in zip(rewards, mask, found, strict=True):
        if kept.any():
            np.testing.assert_allclose(
                weights[kept], row[kept] - row[kept].mean(), rtol=1e-5, atol=1e-6
            )
        assert (weights[~kept] == 0).all()
    found = np.asarray(general_rule(_median, 5)(broken, mask))
    np.testing.assert_array_equal(found[0], np.asarray(_median(rewards[0])))
    assert (found[1:] == 0).all()


def test_groups_of_equal_rewards_weigh_nothing_where_they_are_replaced():
    rule = GeneralRule(lambda rewards: rewards + 1, 3, mixed_only=True)
    rewards = np.array([[0, 0, 0], [1, 0, 1], [0.5, 0.5, 0.5], [1, 1, 0]], np.float32)
    mask = np.ones((4, 3), bool)
    assert np.asarray(rule(rewards, mask)).tolist() == [
        [0, 0, 0], [2, 1, 2], [0, 0, 0], [2, 2, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("function", [_by_place, _median])
@pytest.mark.parametrize("size", [2, 5])
def test_the_mean_table_has_the_mean_update_of_the_rule(function, size):
    """E[(1/M) sum_i Z_i d log P(y_i)] over all groups, y_i correct with p."""
    weights_of = general_rule(function, size)
    slope = induced_surrogate(weights_of.table()).slope
    groups = np.array(list(itertools.product([0.0, 1.0], repeat=size)))
    weights = np.asarray(weights_of(groups.astype(np.float32)), np.float64)
    for p in (0.1, 0.5, 0.83):
        chance = np.prod(np.where(groups == 1, p, 1 - p), axis=-1)
        score = np.where(groups == 1, 1 / p, -1 / (1 - p))  # d log P / dp
        update = (chance * (weights * score).mean(-1)).sum()
        np.testing.assert_allclose(slope(p), update, rtol=1e-5, atol=1e-6)


def test_the_mean_table_of_a_table_is_the_table():
    for size in (6, 20):
        table = advantages.table("grpo", size)

        def function(rewards, table=table):
            return table(rewards)

        found = GeneralRule(function, size).table()
        np.testing.assert_allclose(found.correct, table.correct, rtol=1e-6)
        np.testing.assert_allclose(found.incorrect, table.incorrect, rtol=1e-6)


class _Counter:
    calls = 0

    def __call__(self, rewards):
        self.calls += 1
        return rewards * self.calls


def _leaked():
    kept = []
    jax.jit(lambda x: kept.append(x) or x)(jnp.ones(3))
    return lambda rewards: rewards + kept[0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda rewards: rewards.sum(), r"shape \(3,\) .* got \(\)"),
        (lambda rewards: [rewards], "got list"),
        (lambda rewards: rewards + 1j, "real weights, got complex64"),
        (lambda rewards: rewards / rewards.std(), r"\[0 0 0\] are \[nan nan nan\]"),
        (lambda rewards: np.sort(rewards), "in jax.numpy.* TracerArrayConversionError"),
        (lambda rewards: rewards if rewards[0] else -rewards, "TracerBool"),
        (lambda rewards: rewards + 1 / 0, r"ZeroDivisionError at .*\.py:\d+: division"),
        (_Counter(), "when it is traced again"),
        (_leaked(), "UnexpectedTracerError"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_before_it_is_compiled(function, said):
    with pytest.raises(FieldError, match=said) as caught:
        general_rule(function, 3)
    assert caught.value.field == "function"


def test_a_refusal_names_the_function():
    def my_rule(rewards):
        return rewards[:2]

    with pytest.raises(FieldError, match=r"^function='my_rule': "):
        general_rule(my_rule, 3)
    with pytest.raises(FieldError, match="division by zero"):
        general_rule(functools.partial(lambda rewards, by: 1 / by, by=0), 3)
