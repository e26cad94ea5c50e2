"""Peers' rules against recomputations, our own tables, and by enumeration."""

import itertools

import numpy as np
import pytest

from jaxrl_surrogate.objectives import advantages, induced_surrogate, other_trainers

# Gaps of eight samples, recomputed from each trainer's code, to two digits.
GAPS = {
    "verl:grpo": [2.47, 1.97, 1.75, 1.66, 1.66, 1.75, 1.97, 2.47],
    "nemo:grpo": [1.00, 2.65, 2.05, 1.87, 1.87, 2.05, 2.65, 1.00],
    "maxrl:maxrl": [7, 4, 2.67, 2, 1.6, 1.33, 1.14, 1],
    "prime_rl:max_rl": [7, 4, 2.67, 2, 1.6, 1.33, 1.14, 1],
    "prime_rl:grpo": [0.875] * 8,
    "verl:grpo_passk": [2.83, 0, 0, 0, 0, 0, 0, 0],
    "passk_training:analytic:k=4": [1, 0.67, 0.45, 0.29, 0.12, 0, 0, 0],
    "passk_training:analytic:k=8": [0] * 8,
}
# Of our own rules the same, for groups of two and more.
EQUAL = {
    "trl:grpo": ("grpo", {"std": "sample", "epsilon": 1e-4}),
    "areal:grpo": ("grpo", {"std": "sample", "epsilon": 1e-5}),
    "oat:grpo": ("grpo", {"std": "sample", "epsilon": 1e-8}),
    "open_instruct:standard": ("grpo", {"epsilon": 1e-8}),
    "oat:drgrpo": ("dr_grpo", {}),
    "tinker:grpo": ("dr_grpo", {}),
    "verl:rloo": ("rloo", {}),
    "openrlhf:rloo": ("rloo", {}),
    "prime_rl:max_rl": ("maxrl", {}),
    "passk_training:analytic:k=2": ("grpo_pass_at_k", {"k": 2, "epsilon": 1e-6}),
}


@pytest.mark.parametrize("name", GAPS)
def test_gaps_are_those_of_the_trainers(name):
    found = advantages.parse(name).table(8).gap
    np.testing.assert_allclose(found, GAPS[name], atol=6e-3)


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("size", [3, 8])
def test_rules_that_are_ours_by_another_name(name, size):
    ours, params = EQUAL[name]
    expected = advantages.table(ours, size, **params)
    found = advantages.parse(name).table(size)
    np.testing.assert_allclose(found.correct, expected.correct, atol=1e-12)
    np.testing.assert_allclose(found.incorrect, expected.incorrect, atol=1e-12)


@pytest.mark.parametrize("name", other_trainers.names())
@pytest.mark.parametrize("size", [2, 5])
def test_the_objective_is_the_expected_update(name, size):
    params = {key: 2 for key in other_trainers.parameters(name)}
    method = advantages.get(name, **params)
    induced = induced_surrogate(method.table(size))
    for p in (0.05, 0.5, 0.8):
        total = 0.0
        for rewards in itertools.product((0.0, 1.0), repeat=size):
            rewards = np.array(rewards)
            chance = np.prod(np.where(rewards > 0, p, 1 - p))
            table = method.table(size)
            right = int(rewards.sum())
            weights = [
                table.correct[right - 1] if r else table.incorrect[right]
                for r in rewards
            ]
            scores = np.where(rewards > 0, 1 / p, -1 / (1 - p))
            total += chance * np.dot(weights, scores) / size
        assert induced.slope(p) == pytest.approx(total, rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(
        method(np.array([1.0] + [0.0] * (size - 1)))[0], method.table(size).correct[0],
        rtol=1e-6,
    )  # fmt: skip


def test_groups_of_one():
    """Raw rewards in some, nothing in others: two of verl's rules disagree."""
    for name, weight in (
        ("verl:grpo", 1 / (1 + 1e-6)),
        ("verl:rloo", 1),
        ("verl:rloo_vectorized", 0),
        ("trl:grpo", 0),
        ("skyrl:maxrl", 1),
    ):
        found = advantages.parse(name).table(1)
        assert found.correct[0] == pytest.approx(weight), name
        assert found.incorrect[0] == 0
    with pytest.raises(ValueError, match="group_size=1"):
        advantages.get("verl:grpo_passk").table(1)


def test_a_baseline_with_ones_own_reward_is_biased():
    """The release's "pkpo" is not pass@4's weights; at k = M it trains k = M - 1."""
    found = advantages.get("maxrl:pkpo", k=4).table(8).gap
    np.testing.assert_allclose(found[:4] / found[0], [1, 0.63, 0.37, 0.19], atol=6e-3)
    slope = induced_surrogate(advantages.get("maxrl:pkpo", k=6).table(6)).slope
    p = np.linspace(0, 1, 11)
    np.testing.assert_allclose(slope(p), (1 - p) ** 4, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("verl:grop", "verl:grpo"),
        ("verrl:grpo", "verl:grpo"),
        ("passk_training:analytic:k=x", "expected an integer"),
        ("passk_training:analytic", "the parameter k"),
        ("verl:grpo:k=4", "no parameter"),
    ],
)
def test_unknown_rules_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        advantages.parse(name)
