"""Rollouts: each token by an oracle, and that a sample is a function of its keys alone.

Tokens are compared for equality. A uniform falls between two different roundings of a
bound about once in a million tokens; these tests draw a few hundred.
"""

import dataclasses
import functools

import decoder_oracle
import jax
import numpy as np
import pytest

from jaxrl_surrogate import models, parallel, rng
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.rollout import (
    DecodeConfig,
    RolloutConfig,
    SamplingConfig,
    rollout,
    sampling_logits,
)
from jaxrl_surrogate.rollout import decode as decode_module

pytestmark = pytest.mark.both_pythons


CONFIG = models.DecoderConfig(
    vocab_size=24, num_layers=2, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=4,
    mlp_dim=16, qk_norm=True,
)  # fmt: skip
STOPS = (3, 17)
DECODE = DecodeConfig(RolloutConfig(group_size=4, max_completion_length=10), STOPS)
KEY = rng.stream_key(0, "rollout", 5)
TRUNCATED = SamplingConfig(temperature=0.7, top_k=12, top_p=0.9, min_p=0.01)


@pytest.fixture(scope="module")
def params():
    return decoder_oracle.random_params(
        models.abstract_params(CONFIG), np.random.default_rng(7), scale=0.5
    )


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(1)
    return Prompts(
        random.integers(CONFIG.vocab_size, size=(8, 6), dtype=np.int32),
        np.array([6, 1, 2, 3, 4, 5, 6, 2], np.int32),
        np.array([4, 0, 2**32 - 1, 7, 100, 101, 5, 6], np.uint32),
    )


def roll(params, prompts, key=KEY, mesh=None, config=CONFIG, **changes):
    unrolled = {
        k: changes.pop(k) for k in ("unroll_layers", "stop_tokens") if k in changes
    }
    decode = dataclasses.replace(DECODE.with_rollout(**changes), **unrolled)
    return jax.device_get(rollout(config, decode, params, prompts, key, mesh))


@pytest.fixture(scope="module")
def done(params, prompts):
    return roll(params, prompts)


@pytest.fixture(scope="module")
def done_truncated(params, prompts):
    return roll(params, prompts, sampling=TRUNCATED)


@pytest.mark.parametrize("sampling", [SamplingConfig(), TRUNCATED], ids=["all", "cut"])
def test_every_token_is_the_one_its_uniform_points_at(
    sampling, params, prompts, done, done_truncated
):
    """Rolled out again in float64, a token at a time, from the definition of keys."""
    rolled = done if sampling is not TRUNCATED else done_truncated
    for g, m in ((0, 0), (1, 3), (2, 1), (5, 2)):
        key = jax.random.fold_in(jax.random.fold_in(KEY, prompts.ids[g]), m)
        tokens = list(prompts.tokens[g, : prompts.lengths[g]])
        for t in range(rolled.lengths[g, m]):
            logits = decoder_oracle.decoder_logits(CONFIG, params, tokens)[-1]
            logprobs = decoder_oracle.truncated_logprobs(sampling, logits)
            uniform = float(jax.random.uniform(jax.random.fold_in(key, t)))
            token = int(np.searchsorted(np.cumsum(np.exp(logprobs)), uniform))
            assert rolled.tokens[g, m, t] == token
            assert rolled.sampler_logprobs[g, m, t] == pytest.approx(
                logprobs[token], abs=1e-4
            )
            tokens.append(token)
        assert tokens[-1] in STOPS or rolled.truncated[g, m]


@pytest.mark.parametrize("sampling", [SamplingConfig(), TRUNCATED], ids=["all", "cut"])
def test_teacher_forcing_gives_the_samplers_log_probabilities(
    sampling, params, prompts, done, done_truncated
):

    rolled = done if sampling is not TRUNCATED else done_truncated
    scores = jax.jit(
        lambda params: models.token_logprobs(
            CONFIG, params, prompts.tokens, prompts.lengths, rolled.tokens,
            logits_transform=functools.partial(sampling_logits, sampling),
        )
    )(params)  # fmt: skip
    gap = np.abs(scores.logprobs - rolled.sampler_logprobs)
    assert gap[np.asarray(rolled.mask)].max() < 1e-5


