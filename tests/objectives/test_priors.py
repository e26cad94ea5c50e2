"""Priors of p: quadrature rules, grids, posterior means."""

import math

import numpy as np
import pytest

from jaxrl_surrogate.objectives import Prior, priors


@pytest.mark.parametrize("parameters", [(1, 1), (0.5, 0.5), (2, 5), (0.3, 4.5)])
def test_beta_moments_are_exact(parameters):
    alpha, beta = parameters
    rule = priors.beta(alpha, beta, 12)
    assert rule.weights.sum() == pytest.approx(1, abs=1e-14)
    for n in (0, 1, 2, 7, 23):
        moment = math.exp(
            math.lgamma(alpha + n)
            - math.lgamma(alpha)
            + math.lgamma(alpha + beta)
            - math.lgamma(alpha + beta + n)
        )
        assert rule.mean(rule.points**n) == pytest.approx(moment, rel=1e-11)


def test_what_a_prior_may_be():
    grid = priors.settle(([0.2, 0.4], [1, 3]))
    assert grid.mean(grid.points) == pytest.approx(0.35)
    assert priors.settle(grid) is grid
    uniform = priors.settle(None)
    assert uniform.mean(uniform.points**2) == pytest.approx(1 / 3)
    assert priors.settle((2, 6)).mean(priors.settle((2, 6)).points) == pytest.approx(
        0.25
    )
    assert priors.beta(1, 1, 1).points.tolist() == [0.5]


@pytest.mark.parametrize("others", [0, 1, 7, 31])
def test_posterior_mean(others, random):
    alpha, beta = random.uniform(0.3, 4, 2)
    rule = priors.beta(alpha, beta, 64)
    got = priors.posterior_mean((alpha, beta), others)
    np.testing.assert_allclose(got, priors.posterior_mean(rule, others), rtol=1e-9)
    squares = priors.posterior_mean(rule, others, rule.points**2)
    total = others + alpha + beta
    s = np.arange(others + 1)
    expected = (s + alpha) * (s + alpha + 1) / (total * (total + 1))
    np.testing.assert_allclose(squares, expected, rtol=1e-9)


def test_refused():
    for prior in ((0, 1), (1, -2), (1.0, np.nan)):
        with pytest.raises(ValueError, match=r"^prior"):
            priors.settle(prior)
    for prior in ("uniform", (1, 2, 3), 0.5):
        with pytest.raises(ValueError, match=r"^prior.*expected"):
            priors.settle(prior)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Prior([0.5, 1.5], [1, 1])
    with pytest.raises(ValueError, match="weights"):
        Prior([0.5, 0.6], [0, 0])
    with pytest.raises(ValueError, match="one shape"):
        Prior([0.5, 0.6], [1])
    with pytest.raises(ValueError, match="impossible"):
        priors.posterior_mean(Prior([0.0, 1.0], [1, 1]), 3)
