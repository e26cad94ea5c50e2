"""The sampling distribution against its definition, and draws against their CDF."""

import decoder_oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.rollout import SamplingConfig, sample, sampling_logits

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))

draw = jax.jit(sample, static_argnames="greedy")
truncate = jax.jit(sampling_logits, static_argnums=0)


# Below, at and above the width of a block, and many blocks of which the last is short.
@pytest.mark.parametrize("vocab_size", [3, 128, 129, 300])
def test_a_grid_of_uniforms_meets_tokens_by_their_probabilities(vocab_size, random):
    """Inversion is monotone: n equal steps meet a token n p times, give or take 1."""
    logits = 3 * random.normal(size=vocab_size).astype(np.float32)
    logits[random.random(vocab_size) < 0.2] = -np.inf
    logits[0] = 1.0
    n = 20_000
    uniforms = (np.arange(n, dtype=np.float32) + 0.5) / n
    tokens, logprobs = draw(np.broadcast_to(logits, (n, vocab_size)), uniforms)
    p = np.exp(decoder_oracle.truncated_logprobs(SamplingConfig(), logits))
    counts = np.bincount(tokens, minlength=vocab_size)
    assert np.abs(counts - n * p).max() < 1.1
    np.testing.assert_allclose(logprobs, np.log(p[tokens]), atol=1e-5)
    # The inverse itself, but where a uniform is within rounding of a bound.
    bounds = np.cumsum(p)
    safe = np.abs(uniforms[:, None] - bounds[None]).min(1) > 1e-5
    assert safe.mean() > 0.5
    exact = np.searchsorted(bounds, uniforms, side="right")
    np.testing.assert_array_equal(tokens[safe], exact[safe])


@pytest.mark.parametrize("vocab_size", [3, 130, 257])
@pytest.mark.parametrize("uniform", [0.0, 1e-30, 0.5, BELOW_ONE])
def test_a_token_without_weight_is_never_drawn(vocab_size, uniform, random):
    """Masked heads and tails, single survivors, and weights that underflow."""
    logits = (10 * random.normal(size=(200, vocab_size))).astype(np.float32)
    share = random.random((200, 1)) ** 0.2
    logits[random.random(logits.shape) < share] = -np.inf
    keep = random.integers(vocab_size, size=200)
    logits[np.arange(200), keep] = 0.0
    logits[:40, : vocab_size // 2] = logits[40:80, vocab_size // 2 :] = -np.inf
    logits[:80, vocab_size // 2] = np.where(np.arange(80) < 40, 0.0, -np.inf)
    logits[40:80, 0] = 0.0
    logits[80:90] -= 300.0 * np.arange(vocab_size, dtype=np.float32)[::-1][None]
    tokens, logprobs = draw(logits, np.full(200, uniform, np.float32))
    picked = np.take_along_axis(logits, np.asarray(tokens)[:, None], 1)[:, 0]
    assert (picked - logits.max(1) > -104).all()  # exp(-104) is 0 in float32
    assert np.isfinite(logprobs).all()


def test_the_end_of_the_scale_is_the_last_token_with_weight():
    logits = np.full((1, 300), -np.inf, np.float32)
    logits[0, [5, 140, 141]] = [0.0, 0.0, -1.0]
    assert draw(logits, np.float32([BELOW_ONE]))[0] == 141
    assert draw(logits, np.float32([0.0]))[0] == 5


SETTINGS = [
    SamplingConfig(temperature=0.7),
    SamplingConfig(top_k=5),
    SamplingConfig(top_k=1),
    SamplingConfig(top_k=1000),
    SamplingConfig(top_p=0.8),
    SamplingConfig(top_p=1e-6),
    SamplingConfig(min_p=0.2),
    SamplingConfig(temperature=1.5, top_k=9, top_p=0.7, min_p=0.1),
]


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_truncations_keep_what_their_words_say(config, ties, random):
    if ties:  # few different values: the last token kept is tied with others
        rows = random.integers(-2, 4, size=(20, 30)).astype(np.float32)
    else:
        rows = (2 * random.normal(size=(20, 30))).astype(np.float32)
    got = truncate(config, rows)
    for row, kept in zip(rows, np.asarray(got), strict=True):
        expected = decoder_oracle.truncated_logprobs(config, row)
        np.testing.assert_array_equal(np.isfinite(kept), np.isfinite(expected))
        found = np.asarray(jax.nn.log_softmax(kept))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(found[finite], expected[finite], atol=1e-5)


def test_log_probabilities_are_those_of_the_truncated_distribution(random):
    config = SETTINGS[-1]
    rows = (2 * random.normal(size=(50, 30))).astype(np.float32)
    uniforms = random.random(50).astype(np.float32)
    tokens, logprobs = draw(truncate(config, rows), uniforms)
    expected = [
        decoder_oracle.truncated_logprobs(config, row)[token]
        for row, token in zip(rows, tokens, strict=True)
    ]
    np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_truncation_stops_no_gradient_of_what_is_kept(random):
    """d log p / d logits of the truncated softmax: the indicator less p, over T."""
    config = SamplingConfig(temperature=0.5, top_k=3, top_p=0.99, min_p=0.01)
    row = np.float32([2.0, 1.5, -1.0, 1.8, 0.0])
    p = np.exp(decoder_oracle.truncated_logprobs(config, row))
    grad = jax.grad(lambda x: jax.nn.log_softmax(sampling_logits(config, x))[1])(
        jnp.asarray(row)
    )
    np.testing.assert_allclose(grad, (np.eye(5)[1] - p) / 0.5, atol=1e-5)


def test_greedy_takes_the_first_of_the_likeliest(random):
    rows = random.integers(0, 3, size=(50, 20)).astype(np.float32)
    tokens, logprobs = draw(rows, np.full(50, 0.99, np.float32), greedy=True)
    np.testing.assert_array_equal(tokens, rows.argmax(1))
    expected = [
        decoder_oracle.truncated_logprobs(SamplingConfig(temperature=0.0), row).max()
        for row in rows
    ]
    np.testing.assert_allclose(logprobs, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", 1),
        ("min_p", -0.1),
    ],
)
def test_impossible_distributions_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value}"):
        SamplingConfig(**{field: value})
