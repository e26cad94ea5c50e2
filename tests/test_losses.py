"""Every combination of loss terms against a loop over tokens in float64."""

import dataclasses
import itertools

import decoder_oracle
import jax
import numpy as np
import pytest

from jaxrl_surrogate.losses import (
    LossConfig,
    applied_weights,
    kl_penalty,
    token_weights,
    total_loss,
)

pytestmark = pytest.mark.both_pythons

SHAPE = (4, 3, 5)
POLICIES = ("policy_gradient", "ppo_clip")
NORMALIZATIONS = ("sequence_sum", "dr_grpo", "grpo", "dapo")


@pytest.fixture(params=[1.0, 0.6], ids=["all_tokens", "some_tokens"])
def inputs(request, random):
    """Random values everywhere, masked positions included; one prompt lost all.

    Of the completions' tokens the policy chose all, or some and not one of a sample's.
    """
    lengths = random.integers(1, SHAPE[2] + 1, size=SHAPE[:2])
    sample_mask = random.random(SHAPE[:2]) < 0.7
    sample_mask[0], sample_mask[1, 0] = False, True
    logprobs = -np.abs(random.normal(size=SHAPE))
    loss_mask = np.arange(SHAPE[2]) < lengths[..., None]
    if request.param < 1:
        loss_mask &= random.random(SHAPE) < request.param
        loss_mask[1, 0] = False
    return {
        "logprobs": logprobs,
        "old": logprobs + 0.4 * random.normal(size=SHAPE),
        "advantages": random.normal(size=SHAPE[:2]),
        "entropy": np.abs(random.normal(size=SHAPE)),
        "ref": logprobs + 0.4 * random.normal(size=SHAPE),
        "lengths": lengths,
        "loss_mask": loss_mask,
        "sample_mask": sample_mask,
    }


def _ours(config, inputs, logprobs):
    weights = token_weights(
        config.normalization, inputs["loss_mask"], inputs["sample_mask"]
    )
    narrow = {name: np.float32(inputs[name]) for name in ("old", "advantages")}
    return total_loss(
        config,
        logprobs,
        narrow["old"],
        narrow["advantages"],
        weights,
        entropy=np.float32(inputs["entropy"]) if config.entropy_coef else None,
        ref_logprobs=np.float32(inputs["ref"]) if config.kl_coef else None,
    )


def _oracle(config, inputs, logprobs):
    return decoder_oracle.batch_loss(
        config,
        logprobs,
        inputs["old"],
        inputs["advantages"],
        inputs["entropy"],
        inputs["ref"] if config.kl_coef else None,
        inputs["lengths"],
        inputs["sample_mask"],
        inputs["loss_mask"],
    )


CONFIGS = [
    LossConfig(policy=policy, normalization=normalization, clip_low=0.1, clip_high=0.3)
    for policy, normalization in itertools.product(POLICIES, NORMALIZATIONS)
] + [
    LossConfig(kl_coef=0.3, kl_estimator=estimator, normalization=normalization)
    for estimator, normalization in itertools.product(
        ("k1", "k2", "k3"), ("dr_grpo", "dapo")
    )
]
CONFIGS.append(LossConfig("ppo_clip", 0.2, 0.28, "dapo", 0.1, "k2", entropy_coef=0.2))


def _check_loss(config, inputs):
    """Value, gradient and counts; returns the metrics."""
    logprobs = np.float32(inputs["logprobs"])
    (value, metrics), grad = jax.value_and_grad(
        lambda x: _ours(config, inputs, x), has_aux=True
    )(logprobs)
    expected = _oracle(config, inputs, inputs["logprobs"])
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    counted = inputs["loss_mask"] & inputs["sample_mask"][..., None]
    outside = counted & np.isneginf(logprobs)
    assert metrics["excluded_fraction"] == outside.sum()
    counted &= ~outside
    assert not np.asarray(grad)[~counted].any()
    for place in np.argwhere(counted)[::3]:
        ends = []
        for step in (1e-6, -1e-6):
            moved = inputs["logprobs"].copy()
            moved[tuple(place)] += step
            ends.append(_oracle(config, inputs, moved))
        slope = (ends[0] - ends[1]) / 2e-6
        assert grad[tuple(place)] == pytest.approx(slope, rel=1e-3, abs=1e-5)
    if config.policy == "ppo_clip":
        ratio = np.exp(inputs["logprobs"] - inputs["old"])
        sign = np.sign(inputs["advantages"])[..., None]
        cut = (sign > 0) & (ratio > 1 + config.clip_high)
        cut |= (sign < 0) & (ratio < 1 - config.clip_low)
        assert metrics["clip_fraction"] == (cut & counted).sum()
    return metrics


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_loss_and_its_gradient(config, inputs):
    _check_loss(config, inputs)


