"""Schedules: families by step, mixtures, and no compilation when they change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import (
    advantages,
    from_surrogate,
    induced_surrogate,
    schedules,
    surrogates,
    table_family,
)
from jaxrl_surrogate.telemetry import compiles

GRID = np.linspace(0, 1, 9)


def family(name, size=8, **params):
    return table_family(advantages.get(name, **params).table, size)


def slope(tables):
    return induced_surrogate(tables.table()).slope(GRID)


def test_log_to_identity():
    log = surrogates.get("log")
    start = table_family(lambda n: from_surrogate(log, n), 8)
    end = family("rloo")
    schedule = schedules.interpolate(start, end, 10, 110)
    assert schedule.group_size == 8
    for step, share in ((1, 0), (10, 0), (35, 0.25), (60, 0.5), (110, 1), (999, 1)):
        expected = (1 - share) * slope(start) + share
        np.testing.assert_allclose(slope(schedule(step)), expected, rtol=1e-12)
    assert schedule(1) is start
    assert schedule(110) is end
    cosine = schedules.interpolate(start, end, 1, 101, shape="cosine")
    np.testing.assert_allclose(slope(cosine(51)), slope(schedule(60)), rtol=1e-12)
    assert (slope(cosine(11)) > slope(schedule(20)))[:4].all()
    hold = schedules.interpolate(start, end, 1, 100, shape="hold")
    assert hold(99) is start
    assert hold(100) is end


def test_every_group_size_of_a_mixture_is_mixed():
    start, end = family("maxrl"), family("rloo_pass_at_k", k=3)
    mixed = schedules.interpolate(start, end, 1, 5)(2)
    for size in range(1, 9):
        expected = 0.75 * start.table(size) + 0.25 * end.table(size)
        np.testing.assert_allclose(mixed.table(size).correct, expected.correct)
        np.testing.assert_allclose(mixed.table(size).incorrect, expected.incorrect)


def test_annealing_k():
    schedule = schedules.anneal_k(8, start=4, end=1, begin_step=10, end_step=40)
    for step, k in ((1, 4), (10, 4), (20, 3), (30, 2), (40, 1), (99, 1)):
        wanted = surrogates.get("pass_at_k", k=k)
        np.testing.assert_allclose(
            slope(schedule(step)), wanted.slope(GRID), rtol=0, atol=1e-12
        )
        # Without kinks, and a group of one sample serves pass@1 alone.
    between = slope(schedule(25))
    expected = (3 * (1 - GRID) ** 2 + 2 * (1 - GRID)) / 2
    np.testing.assert_allclose(between, expected, rtol=0, atol=1e-12)
    hold = schedules.anneal_k(8, 1, 8, 1, 71, shape="hold")
    assert [hold(step).table().gap[0].round() for step in (1, 10, 11, 70, 71)] == [
        1, 1, 2, 7, 8,
    ]  # fmt: skip
    assert schedules.anneal_k(8, 2, 2, 1, 10)(5).table().gap[0] == pytest.approx(2)
    own = schedules.anneal_k(
        8, 2, 1, 1, 10, make_family=lambda k: family("grpo_pass_at_k", k=k)
    )
    np.testing.assert_allclose(slope(own(10)), slope(family("grpo")), rtol=1e-12)


def test_piecewise_and_constant():
    parts = [family("rloo"), family("grpo"), family("maxrl")]
    schedule = schedules.piecewise(parts, [1, 10, 30])
    assert [parts.index(schedule(step)) for step in (1, 9, 10, 29, 30, 31)] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert schedules.constant(parts[0])(12345) is parts[0]


def test_a_schedule_compiles_once(random):
    schedule = schedules.get(
        "anneal_k", group_size=8, start=5, end=1, begin_step=2, end_step=30
    )
    traces = []

    @jax.jit
    def step(weights, objective, rewards, mask):
        traces.append(None)
        return weights - 0.1 * (objective(rewards, mask) * rewards).mean()

    rewards = jnp.asarray(random.integers(0, 2, (4, 8)), jnp.float32)
    mask = jnp.ones((4, 8), bool)
    weights = step(jnp.zeros(()), schedule(1), rewards, mask)
    before = compiles.compile_count()
    other = schedules.interpolate(family("grpo"), family("maxrl"), 1, 10, "cosine")
    results = []
    for number in range(1, 41):
        weights = step(weights, schedule(number), rewards, mask)
        weights = step(weights, other(number), rewards, mask)
        results.append(float(weights))
    assert compiles.compile_count() == before
    assert len(traces) == step._cache_size() == 1
    # The counter does count, and the family is read, not baked in.
    jax.jit(lambda x: x * 3.25 + 1)(weights)
    assert compiles.compile_count() > before
    changes = np.diff(results)
    assert len({round(float(x), 6) for x in changes[:20]}) > 10


def test_refused():
    one, other = family("rloo"), family("rloo", size=4)
    for wrong, message in (
        (lambda: schedules.interpolate(one, one, 10, 10), "steps="),
        (lambda: schedules.interpolate(one, one, 0, 10), "from 1 on"),
        (lambda: schedules.interpolate(one, other, 1, 10), r"one group size.*\[4, 8\]"),
        (lambda: schedules.interpolate(one, one, 1, 10, "square"), "shape='square'"),
        (lambda: schedules.piecewise([one], [1, 5]), "steps="),
        (lambda: schedules.piecewise([], []), "at least one"),
        (lambda: schedules.anneal_k(8, 0, 4, 1, 10), "start=0"),
        (lambda: schedules.anneal_k(8, 9, 4, 1, 10), "groups of 9 or more"),
        (lambda: schedules.constant(one)(0), "step=0: expected 1"),
        (lambda: schedules.get("anneal"), "did you mean anneal_k"),
        (lambda: schedules.get("constant"), "needs the parameter 'family'"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    assert set(schedules.names()) == {
        "constant",
        "interpolate",
        "piecewise",
        "anneal_k",
    }
