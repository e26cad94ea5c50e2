"""Polynomials in the Bernstein basis, against rational arithmetic."""

import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import bernstein

POINTS = np.array([0.0, 1e-6, 0.3, 0.5, 0.97, 1.0])


def exact(coefficients):
    return np.array([oracles.exact_bernstein(coefficients, t) for t in POINTS])


@pytest.mark.parametrize("degree", [0, 1, 2, 9, 40])
def test_evaluation(degree, random):
    c = random.normal(size=degree + 1)
    f = bernstein.polynomial(c)
    np.testing.assert_allclose(f(POINTS), exact(c), rtol=0, atol=1e-13)
    np.testing.assert_allclose(f(jnp.asarray(POINTS)), exact(c), rtol=0, atol=1e-5)
    np.testing.assert_allclose(bernstein.basis(degree, POINTS).sum(-1), 1, rtol=1e-13)


@pytest.mark.parametrize("degree", [0, 1, 5, 20])
def test_powers(degree, random):
    c = random.normal(size=degree + 1)
    f = bernstein.polynomial(bernstein.from_powers(c))
    np.testing.assert_allclose(
        f(POINTS), np.polynomial.polynomial.polyval(POINTS, c), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("degree", [0, 1, 6, 31])
def test_elevate_and_reduce(degree, random):
    c = random.normal(size=degree + 1)
    for size in (degree + 1, degree + 2, degree + 20):
        more = bernstein.elevate(c, size)
        assert more.shape == (size,)
        np.testing.assert_allclose(exact(more), exact(c), rtol=0, atol=1e-13)
    less, error = bernstein.reduce(bernstein.elevate(c, degree + 2))
    assert error < 1e-13
    np.testing.assert_allclose(less, c, rtol=0, atol=1e-11)


def test_reduce_bounds_what_it_changes():
    c = np.array([2.0, 1.0])
    less, error = bernstein.reduce(c)
    np.testing.assert_allclose(less, [1.5], rtol=1e-14)
    assert error == pytest.approx(0.5)


@pytest.mark.parametrize("degrees", [(0, 0), (0, 3), (4, 7), (20, 11)])
def test_multiply(degrees, random):
    one, other = (random.normal(size=n + 1) for n in degrees)
    product = bernstein.multiply(one, other)
    assert product.shape == (sum(degrees) + 1,)
    np.testing.assert_allclose(
        exact(product), exact(one) * exact(other), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("degree", [0, 1, 5, 30])
def test_the_lowest_degree(degree, random):
    lean = random.normal(size=degree + 1)
    raised = bernstein.elevate(lean, degree + 40)
    found = bernstein.lowest_degree(raised)
    assert len(found) <= degree + 1
    np.testing.assert_allclose(
        bernstein.elevate(found, degree + 40), raised, atol=1e-12
    )
    assert len(bernstein.lowest_degree(random.normal(size=9))) == 9
    assert bernstein.lowest_degree(np.zeros(4)).tolist() == [0]
    assert bernstein.lowest_degree(np.array([2.0])).tolist() == [2]
