"""Posterior means of slopes, against quadrature of their definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxrl_surrogate.objectives import (
    certify,
    from_surrogate,
    induced_surrogate,
    surrogates,
)


def posterior_means(slope, size, alpha=1.0, beta=1.0):
    out = []
    for s in range(size):
        density = stats.beta(s + alpha, size - 1 - s + beta)
        # x = sin^2 takes away square roots at both ends.
        out.append(
            integrate.quad(
                lambda y, density=density: (
                    slope(np.sin(y) ** 2) * density.pdf(np.sin(y) ** 2) * np.sin(2 * y)
                ),
                0,
                np.pi / 2,
                limit=200,
            )[0]
        )
    return np.array(out)


def durrmeyer(h, size, **options):
    return from_surrogate(h, size, method="durrmeyer", baseline="none", **options).gap


CASES = [
    ("identity", {}),
    ("arcsin", {}),
    ("pass_at_k", {"k": 12}),
    ("arcsin_pass_at_k", {"k": 3}),
    ("arcsin_pass_at_k", {"k": 4}),
    ("power", {"r": 0.4}),
    ("entropic", {"beta": 3.0}),
    ("beta", {"alpha": 0.6, "beta": 2.2}),
    ("regularized", {"regularizer": "entropy"}),
    ("truncated_log", {"order": 9}),
]


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_against_the_definition(name, params, size):
    h = surrogates.get(name, **params)
    gap = durrmeyer(h, size)
    expected = posterior_means(h.slope, size)
    np.testing.assert_allclose(gap, expected, rtol=1e-6, atol=1e-8)
    # The whole rise of h is kept.
    assert gap.mean() == pytest.approx(h.value(1.0) - h.value(0.0), rel=1e-11)


@pytest.mark.parametrize("size", [1, 4, 33, 300])
def test_quadrature_is_as_good_as_the_closed_form(size):
    for name, params in (
        ("arcsin", {}),
        ("power", {"r": 0.7}),
        ("pass_hat_k", {"k": 9}),
    ):
        known = surrogates.get(name, **params)
        assert known.powers is not None
        unknown = surrogates.Surrogate(known.value, known.slope, name="unknown")
        gap = durrmeyer(known, size)
        scale = np.abs(gap).max()
        np.testing.assert_allclose(durrmeyer(unknown, size), gap, atol=1e-10 * scale)


def test_priors(random):
    alpha, beta = random.uniform(1.2, 4, 2)
    sine = surrogates.from_callable(jnp.sin)
    for h in (surrogates.get("log"), surrogates.get("pass_at_k", k=4), sine):
        gap = durrmeyer(h, 6, prior=(alpha, beta))
        expected = posterior_means(h.slope, 6, alpha, beta)
        np.testing.assert_allclose(gap, expected, rtol=1e-7)
    points, weights = random.uniform(0.05, 0.95, 4), random.uniform(size=4)
    gap = durrmeyer(surrogates.get("log"), 5, prior=(points, weights))
    chance = weights[:, None] * stats.binom(4, points[:, None]).pmf(np.arange(5))
    np.testing.assert_allclose(gap, (1 / points) @ chance / chance.sum(0), rtol=1e-9)


def test_log_under_a_prior_away_from_zero():
    gap = durrmeyer(surrogates.get("log"), 8, prior=(2.0, 1.0))
    np.testing.assert_allclose(gap, 9 / (np.arange(8) + 1), rtol=1e-12)


def test_refused_where_the_mean_is_infinite():
    log, logit = surrogates.get("log"), surrogates.get("logit")
    with pytest.raises(ValueError, match="given 0 correct answers, which is infinite"):
        durrmeyer(log, 8)
    flipped = surrogates.Surrogate(lambda t: -np.log1p(-t), lambda t: 1 / (1 - t))
    with (
        np.errstate(divide="ignore"),
        pytest.raises(ValueError, match="given 7 correct answers"),
    ):
        durrmeyer(flipped, 8)
    with pytest.raises(ValueError, match="durrmeyer"):
        durrmeyer(logit, 8, prior=(2.0, 1.0))
    odd = surrogates.get("arcsin_pass_at_k", k=3)
    with pytest.raises(ValueError, match="closed form"):
        durrmeyer(odd, 8, prior=(2.0, 1.0))
    with pytest.raises(ValueError, match="not finite at its point 0"):
        durrmeyer(odd, 8, prior=([0.0, 0.5], [1, 1]))
    wild = surrogates.from_callable(lambda t: jnp.sin(1e7 * t))
    with pytest.raises(ValueError, match="do not settle"):
        durrmeyer(wild, 8)


@pytest.mark.parametrize("size", [4, 32])
def test_arcsin_is_near(size):
    h = surrogates.get("arcsin")
    table = from_surrogate(h, size, method="durrmeyer")
    found = certify(table, h)
    assert found.monotone
    assert not found.exact
    grpo_like = certify(from_surrogate(h, size), h)
    assert found.whole.value < 1.3 * grpo_like.whole.value
    assert induced_surrogate(table).value(1.0) == pytest.approx(np.pi, rel=1e-12)