def test_completions_end_with_their_stop_token_or_at_the_limit(done):
    for tokens, logprobs, length, truncated in zip(
        done.tokens.reshape(-1, 10),
        done.sampler_logprobs.reshape(-1, 10),
        done.lengths.ravel(),
        done.truncated.ravel(),
        strict=True,
    ):
        stops = np.flatnonzero(np.isin(tokens[:length], STOPS))
        assert list(stops) == ([] if truncated else [length - 1])
        assert length == 10 or not truncated
        assert not tokens[length:].any() and not logprobs[length:].any()
        assert (logprobs[:length] < 0).all()
    np.testing.assert_array_equal(np.asarray(done.mask).sum(-1), done.lengths)
    # Else the test would show nothing of one of the two ends.
    assert 0 < done.truncated.sum() < done.truncated.size


def test_a_sample_does_not_depend_on_its_company(params, prompts, done):
    for rows in ([6, 1], [3]):
        part = roll(params, jax.tree.map(lambda leaf, r=rows: leaf[r], prompts))
        np.testing.assert_array_equal(part.tokens, done.tokens[rows])
        np.testing.assert_array_equal(part.lengths, done.lengths[rows])
    backwards = roll(params, jax.tree.map(lambda leaf: leaf[::-1], prompts))
    np.testing.assert_array_equal(backwards.tokens, done.tokens[::-1])
    fewer = roll(params, prompts, group_size=2)
    np.testing.assert_array_equal(fewer.tokens, done.tokens[:, :2])


def test_a_longer_limit_and_wider_prompts_only_add(params, prompts, done):
    wide = dataclasses.replace(
        prompts, tokens=np.pad(prompts.tokens, [(0, 0), (0, 3)], constant_values=9)
    )
    longer = roll(params, wide, max_completion_length=13)
    np.testing.assert_array_equal(
        np.where(done.mask, longer.tokens[..., :10], 0), done.tokens
    )


def test_ids_samples_and_steps_draw_differently(params, prompts, done):
    """One prompt under eight ids: no two of the 32 samples are alike but by chance."""
    same = jax.tree.map(lambda leaf: np.repeat(leaf[:1], 8, axis=0), prompts)
    same = dataclasses.replace(same, ids=prompts.ids)
    first = roll(params, same).tokens
    assert len(np.unique(first.reshape(32, -1), axis=0)) > 20
    other_step = roll(params, same, rng.stream_key(0, "rollout", 6)).tokens
    other_run = roll(params, same, rng.stream_key(1, "rollout", 5)).tokens
    assert (first != other_step).any((1, 2)).all()
    assert (first != other_run).any((1, 2)).all()
    np.testing.assert_array_equal(first[0], done.tokens[0])  # the id alone decides


def _fresh(config, decode):
    """A rollout that is traced anew, so that patched constants count."""
    return jax.jit(lambda *args: rollout.__wrapped__(config, decode, *args))


def test_the_loop_ends_with_the_last_completion(params, prompts, monkeypatch, done):
    """As many tokens are run through the model as the longest completion has."""
    few = jax.tree.map(lambda leaf: leaf[:2], prompts)
    seen = []
    inner = models.decode_token

    def counted(config, params, tokens, position, *rest):
        jax.debug.callback(lambda t: seen.append(int(t)), position)
        return inner(config, params, tokens, position, *rest)

    monkeypatch.setattr(models, "decode_token", counted)
    decode = DECODE.with_rollout(max_completion_length=200)
    decode = dataclasses.replace(decode, stop_tokens=tuple(range(12)))
    rolled = jax.device_get(_fresh(CONFIG, decode)(params, few, KEY))
    jax.effects_barrier()
    assert not rolled.truncated.any()
    assert sorted(seen) == list(range(rolled.lengths.max()))
    assert rolled.lengths.max() < 128  # so the second segment did not run at all


