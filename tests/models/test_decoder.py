"""The decoder's passes against the oracle, and what must not change their results."""

import dataclasses
import functools

import decoder_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_passes import all_passes

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Completions, Prompts
from jaxrl_surrogate.models import attention
from jaxrl_surrogate.rollout import SamplingConfig

# Between them every option of the decoder, each at least once on and off.
FAMILIES = {
    "qwen3": models.DecoderConfig(
        vocab_size=13, num_layers=2, embed_dim=8, num_heads=4, num_kv_heads=2,
        head_dim=6, mlp_dim=10, qk_norm=True,
    ),
    "biased": models.DecoderConfig(
        vocab_size=13, num_layers=2, embed_dim=8, num_heads=2, num_kv_heads=2,
        head_dim=4, mlp_dim=10, attention_bias=True, mlp_bias=True, activation="gelu",
        tie_embeddings=False, rope_theta=50.0, norm_eps=1e-3,
    ),
    "windowed": models.DecoderConfig(
        vocab_size=13, num_layers=3, embed_dim=8, num_heads=3, num_kv_heads=1,
        head_dim=4, mlp_dim=10, sliding_window=3, global_every=2, qk_norm=True,
    ),
    "mixture": models.DecoderConfig(
        vocab_size=13, num_layers=2, embed_dim=8, num_heads=2, num_kv_heads=1,
        head_dim=4, mlp_dim=10, num_experts=5, experts_per_token=2,
        normalize_experts=False, activation="gelu",
    ),
    "gemma": models.DecoderConfig(
        vocab_size=13, num_layers=3, embed_dim=8, num_heads=4, num_kv_heads=2,
        head_dim=6, mlp_dim=10, activation="gelu", qk_norm=True, norm_placement="both",
        zero_centred_norms=True, scale_embeddings=True, query_pre_attn_scalar=3.0,
        attention_softcap=0.7, final_softcap=1.5, sliding_window=3, global_every=2,
        rope_local_theta=10.0, rope_scaling="linear", rope_factor=4.0,
    ),
    "olmo": models.DecoderConfig(
        vocab_size=13, num_layers=2, embed_dim=8, num_heads=4, num_kv_heads=2,
        head_dim=6, mlp_dim=10, norm_placement="post", qk_norm=True,
        qk_norm_over="projection", attention_bias=True, attention_out_bias=True,
        tie_embeddings=False, rope_theta=100.0, rope_scaling="llama3", rope_factor=3.0,
        rope_low_freq_factor=0.5, rope_high_freq_factor=2.0, rope_original_length=20,
    ),
}  # fmt: skip
P, T = 5, 6
LENGTHS = np.array([5, 1, 3], np.int32)


@pytest.fixture(params=FAMILIES)
def config(request):
    return FAMILIES[request.param]


def draw(config, random, num_samples=2):
    """Parameters, prompts (3, P) and completions (3, M, T)."""
    params = decoder_oracle.random_params(models.abstract_params(config), random)
    prompts = random.integers(config.vocab_size, size=(3, P), dtype=np.int32)
    tokens = random.integers(
        config.vocab_size, size=(3, num_samples, T), dtype=np.int32
    )
    return params, prompts, tokens


def test_every_pass_equals_the_equations(config, random):
    params, prompts, tokens = draw(config, random)
    passes = all_passes(config, params, prompts, LENGTHS, tokens)
    for g, m in np.ndindex(*tokens.shape[:2]):
        whole = np.concatenate([prompts[g, : LENGTHS[g]], tokens[g, m]])
        expected = decoder_oracle.decoder_logits(config, params, whole)
        expected = expected[LENGTHS[g] - 1 : -1]
        for name, logits in passes.items():
            np.testing.assert_allclose(
                logits[g, m], expected, rtol=1e-4, atol=1e-4, err_msg=f"{name} {g} {m}"
            )


@functools.partial(jax.jit, static_argnums=(0, 6, 7))
def scores_and_gradient(
    config, params, prompts, lengths, tokens, weights, chunk=1024, remat=False
):
    """Scores, and the gradient of a weighted sum of them."""

    def total(params):
        scores = models.token_logprobs(
            config, params, prompts, lengths, tokens,
            chunk=chunk, remat=remat, entropy=True,
        )  # fmt: skip
        return (weights * (scores.logprobs + scores.entropy)).sum(), scores

    grads, scores = jax.grad(total, has_aux=True)(params)
    return scores, grads


def assert_trees_close(got, expected, rtol=1e-4, atol=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
        got,
        expected,
    )


@pytest.mark.parametrize("family", ["biased", "windowed", "mixture", "gemma", "olmo"])
def test_scores_and_gradients_equal_the_equations(family, random):
    config = FAMILIES[family]
    params, prompts, tokens = draw(config, random)
    weights = random.normal(size=tokens.shape).astype(np.float32)
    inputs = (config, params, prompts, LENGTHS, tokens, weights)
    scores, grads = scores_and_gradient(*inputs)
    batch = (
        Prompts(prompts, LENGTHS, np.arange(3)),
        Completions(tokens, np.full(tokens.shape[:2], T), *[None] * 4),
        SamplingConfig(),
    )
    logprobs, entropy = decoder_oracle.token_scores(config, params, *batch)
    np.testing.assert_allclose(scores.logprobs, logprobs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores.entropy, entropy, rtol=1e-4, atol=1e-4)

    def value(params):
        return (
            weights * sum(decoder_oracle.token_scores(config, params, *batch))
        ).sum()

    way = decoder_oracle.random_params(params, random)
    found, expected = decoder_oracle.slopes(value, params, grads, way)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_chunks_and_recomputation_change_nothing(random):
    """25 tokens: 4 positions of 6 rows, which do not divide T."""
    config = FAMILIES["windowed"]
    params, prompts, tokens = draw(config, random)
    weights = random.normal(size=tokens.shape).astype(np.float32)
    inputs = (config, params, prompts, LENGTHS, tokens, weights)
    assert_trees_close(
        scores_and_gradient(*inputs, 25, True), scores_and_gradient(*inputs)
    )


