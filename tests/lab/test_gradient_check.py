"""Real rollouts and the real step ascend E[h_M(p)], and a wrong weight would show."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_surrogate.lab import gradient_check

GROUP_SIZE, BATCHES = 4, 64


@pytest.fixture(scope="module")
def world():
    return gradient_check.make_world(3)


@pytest.fixture(scope="module")
def families():
    return gradient_check.objectives(GROUP_SIZE)


@pytest.fixture(scope="module")
def steps(world, families):
    return gradient_check.step_gradients(
        world, families, group_size=GROUP_SIZE, num_batches=BATCHES, copies=256, seed=8
    )


def test_a_world_lists_every_completion_once(world):
    rows = {tuple(row) for row in world.tokens}
    assert len(rows) == len(world.tokens) == 1 + 4 + 16 * 5
    everything = dataclasses.replace(world, right=np.ones_like(world.right))
    np.testing.assert_allclose(
        jax.jit(everything.success_rates)(world.params), 1, rtol=1e-5
    )
    rates = np.asarray(jax.jit(world.success_rates)(world.params))
    assert (rates > 0.01).all() and (rates < 0.99).all()


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", gradient_check.objectives(GROUP_SIZE))
def test_the_error_falls_as_one_over_the_root_of_the_samples(
    name, world, families, steps
):
    exact = gradient_check.exact_gradient(world, families[name].table())
    found = gradient_check.convergence(steps[name], exact)
    print(name, found)
    assert -0.65 < found.slope < -0.35
    assert found.standard_errors < 2.5
    assert found.error[-1] < 0.06


@pytest.mark.slow
@pytest.mark.ci
def test_another_objective_is_seen_to_be_another(world, families, steps):
    """The gradient of every other objective is many standard errors away."""
    for name in families:
        for other in families:
            if other == name:
                continue
            exact = gradient_check.exact_gradient(world, families[other].table())
            assert gradient_check.convergence(steps[name], exact).standard_errors > 4
