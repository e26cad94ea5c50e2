"""From surrogates to tables: every method against what defines it."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import (
    Surrogate,
    WeightTable,
    advantages,
    from_surrogate,
    induced_surrogate,
    inverse,
    surrogates,
    table_family,
)

pytestmark = pytest.mark.both_pythons

GRID = oracles.GRID


def same(one, other, tolerance=1e-13):
    np.testing.assert_allclose(one.incorrect, other.incorrect, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.correct, other.correct, rtol=0, atol=tolerance)


class TestExact:
    @pytest.mark.parametrize("size", [2, 4, 8, 32])
    def test_round_trip_of_random_polynomials(self, size, random):
        for degree in {0, 1, size // 2, size - 1}:
            gap = random.normal(size=degree + 1)
            wanted = induced_surrogate(WeightTable(np.zeros(degree + 1), gap))
            for baseline in ("none", "leave_one_out"):
                table = from_surrogate(wanted, size, method="exact", baseline=baseline)
                got = induced_surrogate(table)
                np.testing.assert_allclose(got.slope(GRID), wanted.slope(GRID), 1e-9)
                np.testing.assert_allclose(
                    got.value(GRID), wanted.value(GRID), rtol=0, atol=1e-12
                )

    @pytest.mark.parametrize("size", [2, 4, 8])
    def test_named_polynomials(self, size):
        identity = surrogates.get("identity")
        table = from_surrogate(identity, size, method="exact")
        same(table, advantages.table("rloo", size))
        for k in range(1, size + 1):
            wanted = surrogates.get("pass_at_k", k=k)
            table = from_surrogate(wanted, size, method="exact")
            same(table, advantages.table("rloo_pass_at_k", size, k=k))
            table = from_surrogate(wanted, size, method="exact", baseline="none")
            same(table, advantages.table("pass_at_k", size, k=k))
            slope = induced_surrogate(table).slope(GRID)
            np.testing.assert_allclose(slope, wanted.slope(GRID), rtol=0, atol=1e-10)
            value = induced_surrogate(table).value(GRID)
            np.testing.assert_allclose(value, wanted.value(GRID), rtol=0, atol=1e-10)

    def test_refused(self):
        with pytest.raises(ValueError, match=r"degree 15.*groups of 16 or more"):
            from_surrogate(surrogates.get("pass_at_k", k=16), 8, method="exact")
        for name in ("log", "arcsin", "logit"):
            with pytest.raises(ValueError, match="not known to be a polynomial"):
                from_surrogate(surrogates.get(name), 8, method="exact")


class TestTaylor:
    @pytest.mark.parametrize("size", [1, 2, 8, 64])
    def test_log_is_rejection_sampling(self, size):
        log = surrogates.get("log")
        table = from_surrogate(log, size, method="taylor", baseline="none")
        same(table, advantages.table("rejection_sampling", size), 1e-12)

    @pytest.mark.parametrize("size", [2, 8])
    def test_logit(self, size):
        table = from_surrogate(surrogates.get("logit"), size, method="taylor")
        p, q = GRID, 1 - GRID
        expected = (1 - q**size) / p + (1 - p**size) / q
        np.testing.assert_allclose(induced_surrogate(table).slope(p), expected, 1e-12)

    def test_polynomials_are_exact(self):
        for k in (1, 3, 8):
            surrogate = surrogates.get("pass_at_k", k=k)
            exact = from_surrogate(surrogate, 8, method="exact")
            same(from_surrogate(surrogate, 8, method="taylor"), exact)

    def test_arcsin_of_pass_at_even_k(self):
        surrogate = surrogates.get("arcsin_pass_at_k", k=2)
        p = np.array([0.3, 0.6, 0.9])
        errors = []
        for size in (4, 8, 16, 32, 64):
            induced = induced_surrogate(
                from_surrogate(surrogate, size, method="taylor")
            )
            gap = surrogate.slope(p) - induced.slope(p)
            assert (gap > 0).all()
            errors.append(gap.max())
        assert (np.diff(errors) < 0).all()
        assert errors[-1] < 1e-6

    def test_refused(self):
        for params in ({}, {"k": 3}):
            name = "arcsin_pass_at_k" if params else "arcsin"
            with pytest.raises(ValueError, match="no known power series"):
                from_surrogate(surrogates.get(name, **params), 8, method="taylor")
        with pytest.raises(ValueError, match="no term of degree below 8"):
            from_surrogate(surrogates.get("pass_at_k", k=16), 8, method="taylor")


class TestPlugIns:
    @pytest.mark.parametrize("size", [1, 2, 8, 32])
    @pytest.mark.parametrize(
        ("name", "params"),
        [
            ("identity", {}),
            ("arcsin", {}),
            ("pass_at_k", {"k": 4}),
            ("pass_at_k", {"k": 64}),
            ("arcsin_pass_at_k", {"k": 8}),
        ],
    )
    def test_kantorovich_is_the_expected_plug_in_value(self, name, params, size):
        surrogate = surrogates.get(name, **params)
        table = from_surrogate(surrogate, size, baseline="none")
        assert (table.gap >= 0).all()
        values = surrogate.value(np.arange(size + 1) / size)
        induced = induced_surrogate(table)
        for p in GRID:
            expected = oracles.exact_bernstein(values, p) - values[0]
            assert abs(induced.value(p) - expected) < 1e-12

    def test_kantorovich_arcsin_is_nearer_than_grpo(self):
        t = np.linspace(0, 1, 2001)
        arcsin = surrogates.get("arcsin")
        errors = [
            np.abs(
                induced_surrogate(from_surrogate(arcsin, size)).value(t)
                - arcsin.value(t)
            ).max()
            for size in (8, 64)
        ]
        np.testing.assert_allclose(errors, [0.19, 0.068], atol=0.005)

    @pytest.mark.parametrize("size", [2, 8, 32])
    def test_bernstein_is_the_slope_at_the_leave_one_out_rate(self, size):
        surrogate = surrogates.get("pass_at_k", k=5)
        table = from_surrogate(surrogate, size, method="bernstein")
        rate = np.arange(size) / (size - 1)
        # The leave-one-out plug-in of the theory: h'(rate) (R - rate).
        same(table, WeightTable(*(surrogate.slope(rate) * (r - rate) for r in (0, 1))))

    @pytest.mark.parametrize("size", [2, 5, 8])
    @pytest.mark.parametrize(
        ("surrogate", "rule"),
        [("identity", "dr_grpo"), ("log", "maxrl"), ("arcsin", "grpo"),
         ("logit", "variance_grpo")],
    )  # fmt: skip
    def test_plug_in_is_the_rule_of_the_group_mean(self, surrogate, rule, size):
        h = surrogates.get(surrogate)
        expected = size / (size - 1) * advantages.table(rule, size)
        same(from_surrogate(h, size, method="plug_in", baseline="zero_sum"), expected)
        table = from_surrogate(h, size, method="plug_in")
        np.testing.assert_allclose(table.gap, expected.gap, rtol=1e-13, atol=1e-13)

    def test_plug_in_takes_any_slope(self):
        h = surrogates.get("pass_at_k", k=6)
        got = from_surrogate(h, 4, method="plug_in", baseline="zero_sum")
        same(got, advantages.table("plugin_pass_at_k", 4, k=6))
        with pytest.raises(ValueError, match="group_size=1"):
            from_surrogate(h, 1, method="plug_in", baseline="none")

    @pytest.mark.parametrize("method", ["kantorovich", "bernstein"])
    @pytest.mark.parametrize("size", [2, 3, 8, 64])
    def test_unbounded_ends(self, method, size):
        for name in ("log", "logit", "arcsin", "arcsin_pass_at_k"):
            params = {"k": 4} if name == "arcsin_pass_at_k" else {}
            surrogate = surrogates.get(name, **params)
            gap = from_surrogate(surrogate, size, method=method).gap
            assert np.isfinite(gap).all()
            assert (gap > 0).all() or name == "arcsin_pass_at_k"
            if name == "log":
                assert gap[0] == pytest.approx(size)
                assert (np.diff(gap) < 0).all()
            if name == "logit":
                np.testing.assert_allclose(gap, gap[::-1], rtol=1e-9)
                assert gap[0] == pytest.approx(size**2 / (size - 1))

    @pytest.mark.parametrize("method", ["kantorovich", "bernstein"])
    def test_scaling_a_surrogate_scales_its_table(self, method):
        for name, params in (("arcsin", {}), ("log", {}), ("pass_at_k", {"k": 4})):
            h = surrogates.get(name, **params)
            scaled = Surrogate(
                lambda t, h=h: 3 * h.value(t), lambda t, h=h: 3 * h.slope(t)
            )
            expected = 3 * from_surrogate(h, 8, method=method)
            same(from_surrogate(scaled, 8, method=method), expected, 1e-12)

    def test_groups_of_one(self):
        for name, slope in (("log", 2), ("logit", 4), ("identity", 1)):
            for method in ("kantorovich", "bernstein"):
                table = from_surrogate(
                    surrogates.get(name), 1, method=method, baseline="none"
                )
                np.testing.assert_allclose(table.correct, [slope], rtol=1e-12)

    def test_a_jax_function_as_surrogate(self):
        h = Surrogate(jnp.tanh, lambda t: 1 - jnp.tanh(t) ** 2, name="tanh")
        table = from_surrogate(h, 4, baseline="none")
        expected = 4 * np.diff(np.tanh(np.arange(5) / 4))
        np.testing.assert_allclose(table.correct, expected, rtol=0, atol=1e-14)


def test_leave_one_out_centres_unmixed_groups(random):
    h = Surrogate(lambda t: t**2, lambda t: 2 * t, name="square")
    table = from_surrogate(h, 8)
    assert table.incorrect[0] == table.correct[-1] == 0
    plain = from_surrogate(h, 8, baseline="none")
    np.testing.assert_allclose(table.gap, plain.gap, rtol=1e-14)


def test_refused():
    log = surrogates.get("log")
    with pytest.raises(ValueError, match="did you mean kantorovich"):
        from_surrogate(log, 8, method="kantorowich")
    with pytest.raises(ValueError, match="did you mean leave_one_out"):
        from_surrogate(log, 8, baseline="leave_one")
    with pytest.raises(ValueError, match="group_size=1"):
        from_surrogate(log, 1)
    with pytest.raises(ValueError, match="group_size=0"):
        from_surrogate(log, 0)
    broken = Surrogate(lambda t: np.log(t - 0.5), lambda t: 1 / (t - 0.5))
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="finite inside"):
        from_surrogate(broken, 8)


def scalars(low, high):
    return st.floats(low, high, allow_subnormal=False)


@hypothesis.given(
    st.lists(scalars(-5, 5), min_size=1, max_size=9),
    st.integers(0, 5),
    st.sampled_from(["none", "leave_one_out", "min_variance"]),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_polynomials_come_back(coefficients, more, baseline):
    powers = np.array(coefficients)
    wanted = surrogates.from_callable(
        lambda t: jnp.polyval(jnp.asarray(np.polyint(powers)), t),
        degree=len(powers) - 1,
    )
    size = len(powers) + more + (baseline == "leave_one_out")
    table = from_surrogate(wanted, size, method="exact", baseline=baseline)
    got = induced_surrogate(table)
    t = np.linspace(0, 1, 7)
    slopes = np.polyval(powers, t)
    scale = 1 + np.abs(powers).sum()
    np.testing.assert_allclose(got.slope(t), slopes, rtol=0, atol=1e-10 * scale)
    values = np.polyval(np.polyint(powers), t)
    np.testing.assert_allclose(got.value(t), values, rtol=0, atol=1e-10 * scale)


@hypothesis.given(st.lists(scalars(0, 3), min_size=2, max_size=8), st.integers(1, 24))
@hypothesis.settings(deadline=None, max_examples=40)
def test_increasing_surrogates_keep_increasing(steps, size):
    # Piecewise linear, with flat stretches and kinks.
    knots = np.concatenate([[0.0], np.cumsum(steps)])
    places = np.linspace(0, 1, len(knots))
    h = Surrogate(
        lambda t: np.interp(t, places, knots),
        lambda t: (
            np.array(steps)[np.minimum(np.int_(t * len(steps)), len(steps) - 1)]
            * len(steps)
        ),
        name="steps",
    )
    methods = ["kantorovich", "bernstein", "projection"]
    methods += ["plug_in"] if size > 1 else []
    for method in methods:
        table = from_surrogate(h, size, method=method, baseline="none")
        assert (table.gap >= 0).all()
        slope = induced_surrogate(table).slope(np.linspace(0, 1, 101))
        assert (slope >= 0).all()
    table = from_surrogate(h, size, baseline="none")
    assert induced_surrogate(table).value(1.0) == pytest.approx(knots[-1])


@pytest.mark.parametrize(
    ("method", "baseline", "options"),
    [
        ("kantorovich", "leave_one_out", {}),
        ("durrmeyer", "min_variance", {"prior": (1.0, 2.0)}),
        ("projection", "none", {"noise": 0.01}),
        ("exact", "zero_sum", {}),
    ],
)
def test_masks_are_smaller_groups(method, baseline, options, random):
    h = surrogates.get("pass_at_k", k=3)
    size = 8

    def make(n):
        return from_surrogate(h, n, method=method, baseline=baseline, **options)

    family = table_family(make, size)
    rewards = random.integers(0, 2, (40, size)).astype(float)
    mask = random.integers(0, 2, (40, size)).astype(bool)
    weights = np.asarray(family(rewards, mask))
    for row, keep, got in zip(rewards, mask, weights, strict=True):
        expected = np.zeros(size)
        try:
            expected[keep] = make(int(keep.sum()))(row[keep])
        except ValueError:
            assert keep.sum() < 4
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_options_are_those_of_method_and_baseline():
    assert inverse.options_of("exact", "none") == ()
    assert "norm" in inverse.options_of("projection", "none")
    with pytest.raises(ValueError, match="did you mean durrmeyer"):
        inverse.options_of("durmeyer", "none")
    with pytest.raises(ValueError, match=r"norm='sup': method .* has no such option"):
        from_surrogate(surrogates.get("log"), 8, norm="sup")
    with pytest.raises(ValueError, match="groups of 12 or more"):
        from_surrogate(
            surrogates.get("pass_at_k", k=4) + surrogates.get("pass_hat_k", k=12),
            8,
            method="exact",
        )
