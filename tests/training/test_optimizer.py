"""The optimizer: known first steps, schedules, decay of matrices alone, refusals."""

import secrets

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_surrogate.training.optimizer import (
    OptimizerConfig,
    decay_mask,
    learning_rate,
    make_optimizer,
)

NAMES = ["adamw", "adam", "sgd", "lion", "adafactor"]
AXES = {
    "embedding": ("vocab", "embed"),
    "layers": {
        "q": {
            "kernel": ("layers", "embed", "heads", "head_dim"),
            "bias": ("layers", "heads", "head_dim"),
        },
        "up": ("layers", "embed", "mlp"),
        "norm": ("layers", "embed"),
        "q_norm": ("layers", "head_dim"),
    },
    "norm": (None,),
}
SHAPES = {
    "embedding": (11, 6),
    "layers": {
        "q": {"kernel": (2, 6, 3, 4), "bias": (2, 3, 4)},
        "up": (2, 6, 8),
        "norm": (2, 6),
        "q_norm": (2, 4),
    },
    "norm": (6,),
}


@pytest.fixture
def rng():
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # shown when the test fails
    return np.random.default_rng(seed)


def draw(rng):
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def assert_close(found, expected, **tolerances):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerances), found, expected
    )


def test_matrices_are_told_by_their_axes():
    assert decay_mask(AXES) == {
        "embedding": True,
        "layers": {
            "q": {"kernel": True, "bias": False},
            "up": True,
            "norm": False,
            "q_norm": False,
        },
        "norm": False,
    }


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "adafactor"])
def test_decay_shrinks_matrices_alone(name, rng):
    """With a zero gradient, what is left of the update is decay."""
    params = draw(rng)
    config = OptimizerConfig(name=name, learning_rate=0.5, weight_decay=0.25)
    optimizer = make_optimizer(config, 10, AXES)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    expected = jax.tree.map(
        lambda p, matrix: -0.125 * p * matrix, params, decay_mask(AXES)
    )
    assert_close(updates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("adamw", optax.adamw(
            3e-3, 0.8, 0.97, 1e-6, weight_decay=0.1, mask=decay_mask(AXES)
        )),
        ("adam", optax.adam(3e-3, 0.8, 0.97, 1e-6)),
        ("lion", optax.lion(3e-3, 0.8, 0.97, weight_decay=0.1, mask=decay_mask(AXES))),
        ("sgd", optax.chain(
            optax.trace(0.8), optax.add_decayed_weights(0.1, decay_mask(AXES)),
            optax.scale(-3e-3),
        )),
    ],
)  # fmt: skip
def test_equals_the_published_composition(name, peer, rng):
    config = OptimizerConfig(
        name=name, learning_rate=3e-3, b1=0.8, b2=0.97, eps=1e-6, clip_norm=0.0,
        weight_decay=0.0 if name == "adam" else 0.1,
    )  # fmt: skip
    ours = make_optimizer(config, 5, AXES)
    params = found = expected = draw(rng)
    state, peer_state = ours.init(params), peer.init(params)
    for _ in range(4):
        grads = draw(rng)
        updates, state = ours.update(grads, state, found)
        found = optax.apply_updates(found, updates)
        updates, peer_state = peer.update(grads, peer_state, expected)
        expected = optax.apply_updates(expected, updates)
    assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_descends_under_jit_with_one_trace(name):
    """Every rule gets well down a quadratic in 300 steps."""
    config = OptimizerConfig(
        name=name, learning_rate=0.02, schedule="cosine", warmup_steps=5
    )
    optimizer = make_optimizer(config, 300)
    traces = 0

    @jax.jit
    def step(params, state):
        nonlocal traces
        traces += 1
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    def loss(params):
        return sum(jnp.sum((x - 1.0) ** 2) for x in jax.tree.leaves(params))

    params = {"w": jnp.float32(4) * jnp.ones((3, 4)), "b": -jnp.ones(4)}
    first, state = loss(params), optimizer.init(params)
    for _ in range(300):
        params, state = step(params, state)
    assert loss(params) < first / 4
    assert traces == 1


