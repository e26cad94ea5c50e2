"""Sums, multiples, mixtures, pass@k inside, regularisers: values and what is known."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import (
    combine,
    from_surrogate,
    induced_surrogate,
    surrogates,
)

T = np.linspace(0.03, 0.97, 17)
get = surrogates.get


def check(h, value, slope):
    """Values, slopes, and every form in which the slope is known."""
    np.testing.assert_allclose(h.value(T), value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(h.slope(T), slope, rtol=1e-11, atol=1e-12)
    t = jnp.asarray(T)
    np.testing.assert_allclose(jax.jit(h.value)(t), value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(h.value))(t), slope, rtol=1e-3, atol=1e-4
    )
    if h.bernstein is not None:
        got = [oracles.exact_bernstein(h.bernstein, x) for x in T]
        np.testing.assert_allclose(got, slope, rtol=1e-10, atol=1e-11)
    if h.powers is not None:
        total = sum(w * T**a * (1 - T) ** b for w, a, b in h.powers)
        np.testing.assert_allclose(total, slope, rtol=1e-10, atol=1e-11)
    if h.series is not None:
        at_one, at_zero = h.series(1500)
        total = np.polynomial.polynomial.polyval(1 - T, at_one)
        total += np.polynomial.polynomial.polyval(T, at_zero)
        np.testing.assert_allclose(total, slope, rtol=1e-10, atol=1e-11)


def test_sums_and_multiples():
    log, logit, arcsin = get("log"), get("logit"), get("arcsin")
    pass_2, pass_5 = get("pass_at_k", k=2), get("pass_at_k", k=5)
    h = pass_2 - 0.5 * pass_5
    check(
        h,
        pass_2.value(T) - 0.5 * pass_5.value(T),
        pass_2.slope(T) - 0.5 * pass_5.slope(T),
    )
    assert len(h.bernstein) == 5
    assert h.name == "pass_at_k:k=2 - 0.5 * pass_at_k:k=5"
    h = (log + logit) * np.float64(2)
    check(h, 2 * (log.value(T) + logit.value(T)), 2 * (log.slope(T) + logit.slope(T)))
    assert h.bernstein is None
    assert h.series is not None
    assert h.name == "2 * (log + logit)"
    h = log + 3 * arcsin
    check(h, log.value(T) + 3 * arcsin.value(T), log.slope(T) + 3 * arcsin.slope(T))
    assert h.series is None
    assert h.powers is not None
    assert (log + get("entropic", beta=1.0)).powers is None


@pytest.mark.parametrize("method", ["kantorovich", "bernstein", "taylor"])
def test_weights_of_sums_are_sums_of_weights(method):
    # What is capped at an end (log) is capped for the sum as a whole.
    one = get("log") if method == "taylor" else get("entropic", beta=4.0)
    other = get("pass_at_k", k=3)
    table = from_surrogate(one + 2 * other, 8, method=method)
    parts = [from_surrogate(h, 8, method=method) for h in (one, other)]
    expected = parts[0] + 2 * parts[1]
    np.testing.assert_allclose(table.correct, expected.correct, rtol=0, atol=1e-12)


def test_zero_times_infinity_is_nothing():
    h = 0.0 * get("log") + get("identity")
    assert h.value(np.array([0.0, 1.0])).tolist() == [0, 1]
    assert h.slope(np.array([0.0, 1.0])).tolist() == [1, 1]
    assert from_surrogate(h, 4).gap.tolist() == [1, 1, 1, 1]


def test_interpolate():
    log, mean = get("log"), get("identity")
    assert combine.interpolate(log, mean, 0) is log
    assert combine.interpolate(log, mean, 1) is mean
    h = combine.interpolate(log, mean, 0.25)
    check(h, 0.75 * np.log(T) + 0.25 * T, 0.75 / T + 0.25)
    with pytest.raises(ValueError, match=r"share=1\.5"):
        combine.interpolate(log, mean, 1.5)


@pytest.mark.parametrize("k", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("identity", {}),
        ("log", {}),
        ("arcsin", {}),
        ("pass_at_k", {"k": 3}),
        ("pass_hat_k", {"k": 4}),
        ("entropic", {"beta": 2.0}),
        ("entropic", {"beta": -2.0}),
        ("asymmetric", {"delta": 3.0}),
        ("logit", {}),
    ],
)
def test_at_k(name, params, k):
    f = get(name, **params)
    u = -np.expm1(k * np.log1p(-T))
    if name == "logit" or (name == "arcsin" and k == 8):
        rate = 1 - (1 - T) ** k
        h = combine.at_k(f, k)
        slope = k * (1 - T) ** (k - 1) * f.slope(rate)
        inner = T < 0.6  # beyond, the reference itself has lost its digits
        np.testing.assert_allclose(h.slope(T)[inner], slope[inner], rtol=1e-9)
        np.testing.assert_allclose(h.value(T), f.value(u), rtol=1e-12)
        return
    check(combine.at_k(f, k), f.value(u), k * (1 - T) ** (k - 1) * f.slope(u))


def test_at_k_is_what_it_is_known_as():
    pairs = [
        (combine.at_k(get("identity"), 4), get("pass_at_k", k=4)),
        (combine.at_k(get("log"), 4), get("log_pass_at_k", k=4)),
        (combine.at_k(get("arcsin"), 4) * (1 / 4), get("arcsin_pass_at_k", k=4)),
        (combine.at_k(get("pass_at_k", k=2), 3), get("pass_at_k", k=6)),
    ]
    for one, other in pairs:
        np.testing.assert_allclose(one.value(T), other.value(T), rtol=1e-11)
        np.testing.assert_allclose(one.slope(T), other.slope(T), rtol=1e-10)
    ends = combine.at_k(get("arcsin"), 4).slope(np.array([0.0, 1.0]))
    assert ends.tolist() == [np.inf, 0]
    composed = combine.at_k(get("pass_hat_k", k=3), 4)
    table = from_surrogate(composed, 12, method="exact")
    slope = induced_surrogate(table).slope(T)
    np.testing.assert_allclose(slope, composed.slope(T), rtol=1e-10, atol=1e-11)
    log_4 = combine.at_k(get("log"), 4)
    gap = from_surrogate(log_4, 8, method="taylor").gap
    named = from_surrogate(get("log_pass_at_k", k=4), 8, method="taylor").gap
    np.testing.assert_allclose(gap, named, rtol=1e-13)
    assert (
        combine.at_k(get("pass_at_k", k=2), 3).params["k"],
        combine.at_k(get("pass_at_k", k=2), 3).params["inner_k"],
    ) == (2, 3)
    with pytest.raises(ValueError, match="k=0"):
        combine.at_k(get("log"), 0)


@pytest.mark.parametrize("regularizer", ["variance", "std", "entropy"])
def test_regularize(regularizer):
    q = 1 - T
    value, slope = {
        "variance": (T * q, 1 - 2 * T),
        "std": (np.sqrt(T * q), (1 - 2 * T) / (2 * np.sqrt(T * q))),
        "entropy": (-T * np.log(T) - q * np.log(q), np.log(q / T)),
    }[regularizer]
    base = get("identity")
    h = combine.regularize(base, regularizer, 0.7)
    check(h, T + 0.7 * value, 1 + 0.7 * slope)
    ends = h.value(np.array([0.0, 1.0]))
    np.testing.assert_allclose(ends, [0, 1], atol=1e-15)
    # A regulariser that is finite at the ends is served by the plug-in.
    assert np.isfinite(from_surrogate(h, 8).gap).all()


def test_hard_examples_by_regularisation():
    # THEORY 5: RLOO times 1 - p is half of pass@2; GRPO times 1 - p adds the deviation.
    h = 0.5 * combine.regularize(get("identity"), "variance", 1.0)
    np.testing.assert_allclose(h.slope(T), 1 - T, rtol=1e-12)
    h = combine.regularize(0.5 * get("arcsin"), "std", 1.0)
    expected = (1 - T) * get("arcsin").slope(T)
    np.testing.assert_allclose(h.slope(T), expected, rtol=1e-12)


def test_refused():
    log = get("log")
    with pytest.raises(ValueError, match="did you mean entropy"):
        combine.regularize(log, "entropie", 1.0)
    with pytest.raises(ValueError, match="weight=nan"):
        combine.regularize(log, "std", np.nan)
    with pytest.raises(ValueError, match="factor=inf"):
        np.inf * log
    for wrong in (lambda: log + 1, lambda: log * log, lambda: log * np.ones(2)):
        with pytest.raises(TypeError):
            wrong()
