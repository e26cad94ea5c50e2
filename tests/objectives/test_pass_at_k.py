"""Unbiased pass@k and its intervals over prompts."""

import math

import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives.pass_at_k import (
    pass_at_k,
    pass_at_k_curve,
    pass_at_k_difference,
)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_is_the_share_of_subsets(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            assert pass_at_k(n, c, k) == pytest.approx(oracles.pass_at_k(n, c, k))


def test_exact_zeros_and_ones_and_large_n():
    assert pass_at_k(8, 5, 4) == 1
    assert pass_at_k(100_000, 0, 1000) == 0
    n, c, k = 10_000, 7, 3000
    expected = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-11)


def test_broadcasts():
    got = pass_at_k(8, np.arange(9)[:, None], np.array([1, 2, 8])[None])
    assert got.shape == (9, 3)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got[:, 0], np.arange(9) / 8)


def test_unbiased_by_enumeration():
    n, p = 6, 0.3
    for k in range(1, n + 1):
        mean = sum(
            math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k)
            for c in range(n + 1)
        )
        assert mean == pytest.approx(1 - (1 - p) ** k, rel=1e-13)


@pytest.mark.parametrize(
    ("n", "c", "k", "field"),
    [
        (4, 2, 5, "k=5"),
        (4, 2, 0, "k=0"),
        (4, 5, 1, "num_correct=5"),
        (4, -1, 1, "num_correct=-1"),
        (4, 2.0, 1, "num_correct: expected integers"),
        (0, 0, 1, "k=1"),
    ],
)
def test_refused(n, c, k, field):
    with pytest.raises(ValueError, match=field):
        pass_at_k(n, c, k)


def agresti_coull(successes, trials, z):
    size = trials + z**2
    centre = (successes + z**2 / 2) / size
    half = z * math.sqrt(centre * (1 - centre) / size)
    return max(centre - half, 0), min(centre + half, 1)


class TestCurve:
    def test_mean_is_the_mean_of_estimates(self, random):
        counts = random.integers(0, 9, 50)
        curve = pass_at_k_curve(counts, 8)
        assert curve.k.tolist() == list(range(1, 9))
        assert (curve.num_prompts, curve.confidence) == (50, 0.95)
        for k in curve.k:
            expected = np.mean([oracles.pass_at_k(8, c, k) for c in counts])
            assert curve.mean[k - 1] == pytest.approx(expected)

    def test_one_sample_is_the_binomial_interval(self):
        curve = pass_at_k_curve(np.repeat([0, 1], [17, 3]), 1)
        low, high = agresti_coull(3, 20, 1.959963984540054)
        assert curve.low[0] == pytest.approx(low)
        assert curve.high[0] == pytest.approx(high)

    @pytest.mark.parametrize("prompts", [1, 2, 3, 100])
    @pytest.mark.parametrize("count", [0, 2, 8])
    def test_agreeing_prompts_keep_a_width(self, prompts, count):
        curve = pass_at_k_curve(np.full(prompts, count), 8)
        self.check_sane(curve)
        width = curve.high - curve.low
        assert (width > 0.01).all()
        assert (width > 0.5).all() or prompts > 3

    def check_sane(self, curve):
        for values in (curve.low, curve.mean, curve.high):
            assert np.isfinite(values).all()
        assert (curve.low >= 0).all()
        assert (curve.high <= 1).all()
        assert (curve.low <= curve.mean + 1e-12).all()
        assert (curve.mean <= curve.high + 1e-12).all()
        assert (np.diff(curve.mean) > -1e-12).all()

    def test_always_contains_the_mean(self, random):
        for prompts in (1, 2, 5, 40):
            for confidence in (0.5, 0.95, 0.999):
                counts = random.integers(0, 9, prompts)
                self.check_sane(pass_at_k_curve(counts, 8, confidence))

    def test_many_prompts_reach_the_normal_interval(self, random):
        counts = random.integers(0, 9, 20_000)
        curve = pass_at_k_curve(counts, 8)
        spread = np.std(counts / 8) / math.sqrt(20_000)
        assert curve.high[0] - curve.low[0] == pytest.approx(
            2 * 1.96 * spread, rel=0.01
        )

    @pytest.mark.parametrize("prompts", [5, 20, 100])
    def test_coverage(self, prompts, random):
        """Of 95% intervals over prompts with success rates from U-shaped priors."""
        n, repeats = 8, 600
        for a, b in ((0.3, 0.3), (0.2, 3.0), (3.0, 0.2)):
            rates = random.beta(a, b, (repeats, prompts))
            counts = random.binomial(n, rates)
            q = [math.prod((b + j) / (a + b + j) for j in range(k)) for k in (1, 4, 8)]
            hits = np.zeros(3)
            for row in counts:
                curve = pass_at_k_curve(row, n)
                at = np.array([0, 3, 7])
                truth = 1 - np.array(q)
                hits += (curve.low[at] <= truth) & (truth <= curve.high[at])
            # Four standard errors below the nominal level, on the safe side above.
            assert (hits / repeats > 0.95 - 4 * math.sqrt(0.05 * 0.95 / repeats)).all()

    def test_refused(self):
        for counts in (np.zeros(0, int), np.zeros((2, 2), int), np.int64(3)):
            with pytest.raises(ValueError, match="num_correct"):
                pass_at_k_curve(counts, 8)
        with pytest.raises(ValueError, match="num_correct=9"):
            pass_at_k_curve(np.array([9]), 8)
        with pytest.raises(ValueError, match="confidence=95"):
            pass_at_k_curve(np.array([3]), 8, confidence=95)