def test_the_global_norm_is_clipped(rng):
    params, grads = draw(rng), draw(rng)
    config = OptimizerConfig(name="sgd", learning_rate=1.0, b1=0.0, clip_norm=0.5)
    optimizer = make_optimizer(config, 1)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-5)
    factor = 0.5 / optax.tree.norm(grads)
    assert_close(updates, jax.tree.map(lambda g: -g * factor, grads), rtol=1e-5)

    small = jax.tree.map(lambda g: g * 0.9 * factor, grads)
    updates, _ = optimizer.update(small, optimizer.init(params), params)
    assert_close(updates, jax.tree.map(jnp.negative, small), rtol=1e-6)


def test_what_may_change_on_resuming_keeps_the_structure(rng):
    params = draw(rng)
    structures = {
        jax.tree.structure(
            jax.tree.leaves_with_path(make_optimizer(config, steps, AXES).init(params))
        )
        for config, steps in [
            (OptimizerConfig(), 10),
            (OptimizerConfig(clip_norm=0.0), 10),
            (OptimizerConfig(weight_decay=0.1), 10),
            (OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_steps=3), 99),
        ]
    }
    assert len(structures) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [1 / 3, 2 / 3, 1, 1, None, 0.6, None, 0.2]),
    ],
)
def test_schedule(schedule, expected):
    """Three stages of warm-up, then the decay, which ends at the last step."""
    config = OptimizerConfig(
        learning_rate=2.0, schedule=schedule, warmup_steps=3, final_fraction=0.2
    )
    rate = learning_rate(config, 8)
    found = [float(rate(step)) for step in range(8)]
    for step, fraction in enumerate(expected):
        if fraction is not None:
            np.testing.assert_allclose(found[step], 2.0 * fraction, rtol=1e-6)
    assert rate(jnp.int32(100)) == rate(7)
    assert found[3:] == sorted(found[3:], reverse=True)
    assert jax.jit(rate)(jnp.int32(4)).dtype == jnp.float32


def test_cosine_halfway_is_the_mean_of_both_ends():
    config = OptimizerConfig(learning_rate=1.0, schedule="cosine", final_fraction=0.1)
    np.testing.assert_allclose(learning_rate(config, 11)(5), 0.55, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_of_one_step_has_a_rate(schedule):
    rate = learning_rate(OptimizerConfig(learning_rate=3.0, schedule=schedule), 1)
    assert rate(0) == 3.0


def test_the_rate_used_is_the_rate_reported():
    config = OptimizerConfig(
        name="sgd", b1=0.0, schedule="linear", warmup_steps=2, learning_rate=0.5
    )
    optimizer, rate = make_optimizer(config, 6), learning_rate(config, 6)
    params = jnp.ones(1)
    state = optimizer.init(params)
    for step in range(6):
        updates, state = optimizer.update(jnp.ones(1), state, params)
        np.testing.assert_allclose(updates, -rate(step)[None], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "adamax", r"^name='adamax': expected adamw . adam . sgd . lion . "),
        ("schedule", "step", r"^schedule='step': expected constant . linear . cosine"),
        ("learning_rate", -1.0, r"^learning_rate=-1.0: expected 0 or more, finite"),
        ("learning_rate", float("nan"), r"^learning_rate=nan: expected number"),
        ("warmup_steps", -3, r"^warmup_steps=-3: expected 0 or more"),
        ("final_fraction", 1.5, r"^final_fraction=1.5: expected 0 to 1"),
        ("b1", 1.0, r"^b1=1.0: expected a decay in \[0, 1\)"),
        ("b2", -0.1, r"^b2=-0.1: expected a decay in \[0, 1\)"),
        ("eps", 0.0, r"^eps=0.0: expected more than 0"),
        ("weight_decay", -0.1, r"^weight_decay=-0.1: expected 0 or more"),
        ("clip_norm", float("inf"), r"^clip_norm=inf: expected 0 or more, finite"),
    ],
)
def test_fields_are_checked(field, value, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**{field: value})


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match=r"^weight_decay=0.1: adam has .*name=adamw"):
        OptimizerConfig(name="adam", weight_decay=0.1)
    with pytest.raises(ValueError, match=r"^weight_decay=0.1: .*logical_axes"):
        make_optimizer(OptimizerConfig(weight_decay=0.1), 10)
    with pytest.raises(
        ValueError, match=r"^warmup_steps=9: expected at most the 8 updates"
    ):
        learning_rate(OptimizerConfig(warmup_steps=9), 8)
    with pytest.raises(ValueError, match=r"^total_steps=0: expected at least 1"):
        make_optimizer(OptimizerConfig(), 0)
