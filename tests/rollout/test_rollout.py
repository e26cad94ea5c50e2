"""Rollouts: the distribution that is sampled, and that a sample is its keys' alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate import models, parallel, rng
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.rollout import (
    DecodeConfig,
    SamplingConfig,
    rollout,
    sample,
    sampling_logits,
)
from jaxrl_surrogate.rollout import decode as decode_module

CONFIG = models.presets.get("nano", vocab_size=40, num_kv_heads=2)
PARAMS = models.init_params(CONFIG, jax.random.key(0))
DECODE = DecodeConfig(group_size=4, max_length=10, stop_tokens=(0, 1))
KEY = rng.stream_key(0, "rollout", 5)


def _prompts(count=8):
    generator = np.random.default_rng(1)
    return Prompts(
        generator.integers(2, 40, size=(count, 6), dtype=np.int32),
        generator.integers(1, 7, size=count).astype(np.int32),
        np.arange(100, 100 + count, dtype=np.uint32),
    )


@pytest.mark.parametrize("size", [3, 128, 300])
def test_tokens_have_their_probabilities(size, random):
    """A grid of uniforms meets each token in proportion to its probability."""
    logits = jnp.asarray(random.normal(size=size) * 2, jnp.float32)
    grid = 20_000
    uniforms = (jnp.arange(grid) + 0.5) / grid
    rows = jnp.broadcast_to(logits, (grid, size))
    tokens, logprobs = jax.jit(sample)(rows, uniforms)
    expected = np.exp(logits - jax.nn.logsumexp(logits))
    counts = np.bincount(tokens, minlength=size) / grid
    np.testing.assert_allclose(counts, expected, atol=3 / grid)
    np.testing.assert_allclose(logprobs, np.log(expected)[tokens], atol=1e-5)


def test_excluded_tokens_are_never_drawn(random):
    logits = random.normal(size=(64, 300)).astype(np.float32)
    logits[random.random(logits.shape) < 0.9] = -np.inf
    logits[:, 5] = 0
    for uniform in (0.0, 0.5, 1 - 2**-24):
        tokens, logprobs = sample(jnp.asarray(logits), jnp.full(64, uniform))
        assert np.isfinite(logprobs).all()
        assert np.isfinite(
            np.take_along_axis(logits, np.array(tokens)[:, None], 1)
        ).all()


def _kept(config, row):
    """Tokens that may be drawn, by the definitions."""
    logits = row / config.temperature
    kept = np.ones(len(row), bool)
    if config.top_k:
        kept &= logits >= np.sort(logits)[-config.top_k]
    weights = np.where(kept, np.exp(logits - logits.max()), 0)
    if config.top_p < 1:
        order = np.argsort(-weights)
        mass = np.cumsum(weights[order] / weights.sum())
        needed = int(np.searchsorted(mass, config.top_p)) + 1
        kept &= weights >= weights[order[needed - 1]]
        weights = np.where(kept, weights, 0)
    return kept & (weights >= config.min_p * weights.max())


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(temperature=0.7),
        SamplingConfig(top_k=5),
        SamplingConfig(top_p=0.8),
        SamplingConfig(min_p=0.2),
        SamplingConfig(temperature=1.5, top_k=9, top_p=0.7, min_p=0.1),
    ],
)
def test_truncations_keep_what_they_should(config, random):
    rows = random.normal(size=(20, 50)).astype(np.float32) * 2
    got = np.isfinite(sampling_logits(config, jnp.asarray(rows)))
    np.testing.assert_array_equal(got, [_kept(config, row) for row in rows])


@pytest.mark.parametrize(
    "sampling",
    [SamplingConfig(), SamplingConfig(temperature=0.7, top_k=12, top_p=0.9)],
    ids=["plain", "truncated"],
)
def test_the_trainer_scores_what_the_sampler_returned(sampling):
    decode = dataclasses.replace(DECODE, sampling=sampling)
    prompts = _prompts()
    done = rollout(CONFIG, decode, PARAMS, prompts, KEY)
    scores = models.completion_scores(
        CONFIG, PARAMS, prompts.tokens, prompts.lengths, done.tokens,
        logits_transform=functools.partial(sampling_logits, sampling),
    )  # fmt: skip
    gap = np.where(done.mask, np.abs(scores.logprobs - done.sampler_logprobs), 0)
    assert gap.max() < 1e-5


def test_completions_end_with_their_stop_token():
    done = rollout(CONFIG, DECODE, PARAMS, _prompts(), KEY)
    ended = 0
    for g, m in np.ndindex(*done.lengths.shape):
        tokens, length = np.array(done.tokens[g, m]), int(done.lengths[g, m])
        assert not np.isin(tokens[: length - 1], (0, 1)).any()
        assert not tokens[length:].any()
        assert done.truncated[g, m] == (tokens[length - 1] not in (0, 1))
        ended += not done.truncated[g, m]
    assert 0 < ended < done.lengths.size  # the test would show nothing otherwise


def test_a_sample_does_not_depend_on_its_batch():
    prompts = _prompts()
    whole = rollout(CONFIG, DECODE, PARAMS, prompts, KEY)
    part = jax.tree.map(lambda leaf: leaf[[6, 1]], prompts)
    alone = rollout(CONFIG, DECODE, PARAMS, part, KEY)
    np.testing.assert_array_equal(alone.tokens, whole.tokens[jnp.array([6, 1])])
    fewer = dataclasses.replace(DECODE, group_size=2)
    np.testing.assert_array_equal(
        rollout(CONFIG, fewer, PARAMS, prompts, KEY).tokens, whole.tokens[:, :2]
    )
    other = rollout(CONFIG, DECODE, PARAMS, prompts, rng.stream_key(0, "rollout", 6))
    assert (other.tokens != whole.tokens).any((1, 2)).all()
    assert (whole.tokens[:, 0] != whole.tokens[:, 1]).any()


def test_unrolled_and_segmented_loops_sample_the_same(monkeypatch):
    plain = rollout(CONFIG, DECODE, PARAMS, _prompts(), KEY)
    unrolled = dataclasses.replace(DECODE, unroll_layers=True)
    again = rollout(CONFIG, unrolled, PARAMS, _prompts(), KEY)
    np.testing.assert_array_equal(plain.tokens, again.tokens)
    monkeypatch.setattr(decode_module, "_SEGMENT", 2)
    jax.clear_caches()
    again = rollout(CONFIG, DECODE, PARAMS, _prompts(), KEY)
    np.testing.assert_array_equal(plain.tokens, again.tokens)
    jax.clear_caches()


def test_greedy_takes_the_likeliest():
    greedy = dataclasses.replace(DECODE, sampling=SamplingConfig(temperature=0.0))
    done = rollout(CONFIG, greedy, PARAMS, _prompts(), KEY)
    assert (done.tokens == done.tokens[:, :1]).all()


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_eight_devices_sample_the_tokens_of_one(sizes):
    one = rollout(CONFIG, DECODE, PARAMS, _prompts(), KEY)
    mesh = parallel.make_mesh(parallel.MeshConfig(*sizes))
    shardings = partition.param_shardings(mesh, models.logical_axes(CONFIG), PARAMS)
    params = jax.device_put(PARAMS, shardings)
    prompts = jax.device_put(_prompts(), partition.batch_sharding(mesh))
    many = rollout(CONFIG, DECODE, params, prompts, KEY)
    np.testing.assert_array_equal(one.tokens, many.tokens)
    np.testing.assert_allclose(one.sampler_logprobs, many.sampler_logprobs, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"min_p": 1}]
)
def test_impossible_distributions_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingConfig(**wrong)
