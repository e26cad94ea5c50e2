"""The decoder against an oracle written from its equations, in float64 NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate import models
from jaxrl_surrogate.models import attention

PLAIN = models.presets.get("nano", num_layers=3)
OTHER = dataclasses.replace(
    PLAIN,
    sliding_window=3,
    global_every=2,
    tie_embeddings=False,
    attention_bias=True,
    mlp_bias=True,
    qk_norm=False,
)


def _params(config, random):
    """Random values everywhere, biases and norm scales included."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 0.3, leaf.dtype),
        models.abstract_params(config),
    )


def _oracle(config, params, tokens):
    """(T,) tokens of one sequence to (T, V) logits."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * scale

    def rotate(x):
        half = config.head_dim // 2
        angle = np.arange(len(x))[:, None] * config.rope_theta ** (
            -np.arange(half) / half
        )
        turn = np.exp(1j * angle)[:, None]
        turned = (x[..., :half] + 1j * x[..., half:]) * turn
        return np.concatenate([turned.real, turned.imag], -1)

    x = params["embedding"][tokens]
    length = len(tokens)
    for layer in range(config.num_layers):
        p = jax.tree.map(lambda leaf, i=layer: leaf[i], params["layers"])
        a, m = p["attention"], p["mlp"]
        h = norm(x, p["attention_norm"]["scale"])
        q, k, v = (
            np.einsum("td,dnh->tnh", h, a[n]["kernel"]) + a[n].get("bias", 0)
            for n in "qkv"
        )
        if config.qk_norm:
            q, k = norm(q, a["q_norm"]["scale"]), norm(k, a["k_norm"]["scale"])
        q, k = rotate(q), rotate(k)
        window = config.windows[layer] if config.windows else length
        out = np.zeros_like(q)
        for head in range(config.num_heads):
            shared = head // config.queries_per_kv
            for t in range(length):
                seen = slice(max(0, t - window + 1), t + 1)
                score = k[seen, shared] @ q[t, head] / np.sqrt(config.head_dim)
                weight = np.exp(score - score.max())
                out[t, head] = weight / weight.sum() @ v[seen, shared]
        x = x + np.einsum("tnh,nhd->td", out, a["out"]["kernel"])
        h = norm(x, p["mlp_norm"]["scale"])
        gate, up = (h @ m[n]["kernel"] + m[n].get("bias", 0) for n in ("gate", "up"))
        hidden = gate / (1 + np.exp(-gate)) * up
        x = x + hidden @ m["down"]["kernel"] + m["down"].get("bias", 0)
    table = params.get("head", params["embedding"])
    return norm(x, params["final_norm"]["scale"]) @ table.T


def _log_softmax(logits):
    highest = logits.max(-1, keepdims=True)
    return logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))


def _inputs(config, random):
    tokens = random.integers(config.vocab_size, size=(3, 2, 6), dtype=np.int32)
    prompts = random.integers(config.vocab_size, size=(3, 5), dtype=np.int32)
    return prompts, np.array([5, 2, 3], np.int32), tokens


@pytest.mark.parametrize("config", [PLAIN, OTHER], ids=["plain", "other"])
def test_scores_and_decoding_equal_the_oracle(config, random):
    params = _params(config, random)
    prompts, lengths, tokens = _inputs(config, random)
    scores = jax.jit(
        lambda p: models.completion_scores(
            config, p, prompts, lengths, tokens, chunk=13, entropy=True
        )
    )(params)
    expected, entropy = np.zeros(tokens.shape), np.zeros(tokens.shape)
    for g, m in np.ndindex(*tokens.shape[:2]):
        row = np.concatenate([prompts[g, : lengths[g]], tokens[g, m]])
        logprobs = _log_softmax(_oracle(config, params, row))[lengths[g] - 1 : -1]
        expected[g, m] = np.take_along_axis(logprobs, tokens[g, m][:, None], 1)[:, 0]
        entropy[g, m] = -(np.exp(logprobs) * logprobs).sum(-1)
    np.testing.assert_allclose(scores.logprobs, expected, atol=2e-4)
    np.testing.assert_allclose(scores.entropy, entropy, atol=2e-4)

    for unrolled in (False, True):
        p = models.unstack_layers(params) if unrolled else params
        last, prefix = models.prefill(config, p, prompts, lengths)
        shape = (3, 2, config.num_kv_heads, 8, config.head_dim)
        layers = config.num_layers
        cache = (
            tuple(models.KeyValues(jnp.zeros(shape), jnp.zeros(shape)) for _ in "abc")
            if unrolled
            else models.KeyValues(
                jnp.zeros((layers, *shape)), jnp.zeros((layers, *shape))
            )
        )
        step = jax.jit(functools.partial(models.decode_token, config))
        hidden = jnp.broadcast_to(last[:, None], (3, 2, last.shape[-1]))
        for t in range(tokens.shape[-1]):
            logprobs = jax.nn.log_softmax(models.output_logits(config, p, hidden))
            got = jnp.take_along_axis(logprobs, tokens[:, :, t, None], -1)[..., 0]
            np.testing.assert_allclose(got, expected[:, :, t], atol=2e-4)
            hidden, cache = step(p, tokens[:, :, t], jnp.int32(t), prefix, cache)


def test_blocks_of_queries_and_recomputation_change_nothing(random, monkeypatch):
    params = _params(OTHER, random)
    prompts, lengths, tokens = _inputs(OTHER, random)

    def gradient(remat):
        def loss(p):
            return models.completion_scores(
                OTHER, p, prompts, lengths, tokens, remat=remat
            ).logprobs.sum()

        return jax.grad(loss)(params)

    plain, recomputed = gradient(False), gradient(True)
    monkeypatch.setattr(attention, "QUERY_BLOCK", 2)
    blocked = gradient(False)
    for other in (recomputed, blocked):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
            plain,
            other,
        )


def test_no_token_sees_a_later_one(random):
    params = _params(PLAIN, random)
    prompts, lengths, tokens = _inputs(PLAIN, random)
    changed = tokens.copy()
    changed[:, :, 4:] = (tokens[:, :, 4:] + 1) % PLAIN.vocab_size
    one, other = (
        models.completion_scores(PLAIN, params, prompts, lengths, t).logprobs
        for t in (tokens, changed)
    )
    np.testing.assert_array_equal(one[:, :, :4], other[:, :, :4])
    assert (one[:, :, 4:] != other[:, :, 4:]).all()


def test_bfloat16_is_near(random):
    half = dataclasses.replace(PLAIN, compute_dtype="bfloat16")
    params = models.init_params(PLAIN, jax.random.key(3))
    inputs = _inputs(PLAIN, random)
    score = jax.jit(models.completion_scores, static_argnums=0)
    exact = score(PLAIN, params, *inputs).logprobs
    near = score(half, params, *inputs).logprobs
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - exact).max() < 0.1


@pytest.mark.parametrize(
    ("preset", "billions"),
    [("qwen3-0.6b", 0.596), ("qwen3-8b", 8.19), ("llama3-8b", 8.03), ("tiny", 8e-4)],
)
def test_presets_have_the_published_sizes(preset, billions):
    config = models.presets.get(preset)
    leaves = jax.tree.leaves(models.abstract_params(config))
    assert sum(leaf.size for leaf in leaves) == config.num_params
    assert config.num_params / 1e9 == pytest.approx(billions, rel=0.02)


def test_every_parameter_names_its_axes():
    for config in (PLAIN, OTHER):
        shapes, axes = models.abstract_params(config), models.logical_axes(config)
        jax.tree.map(
            lambda leaf, names: len(names) == leaf.ndim or pytest.fail(str(names)),
            shapes,
            axes,
        )


def test_the_program_does_not_grow_with_depth(random):
    def size(layers):
        config = dataclasses.replace(PLAIN, num_layers=layers)
        prompts, lengths, tokens = _inputs(config, random)

        def loss(p):
            return models.completion_scores(
                config, p, prompts, lengths, tokens
            ).logprobs.sum()

        lowered = jax.jit(jax.grad(loss)).lower(models.abstract_params(config))
        return len(lowered.as_text().splitlines())

    assert size(12) == size(2)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="num_kv_heads=3"):
        models.presets.get("nano", num_kv_heads=3)
    with pytest.raises(ValueError, match="head_dim=5"):
        models.presets.get("nano", head_dim=5)