def _check_applied(config, inputs):
    """-d loss / d logprob by differences, a mean over each sample's tokens."""
    config = dataclasses.replace(config, entropy_coef=0.0)
    weights = token_weights(
        config.normalization, inputs["loss_mask"], inputs["sample_mask"]
    )
    found = applied_weights(
        config,
        *(np.float32(inputs[name]) for name in ("logprobs", "old", "advantages")),
        weights,
        np.float32(inputs["ref"]) if config.kl_coef else None,
    )
    for g, m in np.ndindex(SHAPE[:2]):
        length = max(inputs["loss_mask"][g, m].sum(), 1)
        ends = []
        for step in (1e-6, -1e-6):
            moved = inputs["logprobs"].copy()
            moved[g, m] += step
            ends.append(_oracle(config, inputs, moved))
        expected = -(ends[0] - ends[1]) / 2e-6 / length
        assert found[g, m] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_applied_weights_are_what_scores_are_multiplied_with(config, inputs):
    found = _check_applied(config, inputs)
    if config == LossConfig(normalization="sequence_sum", clip_low=0.1, clip_high=0.3):
        samples = inputs["sample_mask"].sum(-1, keepdims=True)
        prompts = (samples > 0).sum()
        counted = inputs["sample_mask"] & inputs["loss_mask"].any(-1)
        nominal = np.where(counted, inputs["advantages"], 0)
        np.testing.assert_allclose(found * samples * prompts, nominal, rtol=1e-4)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_weights_share_a_prompt_among_what_is_left_of_its_samples(
    normalization, inputs
):
    weights = np.asarray(
        token_weights(normalization, inputs["loss_mask"], inputs["sample_mask"])
    )
    counted = inputs["loss_mask"] & inputs["sample_mask"][..., None]
    assert ((weights > 0) == counted).all()
    left = inputs["sample_mask"].any(-1)
    # A sample without a token of its own keeps its share, which is then of nothing.
    if normalization == "grpo" and inputs["loss_mask"].any(-1).all():
        np.testing.assert_allclose(weights.sum((1, 2))[left], 1 / left.sum(), rtol=1e-5)
    if normalization == "dapo" and counted.any():
        assert weights.sum() == pytest.approx(1, rel=1e-5)
        assert len(np.unique(weights[counted])) == 1


def test_ratios_that_overflow_stay_finite():
    shape = (1, 2, 1)
    logprobs = np.float32([[[-200.0], [0.0]]])
    old = np.float32([[[0.0], [-200.0]]])
    advantages = np.float32([[1.0, -1.0]])
    weights = np.full(shape, 0.5, np.float32)
    for config in (LossConfig("ppo_clip"), LossConfig(kl_coef=1.0)):
        value, grad = jax.value_and_grad(
            lambda x, config=config: total_loss(
                config, x, old, advantages, weights, ref_logprobs=old
            )[0]
        )(logprobs)
        assert np.isfinite(value) and np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip_low", -0.1), ("clip_low", 1.5), ("clip_high", -1.0), ("kl_coef", -1.0)],
)
def test_impossible_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value}"):
        LossConfig(**{field: value})


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.0, 0.2), (0.2, 0.0), (0.2, 0.3)])
def test_an_on_policy_gradient_is_not_clipped_by_any_bounds(bounds, inputs):
    """At ratio 1 ppo_clip is the policy gradient; beyond a bound of 0 it is nothing."""
    logprobs = np.float32(inputs["logprobs"])
    clipped = LossConfig("ppo_clip", *bounds)
    at_one = {**inputs, "old": logprobs}
    found, expected = (
        jax.grad(lambda x, config=config: _ours(config, at_one, x)[0])(logprobs)
        for config in (clipped, LossConfig())
    )
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for step, bound, sign in ((0.1, bounds[1], 1), (-0.1, bounds[0], -1)):
        moved = jax.grad(lambda x: _ours(clipped, at_one, x)[0])(logprobs + step)
        ratio = np.where(sign * inputs["advantages"] > 0, bound > 0, True)
        expected_moved = expected * np.exp(step) * ratio[..., None]
        np.testing.assert_allclose(moved, expected_moved, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS[::3], ids=str)
def test_tokens_that_cannot_be_sampled_any_more_count_nothing(config, inputs, random):
    """-inf after truncation: their part of loss, metrics and applied weight is 0."""
    outside = random.random(SHAPE) < 0.4
    # Each group has such a token, and all of them others, whatever is drawn.
    outside[:, :, 0] = np.arange(SHAPE[1]) != 1
    inputs = {**inputs, "logprobs": np.where(outside, -np.inf, inputs["logprobs"])}
    metrics = _check_loss(config, inputs)
    assert metrics["excluded_fraction"] > 0
    assert all(np.isfinite(list(metrics.values())))
    _check_applied(config, inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: token_weights("drgrpo", None, None),
            "^normalization='drgrpo': .*; did you mean dr_grpo",
        ),
        (
            lambda: kl_penalty("k4", np.zeros(1), np.zeros(1)),
            "^kl_estimator='k4': expected k1 . k2 . k3",
        ),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
