"""Which rules have an objective on graded rewards, against derivatives of the field."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxrl_surrogate.objectives import advantages, graded
from jaxrl_surrogate.objectives.curl import circulation


def grpo(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-9)


def softmax(rewards):
    return len(rewards) * jax.nn.softmax(rewards) - 1


def rloo(rewards):
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def log_softmax(rewards):
    """e^(R / tau) is 1, 2, 4 at the levels of the reference."""
    return len(rewards) * rewards / rewards.sum() - 1


def numerical_curl(rule, levels, size, p):
    """d F_y / d p_x - d F_x / d p_y over pairs of directions in the simplex."""
    with jax.enable_x64(True):
        at = oracles.mean_update(jax.vmap(rule), levels, size)
        slopes = jax.jacobian(at)(jnp.asarray(p))
    along = np.eye(len(levels))[1:] - np.eye(len(levels))[0]
    turned = along @ np.asarray(slopes) @ along.T
    return np.abs(turned - turned.T).max()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize(
    ("rule", "levels", "has"),
    [
        (rloo, (0.0, 0.3, 1.0), True),
        (grpo, (0.0, 0.3, 1.0), False),
        (grpo, (0.0, 1.0), True),
        (softmax, (0.0, 0.3, 1.0), False),
        (log_softmax, (1.0, 2.0, 4.0), False),
        (rloo, (0.0, 0.25, 0.5, 1.0), True),
    ],
)
def test_the_verdict_is_that_of_the_derivatives(rule, levels, has, size, random):
    if rule is grpo and size == 2:
        has = True  # two samples: the sign of their difference, whatever the levels
        levels = levels[:2]
    found = circulation(rule, levels, size)
    assert found.has_objective is has
    p = random.dirichlet(np.full(len(levels), 5.0))
    curl = numerical_curl(rule, levels, size, p)
    assert curl < 1e-6 if has else curl > 1e-6


def test_two_softmax_samples_have_the_published_partials():
    """M = 2 at e^(R / tau) = 1, 2, 4: cross partials of -1/15 and 1/15."""
    with jax.enable_x64(True):
        lead = {
            (x, y): log_softmax(jnp.array([x, y])) @ jnp.array([1.0, -1.0])
            for x, y in ((1.0, 2.0), (2.0, 4.0), (1.0, 4.0))
        }
    circle = abs(lead[1.0, 2.0] + lead[2.0, 4.0] - lead[1.0, 4.0])
    assert circle == pytest.approx(2 / 15)
    found = circulation(log_softmax, (1.0, 2.0, 4.0), 2)
    largest = 2 * 4 / 5 - 1
    assert found.share == pytest.approx(2 / 15 / largest)


@pytest.mark.parametrize("lift", [jax.jit(graded.layer_cake), jax.jit(graded.mean)])
@pytest.mark.parametrize("name", ["grpo", "maxrl", "softmax_grpo"])
def test_lifts_always_have_an_objective(lift, name):
    levels = (0.0, 0.2, 0.7, 1.0)
    table = advantages.table(name, 3)
    found = circulation(lambda r: lift(table, r), levels, 3)
    assert found.has_objective
    assert str(found) == "the gradient of an objective on these levels"


def test_the_counter_example_is_named():
    found = circulation(grpo, (0.0, 0.5, 1.0), 4)
    assert "the gradient of nothing" in str(found)
    assert found.levels == (0.0, 0.5, 1.0) and len(found.others) == 2
    assert ", ".join(f"{x:g}" for x in found.others) in str(found)


def test_refusals():
    with pytest.raises(ValueError, match="two or more different"):
        circulation(grpo, [1.0, 1.0], 4)
    with pytest.raises(ValueError, match="fewer levels or smaller groups"):
        circulation(grpo, range(8), 64)
    with pytest.raises(ValueError, match="expected 3 finite weights"):
        circulation(lambda r: r / 0, [0.0, 0.5, 1.0], 3)
    assert circulation(grpo, [0.0, 0.5, 1.0], 1).has_objective
