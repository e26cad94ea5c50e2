"""Every rule and every surrogate at group sizes where binomials leave float64."""

import inspect
import math
import warnings

import numpy as np
import pytest
from surrogate_variants import VARIANTS

from jaxrl_surrogate.lab.analysis import analyse
from jaxrl_surrogate.objectives import (
    advantages,
    combine,
    from_surrogate,
    induced_surrogate,
    surrogates,
)

SIZES = (1031, 2048, 4096)
RATES = np.array([0.0, 1e-3, 0.5, 0.999, 1.0])


@pytest.fixture(autouse=True)
def _no_overflow():
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise"):
        warnings.simplefilter("error")
        yield


def _parameters(name, size):
    """Small, middling and the largest values of what has to be given."""
    required = [
        field
        for field, default in advantages.parameters(name).items()
        if default is inspect.Parameter.empty
    ]
    if not required:
        return [{}]
    values = {1, 2, 32, size // 2, size - 1, size}
    if name == "full_sampling_pass_at_k":
        values = {k for k in values if size % k == 0 and 2 * k <= size}
    elif name not in ("pass_at_k", "pkpo", "rloo_pass_at_k", "truncated_maxrl"):
        values -= {size}
    [field] = required
    return [{field: value} for value in sorted(values)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", advantages.names())
def test_rules_are_finite(name, size):
    for params in _parameters(name, size):
        table = advantages.table(name, size, **params)
        assert np.isfinite([table.correct, table.incorrect]).all()
        induced = induced_surrogate(table)
        assert np.isfinite(induced.slope(RATES)).all()
        assert np.isfinite(induced.value(RATES)).all()


@pytest.mark.parametrize("name", ["nemo:grpo", "maxrl:pkpo", "prime_rl:max_rl"])
def test_rules_of_other_trainers_are_finite(name):
    params = {"k": 600} if name == "maxrl:pkpo" else {}
    table = advantages.table(name, 1031, **params)
    assert np.isfinite(induced_surrogate(table).slope(RATES)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", VARIANTS)
def test_surrogates_give_finite_weights(name, size):
    variants = list(VARIANTS[name])
    [field] = {field for params in variants for field in params} & {"k", "order"} or [0]
    if field:
        variants += [{field: size}, {field: 5 * size}]
    for params in variants:
        h = surrogates.get(name, **params)
        assert np.isfinite(h.slope(RATES[1:-1])).all()
        for method in ("kantorovich", "bernstein", "plug_in", "taylor", "exact"):
            try:
                table = from_surrogate(h, size, method=method)
            except ValueError as error:
                assert "expected h and h' finite" not in str(error)
                assert method in ("taylor", "exact")
            else:
                assert np.isfinite(table.gap).all()


def test_closed_forms_of_cut_series():
    """Coefficients by exact integers, at a degree where those still fit."""
    for name, weight in (
        ("truncated_log", lambda j: 1),
        ("sum_pass_at_k", lambda j: j),
    ):
        n = 11
        wanted = [
            sum(
                weight(i + 1) * math.comb(n - s, i) / math.comb(n, i)
                for i in range(n - s + 1)
            )
            for s in range(n + 1)
        ]
        found = surrogates.get(name, order=n + 1).bernstein
        np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_the_report_on_a_rule():
    found = analyse(advantages.table("rejection_sampling", 1031))
    assert found.fits[0].name == "truncated_log:order=1031"
    assert found.fits[0].distance < 1e-9
    assert found.certificate.exact
    assert np.isfinite(found.slope).all()


def test_a_sum_with_a_polynomial_of_large_degree():
    steep = combine.at_k(surrogates.get("power", r=-40), 40)
    assert len(steep.bernstein) == 1640
    both = steep + surrogates.get("log")
    p = np.array([0.1, 0.9])
    np.testing.assert_allclose(both.slope(p), steep.slope(p) + 1 / p)


def test_series_that_cancel_are_refused():
    """t^60 about 1: binomials of 1e17 with both signs; the gap was off by 15."""
    h = surrogates.get("power", r=-20)
    exact = from_surrogate(h, 64, method="exact").gap
    np.testing.assert_allclose(
        from_surrogate(h, 64, method="taylor").gap, exact, atol=1e-9
    )
    for name, params, size in (
        ("power", {"r": -60}, 64),
        ("power", {"r": -1100}, 1101),
        ("beta", {"alpha": 60, "beta": 3}, 64),
    ):
        with pytest.raises(ValueError, match=r"terms of the series .* cancel"):
            from_surrogate(surrogates.get(name, **params), size, method="taylor")
