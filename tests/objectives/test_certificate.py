"""Certificates: suprema against dense grids, exactness, where an objective falls."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import (
    WeightTable,
    advantages,
    certify,
    from_surrogate,
    induced_surrogate,
    surrogates,
)

DENSE = np.linspace(0, 1, 200_001)


@pytest.mark.parametrize("size", [2, 7, 32])
@pytest.mark.parametrize(
    ("name", "params", "anchor"),
    [
        ("arcsin", {}, 0),
        ("log", {}, 1),
        ("logit", {}, 0.5),
        ("pass_at_k", {"k": 40}, 0),
    ],
)
def test_suprema(name, params, anchor, size):
    h = surrogates.get(name, **params)
    table = from_surrogate(h, size)
    found = certify(table, h)
    assert found.aligned_at == anchor
    induced = induced_surrogate(table)
    shift = h.value(anchor) - induced.value(anchor)
    for part in (found.inside, found.whole):
        low, high = part.interval
        t = DENSE[(low <= DENSE) & (high >= DENSE)]
        slope = np.abs(induced.slope(t) - h.slope(t))
        value = np.abs(induced.value(t) + shift - h.value(t))
        for got, where, mesh, fn in (
            (part.slope, part.slope_at, slope, lambda x: induced.slope(x) - h.slope(x)),
            (
                part.value,
                part.value_at,
                value,
                lambda x: induced.value(x) + shift - h.value(x),
            ),
        ):
            assert got >= mesh.max() * (1 - 1e-9)
            if np.isfinite(got):
                assert got == pytest.approx(abs(fn(where)), rel=1e-9)
                assert low <= where <= high
                assert got <= mesh.max() * (1 + 1e-3) + 1e-12
    assert found.whole.interval == (0, 1)
    near = max(size, 4)
    assert found.inside.interval == (1 / near, 1 - 1 / near)


def test_exact():
    h = surrogates.get("pass_at_k", k=5)
    found = certify(from_surrogate(h, 5, method="exact"), h)
    assert found.exact
    assert found.whole.slope < 1e-12
    assert "exact" in str(found)
    assert not certify(from_surrogate(h, 8), h).exact
    # Near to rounding is not exact where the degree is known to be too large.
    assert not certify(advantages.table("rloo_pass_at_k", 8, k=7), h).exact
    same = surrogates.from_callable(lambda t: 1 - (1 - t) ** 5)
    assert certify(advantages.table("pass_at_k", 8, k=5), same).exact
    assert certify(advantages.table("rloo", 1 + 1), surrogates.get("identity")).exact


def test_where_an_objective_falls():
    # h_M' = (1 - 2 t)(1 - t), degree 2.
    gap = np.array([1.0, -0.5, 0.0])
    found = certify(WeightTable(np.zeros(3), gap), surrogates.get("identity"))
    assert not found.monotone
    [(low, high)] = found.decreasing
    assert low == pytest.approx(0.5, abs=1e-6)
    assert high == pytest.approx(1, abs=1e-6)
    assert found.steepest == pytest.approx(1)
    assert "decreases on (0.5, 1)" in str(found)
    # A negative gap alone does not make a negative slope.
    found = certify(
        WeightTable(np.zeros(3), np.array([1.0, -0.5, 1.0])), surrogates.get("identity")
    )
    assert found.monotone
    # Two intervals, one of them inside.
    h = surrogates.from_callable(lambda t: jnp.cos(9 * t))
    found = certify(from_surrogate(h, 64), h)
    assert [round(edge, 2) for span in found.decreasing for edge in span] == (
        pytest.approx([0, np.pi / 9, 2 * np.pi / 9, 1], abs=0.03)
    )
    zero = WeightTable(np.zeros(4), np.zeros(4))
    assert certify(zero, surrogates.get("identity")).monotone


def test_an_interval_of_the_user():
    h, table = surrogates.get("log"), advantages.table("maxrl", 8)
    found = certify(table, h, (0.5, 1.0)).inside
    assert found.slope_at == 0.5
    assert found.slope == pytest.approx(0.5**7 / 0.5)
    for interval in ((0.5, 0.5), (0.9, 0.1), (-1, 1)):
        with pytest.raises(ValueError, match="interval="):
            certify(table, h, interval)


@pytest.mark.parametrize(
    ("method", "name"), [("grpo", "arcsin"), ("rejection_sampling", "log")]
)
def test_convergence_to_the_limit(method, name):
    h = surrogates.get(name)
    errors, slopes = [], []
    for size in (2**j for j in range(1, 9)):
        found = certify(advantages.table(method, size), h, (0.1, 0.9))
        errors.append(found.inside.value)
        slopes.append(found.inside.slope)
    assert (np.diff(errors) < 0).all()
    # GRPO with 2 and 3 samples climbs a line: its slope settles from 4 on.
    assert (np.diff(slopes[1:]) < 0).all()
    if name == "log":
        # h_M - log is a constant up to q^M: aligned at 1, the tail of a series.
        assert errors[-1] < 1e-11
    else:
        # pi + 2 zeta(1/2) / sqrt(M): half of the whole error is missed at each end.
        whole = [certify(advantages.table(method, 2**j), h).whole for j in (3, 6)]
        np.testing.assert_allclose([x.value for x in whole], [1.04, 0.37], atol=0.01)
        missing = np.pi - induced_surrogate(advantages.table(method, 256)).value(1.0)
        assert missing == pytest.approx(2.9207 / 16, rel=0.02)