class TestDifference:
    def test_mean_and_bounds(self, random):
        before = random.integers(0, 9, 30)
        after = np.minimum(before + random.integers(0, 3, 30), 8)
        difference = pass_at_k_difference(after, before, 8)
        one, other = pass_at_k_curve(after, 8), pass_at_k_curve(before, 8)
        np.testing.assert_allclose(difference.mean, one.mean - other.mean)
        assert (difference.low <= difference.mean).all()
        assert (difference.mean <= difference.high).all()
        apart = (one.high - one.low) + (other.high - other.low)
        assert (difference.high - difference.low <= apart + 1e-12).all()

    def test_pairing_narrows(self, random):
        before = random.integers(0, 8, 200)
        paired = pass_at_k_difference(before + 1, before, 8)
        shuffled = pass_at_k_difference(before + 1, random.permutation(before), 8)
        assert paired.high[0] - paired.low[0] < shuffled.high[0] - shuffled.low[0]

    @pytest.mark.parametrize("prompts", [1, 2, 30])
    def test_agreeing_prompts_keep_a_width(self, prompts):
        for ours, theirs in ((0, 0), (8, 8), (8, 0), (4, 4)):
            curve = pass_at_k_difference(
                np.full(prompts, ours), np.full(prompts, theirs), 8
            )
            assert (curve.high - curve.low > 0.01).all()
            assert (np.abs([curve.low, curve.high]) <= 1).all()

    def test_coverage(self, random):
        n, prompts, repeats = 8, 30, 600
        hits = 0
        for _ in range(repeats):
            rates = random.beta(0.5, 0.5, prompts)
            better = rates + 0.2 * (1 - rates)
            curve = pass_at_k_difference(
                random.binomial(n, better), random.binomial(n, rates), n
            )
            hits += curve.low[0] <= 0.1 <= curve.high[0]
        assert hits / repeats > 0.95 - 4 * math.sqrt(0.05 * 0.95 / repeats)

    def test_refused(self):
        with pytest.raises(ValueError, match="expected 2 prompts"):
            pass_at_k_difference(np.array([1, 2]), np.array([1, 2, 3]), 8)
