"""From functions of one group to tables, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.objectives import advantages, tabulate


def same(one, other, tolerance=1e-13):
    np.testing.assert_allclose(one.incorrect, other.incorrect, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.correct, other.correct, rtol=0, atol=tolerance)


class TestTabulate:
    def test_a_function_of_the_user(self):
        def grpo(rewards):
            spread = jnp.std(rewards)
            mixed = spread > 0
            centred = rewards - rewards.mean()
            return jnp.where(mixed, centred / jnp.where(mixed, spread, 1), 0)

        for size in (1, 2, 5, 8, 33):
            table = tabulate(grpo, size)
            if size == 1:
                assert not np.any([table.incorrect, table.correct])
            else:
                same(table, advantages.table("grpo", size))

    def test_float64_whatever_wraps_it(self):
        fn = advantages.get("grpo", std="sample")
        fn(np.ones(8))
        same(tabulate(lambda rewards: 2 * fn(rewards), 8), 2 * fn.table(8), 1e-15)
        same(tabulate(fn, 8), fn.table(8), 0)

    def test_numpy_and_branches(self):
        def maxrl(rewards):
            rewards = np.array(rewards)
            if rewards.sum() == 0:
                return np.zeros(len(rewards))
            return rewards / rewards.mean() - 1

        same(tabulate(maxrl, 8), advantages.table("maxrl", 8))

    def test_float32_functions(self):
        def dr_grpo(rewards):
            rewards = rewards.astype(jnp.float32)
            return rewards - rewards.mean()

        same(tabulate(dr_grpo, 12), advantages.table("dr_grpo", 12), 1e-6)

    def test_inside_jit(self):
        @jax.jit
        def weigh(rewards):
            return tabulate(lambda r: r - r.mean(), 4)(rewards)

        assert weigh(np.array([1.0, 0, 0, 0])).tolist() == [0.75, -0.25, -0.25, -0.25]

    @pytest.mark.parametrize("size", [3, 4, 9, 40])
    @pytest.mark.parametrize(
        "fn",
        [
            lambda r: r * jnp.arange(len(r)),
            lambda r: r - r[0],
            lambda r: jnp.cumsum(r),
            lambda r: jnp.sort(r),
            lambda r: r - jnp.roll(r, 1),
        ],
        ids=["position", "first", "cumsum", "sort", "neighbour"],
    )
    def test_a_function_of_more_than_counts_is_refused(self, fn, size):
        with pytest.raises(ValueError, match=r"(?s)Rewards \[.*give the weights"):
            tabulate(fn, size)

    def test_a_hidden_exception_is_found(self):
        def fn(rewards):
            odd = (rewards == jnp.array([0, 1, 1, 0, 1])).all()
            return rewards + odd

        with pytest.raises(ValueError, match=r"\[0 1 1 0 1\]"):
            tabulate(fn, 5)

    def test_not_finite(self):
        with pytest.raises(ValueError, match=r"\[0 0 0\]"):
            tabulate(lambda r: (r - r.mean()) / r.std(), 3)

    def test_shape(self):
        with pytest.raises(ValueError, match=r"\(4,\).*\(\)"):
            tabulate(lambda r: r.mean(), 4)

    def test_the_order_of_rewards_is_named(self):
        def decay(rewards):
            # The first correct answer counts most: credit by order.
            return rewards * 0.5 ** (jnp.cumsum(rewards) - rewards)

        with pytest.raises(ValueError, match="order of the rewards") as raised:
            tabulate(decay, 4)
        message = str(raised.value)
        assert message.startswith("advantage_fn: not a function of the own reward")
        shown = re.search(r"Rewards \[([\d ]+)\] give the weights \[([^]]+)\]", message)
        rewards = np.array(shown[1].split(), float)
        np.testing.assert_allclose(
            np.array(shown[2].split(), float), decay(rewards), atol=1e-6
        )

    @pytest.mark.parametrize("size", [2, 4, 12])
    def test_random_and_stateful_functions_are_named(self, size):
        generator, calls = np.random.default_rng(), []

        def noisy(rewards):
            return np.asarray(rewards) + 0.1 * generator.normal(size=len(rewards))

        def running_mean(rewards):
            calls.append(float(rewards.mean()))
            return rewards - np.mean(calls)

        for fn in (noisy, running_mean):
            with pytest.raises(ValueError, match="not a function of its input"):
                tabulate(fn, size)
