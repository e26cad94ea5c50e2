"""Projections: best in their norm, better than the other methods there."""

import numpy as np
import pytest

from jaxrl_surrogate.objectives import (
    certify,
    from_surrogate,
    induced_surrogate,
    priors,
    surrogates,
    variance,
)


def project(h, size, **options):
    return from_surrogate(h, size, method="projection", **options)


NAMES = [("log", {}), ("arcsin", {}), ("logit", {}), ("pass_at_k", {"k": 20})]


@pytest.mark.parametrize(("name", "params"), NAMES)
@pytest.mark.parametrize("size", [2, 5, 16])
@pytest.mark.parametrize("prior", [None, (0.5, 2.0)])
def test_least_squares_beats_every_method(name, params, size, prior):
    h = surrogates.get(name, **params)
    table = project(h, size, prior=prior)
    assert (table.gap >= 0).all()
    best = variance.bias_variance(table, h, prior).rms_bias
    for method in ("kantorovich", "bernstein"):
        other = variance.bias_variance(from_surrogate(h, size, method=method), h, prior)
        assert best < other.rms_bias
    # No small change that keeps the sign is better.
    for s in range(size):
        for change in (1e-3, -1e-3):
            moved = table.gap.copy()
            moved[s] = max(moved[s] + change, 0)
            near = type(table)(np.zeros(size), moved)
            assert best <= variance.bias_variance(near, h, prior).rms_bias + 1e-9


@pytest.mark.parametrize(("name", "params"), NAMES)
@pytest.mark.parametrize("size", [4, 16])
def test_the_largest_error_is_least(name, params, size):
    h = surrogates.get(name, **params)
    p = np.linspace(0.2, 0.8, 4001)

    def largest(table):
        return np.abs(induced_surrogate(table).slope(p) - h.slope(p)).max()

    options = {"units": "probability", "interval": (0.2, 0.8)}
    best = largest(project(h, size, norm="sup", **options))
    assert best <= largest(project(h, size, **options)) * 1.001
    assert best < largest(from_surrogate(h, size))


def test_what_is_attainable_is_met():
    h = surrogates.get("pass_at_k", k=4)
    for norm in ("l2", "sup"):
        for units in ("logit", "probability"):
            table = project(h, 12, norm=norm, units=units)
            assert certify(table, h).whole.slope < 1e-4
    assert certify(project(h, 6), h).exact


def test_relative_units_hold_the_ratio():
    h = surrogates.get("log")
    p = np.linspace(0.1, 1, 500)
    options = {"norm": "sup", "interval": (0.1, 1.0)}
    ratio = [
        np.abs(induced_surrogate(project(h, 8, units=u, **options)).slope(p) * p - 1)
        for u in ("relative", "probability")
    ]
    assert ratio[0].max() < ratio[1].max()


def test_noise_is_traded_for_bias():
    h = surrogates.get("log")
    found = [
        variance.bias_variance(project(h, 16, noise=noise, baseline="leave_one_out"), h)
        for noise in (0.0, 1e-3, 1e-1, 1.0)
    ]
    assert (np.diff([x.rms_bias for x in found]) > 0).all()
    assert (np.diff([x.score_variance for x in found]) < 0).all()
    # At v / M: the least sum of both, among methods, for the best known baseline.
    size, v = 16, 3.0
    grid = priors.settle(None, 200)

    def error(table):
        others = np.stack(
            [variance.second_moment(table_of(table.gap, p), p) for p in grid.points]
        )
        return grid.mean(variance.bias(table, h, grid.points) ** 2 + v / size * others)

    def table_of(gap, p):
        return type(found_table)(-p * gap, (1 - p) * gap)

    found_table = project(h, size, noise=v / size)
    best = error(found_table)
    for method in ("kantorovich", "taylor", "bernstein", "projection"):
        assert best < error(from_surrogate(h, size, method=method))


def test_a_grid_of_prompts():
    h = surrogates.get("log")
    p = np.array([0.2, 0.4, 0.9])
    table = project(h, 8, prior=(p, [1, 1, 1]))
    np.testing.assert_allclose(induced_surrogate(table).slope(p), 1 / p, rtol=1e-6)


def test_refused():
    log = surrogates.get("log")
    for options, message in (
        ({"norm": "l1"}, "norm='l1'"),
        ({"units": "nats"}, "units='nats'"),
        ({"noise": -1.0}, "noise=-1"),
        ({"noise": 1.0, "norm": "sup"}, "noise=1.0: adds"),
        ({"interval": (0.5, 0.2)}, "interval="),
        ({"units": "probability"}, "infinite at p = 0"),
        ({"prior": ([0.0, 0.5], [1, 1])}, "not finite at its point p = 0"),
        ({"prior": ([0.5], [1]), "interval": (0.6, 0.9)}, "no point in it"),
    ):
        with pytest.raises(ValueError, match=message):
            project(log, 8, **options)
    with pytest.raises(ValueError, match="not positive"):
        project(
            surrogates.get("regularized", weight=2.0), 8, units="relative", norm="sup"
        )
