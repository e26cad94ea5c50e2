"""Every registered surrogate: slopes, types, ends, names."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from surrogate_variants import VARIANTS

from jaxrl_surrogate.objectives import surrogates

pytestmark = pytest.mark.both_pythons

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
    if params.get("base_params") is None:
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
        ("asymmetric", {"delta": 2}, (0, 0.75), (1, 0.5)),
        ("power", {"r": 0.5}, (-2, 0), (np.inf, 1)),
        ("power", {"r": 2}, (-np.inf, 0), (np.inf, 1)),
        ("power", {"r": -1}, (-0.5, 0), (0, 1)),
        ("entropic", {"beta": np.log(3)}, (0, 1), (2 / np.log(3), 2 / np.log(27))),
        ("beta", {"alpha": 0.5, "beta": 0.5}, (0, np.pi), (np.inf, np.inf)),
        ("beta", {"alpha": 2, "beta": 1}, (0, 0.5), (0, 1)),
        ("focal", {"gamma": 1}, (0, np.pi / 2), (np.inf, 0)),
        ("log_pass_at_k", {"k": 4}, (-np.inf, 0), (np.inf, 0)),
        ("pass_hat_k", {"k": 4}, (0, 1), (0, 4)),
        ("truncated_log", {"order": 3}, (0, 11 / 6), (3, 1)),
        ("sum_pass_at_k", {"order": 3}, (0, 3), (6, 1)),
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
def test_what_is_known_of_the_slope_is_the_slope(name, params):
    h = surrogates.get(name, **params)
    t = np.linspace(0.1, 0.9, 9)
    slopes = h.slope(t)
    if h.bernstein is not None:
        got = [oracles.exact_bernstein(h.bernstein, x) for x in t]
        np.testing.assert_allclose(got, slopes, rtol=1e-12, atol=1e-13)
    if h.series is not None:
        at_one, at_zero = h.series(800)
        assert at_one.shape == at_zero.shape == (800,)
        total = np.polynomial.polynomial.polyval(1 - t, at_one)
        total += np.polynomial.polynomial.polyval(t, at_zero)
        np.testing.assert_allclose(total, slopes, rtol=1e-11, atol=1e-14)
        for part, whole in zip(h.series(3), (at_one, at_zero), strict=True):
            np.testing.assert_allclose(part, whole[:3], rtol=1e-14)
    if h.powers is not None:
        total = sum(w * t**a * (1 - t) ** b for w, a, b in h.powers)
        np.testing.assert_allclose(total, slopes, rtol=1e-12, atol=1e-14)


def test_one_family_inside_another():
    t = np.linspace(0.01, 0.99, 50)
    get = surrogates.get
    pairs = [
        (get("power", r=1), get("log")),
        (get("beta", alpha=0.5, beta=0.5), get("arcsin")),
        (get("focal", gamma=0), get("arcsin")),
        (3 * get("beta", alpha=1, beta=3), get("pass_at_k", k=3)),
        (3 * get("beta", alpha=3, beta=1), get("pass_hat_k", k=3)),
        (get("regularized", weight=1.0), get("pass_at_k", k=2)),
        (get("asymmetric", delta=1), get("identity")),
        (get("truncated_log", order=1), get("identity")),
        (
            get("focal", gamma=1),
            get("regularized", base="arcsin", regularizer="std", weight=2) * 0.5,
        ),
        (
            get("sum_pass_at_k", order=3),
            get("pass_at_k", k=1) + get("pass_at_k", k=2) + get("pass_at_k", k=3),
        ),
    ]
    for one, other in pairs:
        np.testing.assert_allclose(one.slope(t), other.slope(t), rtol=1e-12)
        np.testing.assert_allclose(one.value(t), other.value(t), rtol=0, atol=1e-12)


def test_from_callable(random):
    t = random.uniform(0.05, 0.95, (3, 2))
    h = surrogates.from_callable(lambda x: 2 * jnp.arcsin(jnp.sqrt(x)))
    arcsin = surrogates.get("arcsin")
    assert h.slope(t).dtype == np.float64
    assert h.name == "custom"
    np.testing.assert_allclose(h.value(t), arcsin.value(t), rtol=1e-13)
    np.testing.assert_allclose(h.slope(t), arcsin.slope(t), rtol=1e-13)
    assert np.isinf(h.slope(np.array([0.0, 1.0]))).all()
    on_device = jax.jit(h.slope)(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(on_device, arcsin.slope(t), rtol=1e-5)
    assert np.shape(h.value(0.5)) == np.shape(h.slope(jnp.asarray(0.5))) == ()


def test_from_callable_with_a_slope_and_a_degree(random):
    c = random.normal(size=5)

    def quartic(x):
        return jnp.polyval(jnp.asarray(c), x)

    h = surrogates.from_callable(quartic, degree=3)
    assert h.name == "quartic"
    assert h.bernstein.shape == (4,)
    t = random.uniform(size=9)
    wanted = np.polyval(np.polyder(c), t)
    got = [oracles.exact_bernstein(h.bernstein, x) for x in t]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match=r"degree=1: .*no polynomial"):
        surrogates.from_callable(lambda x: x**3 + 1e-3 * x**4, degree=1)
    with pytest.raises(ValueError, match="degree=-1"):
        surrogates.from_callable(quartic, degree=-1)
    bend = surrogates.from_callable(
        lambda x: jnp.minimum(x, 0.5), slope=lambda x: jnp.where(x < 0.5, 1.0, 0.0)
    )
    assert bend.slope(np.array([0.25, 0.5, 0.75])).tolist() == [1, 0, 0]


def test_refused():
    with pytest.raises(ValueError, match="did you mean arcsin"):
        surrogates.get("arcsine")
    with pytest.raises(ValueError, match="needs the parameter 'k'"):
        surrogates.get("pass_at_k")
    with pytest.raises(ValueError, match="takes no parameters"):
        surrogates.get("log", k=2)
    for k in (0, -1, 1.5, True, "4"):
        with pytest.raises(ValueError, match="k="):
            surrogates.get("arcsin_pass_at_k", k=k)
    for name, field, wrong in (
        ("asymmetric", "delta", (0, -1, "x")),
        ("power", "r", (np.nan, np.inf, True)),
        ("entropic", "beta", (0, 1e4, np.nan)),
        ("focal", "gamma", (-0.5, -1)),
        ("truncated_log", "order", (0, 1.5)),
        ("sum_pass_at_k", "order", (0, True)),
    ):
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{field}="):
                surrogates.get(name, **{field: value})
    with pytest.raises(ValueError, match=r"^alpha=0"):
        surrogates.get("beta", alpha=0, beta=1)
    with pytest.raises(ValueError, match="did you mean variance"):
        surrogates.get("regularized", regularizer="varience")