def test_where_the_prompt_ends_changes_nothing(random):
    """One sequence, cut into prompt and completion at another place each row."""
    config = FAMILIES["windowed"]
    params, _, _ = draw(config, random)
    whole = random.integers(config.vocab_size, size=9, dtype=np.int32)
    common = 4  # the last tokens, scored in every row

    @jax.jit
    def gradient(params, prompts, lengths, tokens, counted):
        def total(params):
            scores = models.token_logprobs(config, params, prompts, lengths, tokens)
            return jnp.where(counted, scores.logprobs, 0).sum()

        return jax.value_and_grad(total)(params)

    found = []
    for cut in (1, 3, 5):
        prompts, tokens = np.zeros((1, 6), np.int32), np.zeros((1, 1, 8), np.int32)
        prompts[0, :cut], tokens[0, 0, : 9 - cut] = whole[:cut], whole[cut:]
        counted = np.zeros((1, 1, 8), bool)
        counted[0, 0, 9 - cut - common : 9 - cut] = True
        found.append(gradient(params, prompts, np.array([cut]), tokens, counted))
    assert_trees_close(found[1], found[0])
    assert_trees_close(found[2], found[0])


def test_what_fills_padding_does_not_matter(random):
    config = FAMILIES["windowed"]
    params, prompts, tokens = draw(config, random)
    lengths = random.integers(1, T + 1, size=tokens.shape[:2])
    counted = np.arange(T)[None, None] < lengths[..., None]
    weights = np.where(counted, random.normal(size=tokens.shape), 0).astype(np.float32)
    scores, grads = scores_and_gradient(
        config, params, prompts, LENGTHS, tokens, weights
    )
    other = random.integers(config.vocab_size, size=prompts.shape, dtype=np.int32)
    prompts = np.where(np.arange(P)[None] < LENGTHS[:, None], prompts, other)
    other = random.integers(config.vocab_size, size=tokens.shape, dtype=np.int32)
    tokens = np.where(counted, tokens, other)
    again, grads_again = scores_and_gradient(
        config, params, prompts, LENGTHS, tokens, weights
    )
    np.testing.assert_array_equal(
        np.where(counted, scores.logprobs, 0), np.where(counted, again.logprobs, 0)
    )
    assert_trees_close(grads_again, grads)


@pytest.mark.parametrize("window", [0, 3])
def test_gradients_tell_which_tokens_are_seen(window, random):
    """d output(t) / d input(s) is not zero exactly for the s that t may see.

    Every token is used once, so a row of the (untied) embedding is one position. Two
    layers with a window w see 2 (w - 1) positions back.
    """
    config = dataclasses.replace(
        FAMILIES["biased"], vocab_size=P + T, sliding_window=window
    )
    params, _, _ = draw(config, random)
    order = random.permutation(config.vocab_size).astype(np.int32)
    prompt, tokens = order[None, :P], order[None, None, P:]
    direction = random.normal(size=config.embed_dim).astype(np.float32)

    @jax.jit
    @jax.jacrev
    def sight(table):
        seen = params | {"embedding": table}
        _, prefix = models.prefill(config, seen, prompt, np.array([P]))
        return (
            models.forward_completions(config, seen, tokens, prefix)[0, 0] @ direction
        )

    felt = np.abs(sight(params["embedding"])).max(-1)[:, order] > 0  # (T, P + T)
    distance = (P + np.arange(T))[:, None] - np.arange(P + T)[None]
    reach = 2 * (window - 1) if window else P + T
    np.testing.assert_array_equal(felt, (distance >= 0) & (distance <= reach))


@pytest.mark.parametrize("window", [None, 4])
def test_blocks_of_queries_equal_the_whole(window, random, monkeypatch):
    """Blocks of 4 for 10 queries: the last one is padded."""
    shape = {
        "q": (2, 3, 10, 2, 2, 4),
        "own": (2, 3, 10, 2, 4),
        "prefix": (2, 1, 5, 2, 4),
    }

    def normal(name):
        return random.normal(size=shape[name]).astype(np.float32)

    inputs = (normal("q"), normal("own"), normal("own"), normal("prefix"), normal("q"))

    def outcome():
        @jax.jit
        def total(q, keys, values, prompt, weights):
            shared = models.KeyValues.of(prompt, 2 * prompt)
            shared = jax.tree.map(lambda leaf: leaf[:, 0], shared)
            prefix = attention.Prefix(shared, jnp.array([5, 2]))
            own = models.KeyValues.of(keys, values)
            out = attention.attend(q, own, 0, window, prefix)
            return (out * weights).sum(), out

        return jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*inputs)

    whole = outcome()
    monkeypatch.setattr(attention, "QUERY_BLOCK", 4)
    assert_trees_close(outcome(), whole)


def test_bfloat16_is_near_float32(random):
    config = FAMILIES["qwen3"]
    params, prompts, tokens = draw(config, random)
    half = dataclasses.replace(config, compute_dtype="bfloat16")
    inputs = (params, prompts, LENGTHS, tokens)
    exact, near = all_passes(config, *inputs), all_passes(half, *inputs)
    for name in exact:
        assert near[name].dtype == jnp.float32, name
        gap = np.abs(near[name] - exact[name]).max() / np.abs(exact[name]).max()
        assert 1e-6 < gap < 0.05, name
    _, prefix = models.prefill(half, params, prompts, LENGTHS)
    assert prefix.cache.keys.dtype == jnp.bfloat16
