"""Objectives under a verifier that errs, by enumeration of truths and verdicts."""

import itertools

import numpy as np
import pytest

from jaxrl_surrogate.objectives import advantages, induced_surrogate
from jaxrl_surrogate.objectives.verifier_noise import (
    observed_rate,
    seen_through_noise,
    undo_noise,
)

GRID = np.linspace(0.03, 0.97, 7)
METHODS = [
    ("rloo", {}),
    ("grpo", {}),
    ("rejection_sampling", {}),
    ("pass_at_k", {"k": 3}),
]


def _true_slope(table, p, false_negative, false_positive):
    """d/dp of the expected update, by listing every truth and every verdict.

    The score of a Bernoulli policy is R / p - (1 - R) / (1 - p) with the TRUE R; the
    expected weighted score is the slope of the objective in p.
    """
    size = table.group_size
    total = 0.0
    for truth in itertools.product((0, 1), repeat=size):
        for verdict in itertools.product((0, 1), repeat=size):
            chance = 1.0
            for right, said in zip(truth, verdict, strict=True):
                chance *= p if right else 1 - p
                yes = 1 - false_negative if right else false_positive
                chance *= yes if said else 1 - yes
            count = sum(verdict)
            weights = [
                table.correct[count - 1] if said else table.incorrect[count]
                for said in verdict
            ]
            scores = [1 / p if right else -1 / (1 - p) for right in truth]
            total += chance * np.dot(weights, scores) / size
    return total


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_the_objective_in_the_true_probability(name, params, random):
    table = advantages.table(name, 4, **params)
    rates = random.uniform(0, 0.45, size=2)
    found = induced_surrogate(seen_through_noise(table, *rates))
    for p in GRID:
        assert found.slope(p) == pytest.approx(
            _true_slope(table, p, *rates), rel=1e-10, abs=1e-10
        )


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize(("name", "params"), METHODS)
def test_the_bend_is_undone(name, params, size, random):
    if params.get("k", 0) > size:
        params = {"k": 2}
    table = advantages.table(name, size, **params)
    rates = random.uniform(0, 0.2, size=2)
    wanted, fixed = induced_surrogate(table), undo_noise(table, *rates)
    found = induced_surrogate(seen_through_noise(fixed, *rates))
    np.testing.assert_allclose(found.slope(GRID), wanted.slope(GRID), rtol=1e-7)
    if size == 4:
        for p in GRID[::3]:
            assert _true_slope(fixed, p, *rates) == pytest.approx(
                wanted.slope(p), rel=1e-9
            )


def test_a_perfect_verifier_changes_nothing():
    table = advantages.table("grpo", 8)
    np.testing.assert_allclose(seen_through_noise(table, 0, 0).gap, table.gap)
    np.testing.assert_allclose(undo_noise(table, 0, 0).gap, table.gap)
    assert observed_rate(0.3, 0.1, 0.2) == pytest.approx(0.2 + 0.7 * 0.3)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((-0.1, 0), "false_negative=-0.1"),
        ((0, 1.0), r"false_positive=1\.0"),
        ((0.5, 0.5), "sum below 1"),
    ],
)
def test_rates_that_say_nothing_are_refused(rates, words):
    with pytest.raises(ValueError, match=words):
        undo_noise(advantages.table("rloo", 2), *rates)


@pytest.mark.parametrize("size", [64, 96, 128, 300])
@pytest.mark.parametrize(
    ("name", "params"), [("pass_at_k", {"k": 4}), ("rloo", {}), ("pkpo", {"k": 12})]
)
def test_low_degrees_are_undone_in_large_groups(name, params, size):
    """pass@4 at rates 0.1 and 0.2 was off by 2.7e3 in groups of 128."""
    table = advantages.table(name, size, **params)
    fixed = undo_noise(table, 0.1, 0.2)
    p = np.linspace(0, 1, 41)
    # Through the noise by the chain rule: the slope at the observed rate, times 0.7.
    found = 0.7 * induced_surrogate(fixed).slope(0.2 + 0.7 * p)
    wanted = induced_surrogate(table).slope(p)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * wanted.max())


@pytest.mark.parametrize("name", ["grpo", "maxrl", "rejection_sampling", "mmpo"])
def test_what_rounding_would_spoil_is_refused(name):
    """At every size the slope is correct to 1e-5 of its largest, or it is refused."""
    p = np.linspace(0, 1, 41)
    refused = []
    for size in (8, 32, 64, 80, 96, 128, 256):
        table = advantages.table(name, size)
        try:
            fixed = undo_noise(table, 0.15, 0.2)
        except ValueError as error:
            assert f"group size {size}" in str(error) and "rounding" in str(error)
            refused.append(size)
            continue
        found = 0.65 * induced_surrogate(fixed).slope(0.2 + 0.65 * p)
        wanted = induced_surrogate(table).slope(p)
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert 8 not in refused
    if name == "grpo":
        assert set(refused) >= {96, 128, 256} and 32 not in refused
