"""From tables to their objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import WeightTable, advantages, induced_surrogate

pytestmark = pytest.mark.both_pythons

GRID = oracles.GRID


class TestInducedSurrogate:
    @pytest.mark.parametrize("size", [1, 2, 3, 17, 512])
    def test_against_rational_arithmetic(self, size, random):
        table = WeightTable(random.normal(size=size), random.normal(size=size))
        induced = induced_surrogate(table)
        gap = table.correct - table.incorrect
        integral = np.concatenate([[0], np.cumsum(gap)]) / size
        points = np.array([0.0, 1e-6, 0.3, 0.5, 0.97, 1.0])
        for t in points if size < 512 else points[2:4]:
            assert abs(induced.slope(t) - oracles.exact_bernstein(gap, t)) < 1e-11
            assert abs(induced.value(t) - oracles.exact_bernstein(integral, t)) < 1e-11
        # Float32 on the device, from the same float32 points.
        points = points.astype(np.float32)
        # A rounding for each of the M steps, of numbers no larger than the gap.
        limit = 2.0**-23 * (size + 2) * np.abs(gap).max()
        for name in ("slope", "value"):
            fn = getattr(induced, name)
            got = jax.jit(fn)(jnp.asarray(points))
            assert got.dtype == np.float32
            np.testing.assert_allclose(
                got, fn(points), rtol=0, atol=limit, err_msg=name
            )

    def test_slope_is_the_derivative(self):
        induced = induced_surrogate(advantages.table("grpo", 16))
        t = jnp.linspace(0, 1, 9)
        derivative = jax.vmap(jax.grad(induced.value))(t)
        np.testing.assert_allclose(derivative, induced.slope(t), rtol=2e-5)

    def test_shapes_and_types(self):
        induced = induced_surrogate(advantages.table("rloo", 4))
        assert induced.value(np.zeros((2, 3))).shape == (2, 3)
        assert induced.value(jnp.zeros((2, 3))).shape == (2, 3)
        assert np.ndim(induced.value(0.5)) == 0
        assert induced.value(0.5) == pytest.approx(0.5, abs=1e-15)

    def test_baselines_do_not_change_it(self, random):
        gap, free = random.normal(size=(2, 6))
        plain = induced_surrogate(WeightTable(np.zeros(6), gap))
        other = induced_surrogate(WeightTable(free, gap + free))
        np.testing.assert_allclose(plain.slope(GRID), other.slope(GRID), atol=1e-13)

    def test_device_tables(self):
        table = jax.tree.map(jnp.asarray, advantages.table("maxrl", 8))
        exact = induced_surrogate(advantages.table("maxrl", 8)).slope(GRID)
        np.testing.assert_allclose(induced_surrogate(table).slope(GRID), exact, 1e-6)
