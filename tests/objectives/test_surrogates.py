"""Every registered surrogate: slopes, types, ends, names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import surrogates

VARIANTS = {
    "identity": [{}],
    "log": [{}],
    "arcsin": [{}],
    "logit": [{}],
    "pass_at_k": [{"k": 1}, {"k": 2}, {"k": 16}],
    "arcsin_pass_at_k": [{"k": 1}, {"k": 2}, {"k": 5}],
}
CASES = [
    pytest.param(name, params, id=f"{name}-{params}")
    for name, variants in VARIANTS.items()
    for params in variants
]


def test_every_name_is_examined():
    assert set(surrogates.names()) == set(VARIANTS)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_slope_is_the_derivative(name, params):
    h = surrogates.get(name, **params)
    t, step = np.linspace(0.05, 0.95, 19), 1e-6
    difference = (h.value(t + step) - h.value(t - step)) / (2 * step)
    np.testing.assert_allclose(h.slope(t), difference, rtol=1e-6, atol=1e-6)
    assert (h.slope(t) > 0).all()
    derivative = jax.vmap(jax.grad(h.value))(jnp.asarray(t))
    np.testing.assert_allclose(derivative, h.slope(t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_numpy_is_float64_and_jax_traces(name, params, random):
    h = surrogates.get(name, **params)
    assert (h.name, dict(h.params)) == (name, params)
    t = random.uniform(0.05, 0.95, (3, 4))
    for fn in (h.value, h.slope):
        exact = fn(t)
        assert exact.dtype == np.float64
        assert exact.shape == t.shape
        on_device = jax.jit(fn)(jnp.asarray(t, jnp.float32))
        assert on_device.dtype == np.float32
        np.testing.assert_allclose(on_device, exact, rtol=1e-4, atol=1e-6)
        assert fn(jnp.asarray(t, jnp.bfloat16)).dtype == np.float32
        assert fn(0.5) == pytest.approx(fn(np.array([0.5]))[0])


@pytest.mark.parametrize(
    ("name", "params", "values", "slopes"),
    [
        ("identity", {}, (0, 1), (1, 1)),
        ("log", {}, (-np.inf, 0), (np.inf, 1)),
        ("arcsin", {}, (0, np.pi), (np.inf, np.inf)),
        ("logit", {}, (-np.inf, np.inf), (np.inf, np.inf)),
        ("pass_at_k", {"k": 4}, (0, 1), (4, 0)),
        ("arcsin_pass_at_k", {"k": 1}, (0, np.pi), (np.inf, np.inf)),
        ("arcsin_pass_at_k", {"k": 2}, (0, np.pi / 2), (np.inf, 1)),
        ("arcsin_pass_at_k", {"k": 4}, (0, np.pi / 4), (np.inf, 0)),
    ],
)
def test_ends(name, params, values, slopes):
    h = surrogates.get(name, **params)
    for ends in (np.array([0.0, 1.0]), jnp.array([0.0, 1.0])):
        np.testing.assert_allclose(h.value(ends), values, rtol=1e-6)
        np.testing.assert_allclose(h.slope(ends), slopes, rtol=1e-6)


def test_arcsin_of_pass_at_one_is_arcsin():
    t = np.linspace(0.01, 0.99, 50)
    one, plain = surrogates.get("arcsin_pass_at_k", k=1), surrogates.get("arcsin")
    np.testing.assert_allclose(one.value(t), plain.value(t), rtol=1e-13)
    np.testing.assert_allclose(one.slope(t), plain.slope(t), rtol=1e-13)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_polynomial_and_series_are_those_of_the_slope(name, params):
    h = surrogates.get(name, **params)
    t = np.linspace(0.1, 0.9, 9)
    if h.bernstein is not None:
        degree = len(h.bernstein) - 1
        assert h.bernstein[0] == h.slope(0.0)
        fit = np.polynomial.Polynomial.fit(t, h.slope(t), min(degree, 8))
        if degree <= 8:
            np.testing.assert_allclose(fit(t), h.slope(t), atol=1e-12)
    if h.series is not None:
        at_one, at_zero = h.series(800)
        total = np.polynomial.polynomial.polyval(1 - t, at_one)
        total += np.polynomial.polynomial.polyval(t, at_zero)
        np.testing.assert_allclose(total, h.slope(t), rtol=1e-12, atol=1e-14)


def test_refused():
    with pytest.raises(ValueError, match="did you mean 'arcsin'"):
        surrogates.get("arcsine")
    with pytest.raises(ValueError, match="needs the parameter 'k'"):
        surrogates.get("pass_at_k")
    with pytest.raises(ValueError, match="takes no parameters"):
        surrogates.get("log", k=2)
    for k in (0, -1, 1.5, True, "4"):
        with pytest.raises(ValueError, match="k="):
            surrogates.get("arcsin_pass_at_k", k=k)
