"""Slopes at 0 and 1 of every surrogate and every pair, against 60 digits near them."""

import decimal
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from surrogate_variants import VARIANTS

from jaxrl_surrogate.objectives import combine, from_surrogate, inverse, surrogates

D = decimal.Decimal


def _power(base, exponent):
    return base ** D(exponent) if exponent else D(1)


# The slopes once more, of t and q = 1 - t, in decimal numbers.
SLOPES = {
    "identity": lambda t, q: D(1),
    "log": lambda t, q: 1 / t,
    "arcsin": lambda t, q: 1 / (t * q).sqrt(),
    "logit": lambda t, q: 1 / (t * q),
    "pass_at_k": lambda t, q, k: k * _power(q, k - 1),
    "arcsin_pass_at_k": lambda t, q, k: _power(q, D(k) / 2 - 1) / (1 - q**k).sqrt(),
    "asymmetric": lambda t, q, delta: q + t / D(delta),
    "power": lambda t, q, r: _power(t, -D(r)),
    "entropic": lambda t, q, beta: (
        (D(beta).exp() - 1) / D(beta) / (1 + t * (D(beta).exp() - 1))
    ),
    "beta": lambda t, q, alpha, beta: _power(t, D(alpha) - 1) * _power(q, D(beta) - 1),
    "focal": lambda t, q, gamma: _power(q, D(gamma)) / (t * q).sqrt(),
    "log_pass_at_k": lambda t, q, k: k * _power(q, k - 1) / (1 - q**k),
    "pass_hat_k": lambda t, q, k: k * _power(t, k - 1),
    "truncated_log": lambda t, q, order: sum(_power(q, j) for j in range(order)),
    "sum_pass_at_k": lambda t, q, order: sum(
        (j + 1) * _power(q, j) for j in range(order)
    ),
}
REGULARIZERS = {
    "variance": lambda t, q: q - t,
    "std": lambda t, q: (q - t) / (2 * (t * q).sqrt()),
    "entropy": lambda t, q: q.ln() - t.ln(),
}


def _regularized(t, q, base, regularizer, weight, base_params=None):
    inner = SLOPES[base](t, q, **(base_params or {}))
    return inner + D(weight) * REGULARIZERS[regularizer](t, q)


SLOPES["regularized"] = _regularized
PLAIN = [(name, params) for name, variants in VARIANTS.items() for params in variants]
CASES = PLAIN + [
    ("regularized", {"base": base, "regularizer": regularizer, "weight": weight})
    for base in ("identity", "log", "arcsin", "logit")
    for regularizer in REGULARIZERS
    for weight in (0.5, 2.0, -2.0)
]


def _limits(slope):
    """Both limits of a function of (t, q), from values at 1e-40 and 1e-50."""
    with decimal.localcontext() as context:
        context.prec = 200
        out = []
        for swap in (False, True):
            near = []
            for x in (D("1e-40"), D("1e-50")):
                t, q = (1 - x, x) if swap else (x, 1 - x)
                near.append(slope(t, q))
            grows = abs(near[1]) - abs(near[0]) > 1
            out.append(float(near[1]) * (np.inf if grows else 1))
    return out


def _check(surrogate, slope):
    wanted = _limits(slope)
    for ends in (np.array([0.0, 1.0]), jnp.array([0.0, 1.0])):
        found = np.asarray(surrogate.slope(ends), np.float64)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)
        assert surrogate.slope(ends[0]) == found[0]
    on_device = jax.jit(surrogate.slope)(jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(on_device[::2], wanted, rtol=1e-5, atol=1e-8)
    assert on_device[1] == pytest.approx(float(slope(D("0.5"), D("0.5"))), rel=1e-4)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_registered(name, params):
    _check(surrogates.get(name, **params), lambda t, q: SLOPES[name](t, q, **params))


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_sums_of_two(weight):
    """Of every pair of variants; equal terms that are infinite cancel exactly."""
    for (one, params), (other, others) in itertools.combinations(PLAIN, 2):
        first, second = SLOPES[one], SLOPES[other]
        h = surrogates.get(one, **params) + weight * surrogates.get(other, **others)
        wanted = _limits(
            lambda t, q, f=first, g=second, a=params, b=others: (
                f(t, q, **a) + D(weight) * g(t, q, **b)
            )
        )
        found = h.slope(np.array([0.0, 1.0]))
        np.testing.assert_allclose(
            found, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{h.name}"
        )


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("name", "params"), CASES)
def test_of_the_best_of_k(name, params, k):
    """h(1 - q^k), and (h - log)(1 - q^k), where infinite terms may cancel."""

    def slope(t, q):
        return k * q ** (k - 1) * SLOPES[name](1 - q**k, q**k, **params)

    _check(combine.at_k(surrogates.get(name, **params), k), slope)
    inner = surrogates.get(name, **params) - surrogates.get("log")
    found = combine.at_k(inner, k).slope(np.array([0.0, 1.0]))
    wanted = _limits(lambda t, q: slope(t, q) - k * q ** (k - 1) / (1 - q**k))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("base", ["identity", "log", "arcsin", "logit"])
@pytest.mark.parametrize("regularizer", list(REGULARIZERS))
def test_every_method_serves_a_regulariser_or_says_why(base, regularizer):
    h = surrogates.get("regularized", base=base, regularizer=regularizer)
    for size in (1, 2, 9):
        table = from_surrogate(h, size, method="bernstein", baseline="none")
        if size > 1:
            points = np.arange(size) / (size - 1)
            # An infinite end is the slope at the distance 1 / M from it.
            points = np.where(
                np.isinf(h.slope(points)),
                np.clip(points, 1 / size, 1 - 1 / size),
                points,
            )
            np.testing.assert_allclose(table.gap, h.slope(points), rtol=1e-12)
    for method in set(inverse.methods()) - {"bernstein"}:
        try:
            gap = from_surrogate(h, 9, method=method, baseline="none").gap
        except ValueError as error:
            assert "regularized" in str(error)
        else:
            assert np.isfinite(gap).all()
