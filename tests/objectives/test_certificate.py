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

    def power(t):
        return 1 - (1 - t) ** 5

    # Values at points do not show that a function is a polynomial; its degree does.
    table = advantages.table("pass_at_k", 8, k=5)
    found = certify(table, surrogates.from_callable(power))
    assert not found.exact and found.whole.slope < 1e-12
    assert "found on a mesh, not proven" in str(found)
    assert certify(table, surrogates.from_callable(power, degree=4)).exact
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
    # GRPO with 2 and 3 samples ascends a line: its slope settles from 4 on.
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


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("log", {}),
        ("arcsin", {}),
        ("logit", {}),
        ("power", {"r": 2.5}),
        ("pass_at_k", {"k": 3}),
        ("pass_at_k", {"k": 300}),
        ("truncated_log", {"order": 64}),
    ],
)
def test_bounds_hold_and_are_tight(name, params, size, random):
    """At points between those of the mesh; the tables have nothing to do with h."""
    h = surrogates.get(name, **params)
    table = WeightTable(*random.normal(size=(2, size)))
    found = certify(table, h)
    induced = induced_surrogate(table)
    shift = h.value(found.aligned_at) - induced.value(found.aligned_at)
    assert found.inside.proven
    for part in (found.inside, found.whole):
        t = random.uniform(*part.interval, size=20_000)
        slope = np.abs(induced.slope(t) - h.slope(t)).max()
        value = np.abs(induced.value(t) + shift - h.value(t)).max()
        assert slope <= part.slope_bound * (1 + 1e-12)
        assert value <= part.value_bound * (1 + 1e-12)
    assert found.inside.slope_bound <= 1.05 * found.inside.slope + 1e-12
    assert found.inside.value_bound <= 1.05 * found.inside.value + 0.01
    ends = h.slope(np.array([0.0, 1.0]))
    assert np.isfinite(found.whole.slope_bound) == np.isfinite(ends).all()


def test_a_bump_between_the_points_is_not_promised_away():
    """h' = 1 but for a triangle of height 1 and width 1e-7 about p = 0.4321."""
    at, width = 0.4321, 1e-7

    def slope(t):
        return 1 + jnp.maximum(0.0, 1 - jnp.abs(t - at) / width)

    h = surrogates.from_callable(lambda t: t, slope=slope)
    table = advantages.table("rloo", 8)
    assert h.slope(np.array([at]))[0] == pytest.approx(2)
    found = certify(table, h)
    assert found.inside.slope < 0.5, "the mesh met it: make it narrower"
    assert not found.exact and not found.inside.proven
    assert found.inside.slope_bound == np.inf
    assert "not proven" in str(found)
    known = certify(table, h, curvature=1 / width)
    assert known.inside.slope_bound >= 1 and known.inside.proven
    assert "proven to be at most" in str(known)
    smooth = surrogates.from_callable(lambda t: jnp.sin(3 * t) / 3)
    bounded = certify(table, smooth, curvature=3.0)
    assert bounded.whole.slope_bound == pytest.approx(bounded.whole.slope, rel=0.01)
    for curvature in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="curvature="):
            certify(table, smooth, curvature=curvature)