@pytest.mark.parametrize("unroll", [False, True], ids=["stacked", "unrolled"])
def test_segments_of_the_cache_change_nothing(params, prompts, monkeypatch, unroll):
    """300 tokens in segments up to 128, 256 and 300, and in a single one."""
    few = jax.tree.map(lambda leaf: leaf[:2], prompts)
    decode = DecodeConfig(
        RolloutConfig(group_size=2, max_completion_length=300), (), unroll_layers=unroll
    )
    assert decode_module._segment_ends(300) == [128, 256, 300]
    segments = jax.device_get(_fresh(CONFIG, decode)(params, few, KEY))
    monkeypatch.setattr(decode_module, "_SEGMENT", 300)
    assert decode_module._segment_ends(300) == [300]
    single = jax.device_get(_fresh(CONFIG, decode)(params, few, KEY))
    np.testing.assert_array_equal(segments.tokens, single.tokens)
    np.testing.assert_allclose(
        segments.sampler_logprobs, single.sampler_logprobs, atol=1e-5
    )
    assert segments.truncated.all() and (segments.lengths == 300).all()


def test_unrolled_layers_change_nothing(params, prompts, done):
    unrolled = roll(params, prompts, unroll_layers=True)
    np.testing.assert_array_equal(unrolled.tokens, done.tokens)


def test_greedy_takes_the_likeliest_token(params, prompts):
    rolled = roll(params, prompts, sampling=SamplingConfig(temperature=0.0))
    assert (rolled.tokens == rolled.tokens[:, :1]).all()
    for g in (0, 3):
        length = rolled.lengths[g, 0]
        whole = [
            *prompts.tokens[g, : prompts.lengths[g]],
            *rolled.tokens[g, 0, :length],
        ]
        logits = decoder_oracle.decoder_logits(CONFIG, params, whole)
        likeliest = logits.argmax(-1)[prompts.lengths[g] - 1 : -1]
        np.testing.assert_array_equal(rolled.tokens[g, 0, :length], likeliest)


def _assert_same_on(mesh, params, prompts, done, config=CONFIG, **changes):
    mesh = parallel.make_mesh(parallel.MeshConfig(*mesh))
    shardings = partition.param_shardings(
        mesh, models.logical_axes(config), models.abstract_params(config)
    )
    many = roll(
        jax.device_put(params, shardings),
        jax.device_put(prompts, partition.batch_sharding(mesh)),
        mesh=mesh,
        config=config,
        **changes,
    )
    np.testing.assert_array_equal(many.tokens, done.tokens)
    np.testing.assert_array_equal(many.lengths, done.lengths)
    np.testing.assert_allclose(many.sampler_logprobs, done.sampler_logprobs, atol=2e-5)


# Sizes of data, fsdp, tensor, expert, sequence.
@pytest.mark.parametrize(
    "sizes", [(8, 1, 1), (2, 2, 2), (1, 2, 4), (1, 2, 1, 1, 4), (1, 1, 2, 2, 2)]
)
def test_eight_devices_sample_the_tokens_of_one(params, prompts, done, sizes):
    _assert_same_on(sizes, params, prompts, done)


def test_layers_may_stay_split_while_sampling(params, prompts, done):
    _assert_same_on((1, 4, 2), params, prompts, done, gather_weights=False)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 4, 2), (2, 1, 2, 2, 1)])
def test_eight_devices_mix_experts_like_one(prompts, sizes):
    mixture = dataclasses.replace(CONFIG, num_experts=8, experts_per_token=2)
    params = decoder_oracle.random_params(
        models.abstract_params(mixture), np.random.default_rng(8), scale=0.5
    )
    done = roll(params, prompts, config=mixture)
    _assert_same_on(sizes, params, prompts, done, mixture)


@pytest.mark.parametrize("field", ["group_size", "max_completion_length"])
def test_empty_rollouts_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        DECODE.with_rollout(**{field: 0})
