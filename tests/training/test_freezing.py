"""Parameters in two parts: what is frozen has no gradient, no moments, and no copy."""

import decoder_oracle
import jax
import numpy as np
import optax
import pytest

from jaxrl_surrogate import models, objectives, parallel
from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.training.freezing import freeze, leaf_paths, merge, split
from jaxrl_surrogate.training.state import abstract_state, restart
from jaxrl_surrogate.training.step import ComputeConfig, UpdateConfig, make_update

CONFIG = models.presets.get("nano", vocab_size=40)
AXES = models.logical_axes(CONFIG)
ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
SGD = optax.sgd(1.0)
FAMILY = objectives.table_family(objectives.advantages.get("grpo").table, 4)


@pytest.fixture
def params(random):
    return decoder_oracle.random_params(models.abstract_params(CONFIG), random)


@pytest.fixture
def batch(random):
    lengths = random.integers(1, 8, size=(4, 4)).astype(np.int32)
    return Batch(
        Prompts(
            random.integers(2, 40, size=(4, 6), dtype=np.int32),
            random.integers(1, 7, size=4).astype(np.int32),
            np.arange(4, dtype=np.uint32),
        ),
        Completions(
            random.integers(2, 40, size=(4, 4, 7), dtype=np.int32),
            lengths,
            lengths == 7,
            np.full((4, 4, 7), -2, np.float32),
            np.arange(7)[None, None] < lengths[..., None],
            np.zeros((4, 4), np.int32),
        ),
        np.tile(np.float32([0, 1, 1, 0]), (4, 1)),
        np.ones((4, 4), bool),
    )


def test_a_split_tree_is_merged_again(random):
    paths = leaf_paths(AXES)
    frozen_paths = set(random.permutation(paths)[: random.integers(1, len(paths))])
    trainable, frozen = split(AXES, frozen_paths.__contains__)
    assert set(leaf_paths(frozen)) == frozen_paths
    assert set(leaf_paths(trainable)) == set(paths) - frozen_paths
    assert merge(trainable, frozen) == AXES
    assert all(jax.tree.leaves(part) for part in (trainable, frozen))  # no empty dict
    with pytest.raises(ValueError, match="both trainable and frozen"):
        merge(AXES, frozen)


def test_patterns_are_searched_for_in_paths():
    _, frozen = split(AXES, freeze(["embed", r"^layers/mlp/.*/kernel$"], AXES))
    assert leaf_paths(frozen) == [
        "embedding",
        *(f"layers/mlp/{name}/kernel" for name in ("down", "gate", "up")),
    ]
    assert split(AXES, freeze([], AXES)) == (AXES, {})


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["embed", "lm_head"], "freeze='lm_head': matches no parameter"),
        (["."], "matches every parameter; expected to leave some"),
        (["embed", "layers", "final"], "matches every parameter"),
        (["lay(ers"], r"freeze='lay\(ers': .*expected a regular expression"),
    ],
)
def test_patterns_that_leave_nothing_are_refused_with_the_paths(patterns, said):
    with pytest.raises(FieldError, match=said) as caught:
        freeze(patterns, AXES)
    if "(" not in patterns[0]:
        assert all(path in str(caught.value) for path in leaf_paths(AXES))


@pytest.mark.parametrize("micro", [0, 2])
def test_the_gradient_is_that_of_the_trainable_alone(params, batch, micro):
    compute = ComputeConfig(microbatch_prompts=micro)
    update = UpdateConfig(LossConfig(), SamplingConfig(), compute=compute)
    is_frozen = freeze(["embed", "attention/k"], AXES)
    whole = make_update(CONFIG, update, SGD, ONE)
    part = make_update(CONFIG, update, SGD, ONE, is_frozen)
    everything, _ = whole(restart(params, CONFIG, SGD, ONE), batch, FAMILY, None)
    state = restart(params, CONFIG, SGD, ONE, is_frozen)
    before = state
    state, metrics = part(state, batch, FAMILY, None)
    trainable, frozen = split(everything.params, is_frozen)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        state.trainable,
        trainable,
    )
    moved = jax.tree.map(
        lambda new, old: np.abs(new - old).max(),
        state.trainable,
        split(params, is_frozen)[0],
    )
    assert min(jax.tree.leaves(moved)) > 0
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(moved)))
    assert norm <= float(metrics["grad_norm"]) * (1 + 1e-5)
    for new, old in zip(
        jax.tree.leaves(state.frozen), jax.tree.leaves(frozen), strict=True
    ):
        assert not np.array_equal(new, old)  # they would have moved
    given = split(params, is_frozen)[1]
    jax.tree.map(np.testing.assert_array_equal, state.frozen, given)
    for new, old in zip(
        jax.tree.leaves(state.frozen), jax.tree.leaves(before.frozen), strict=True
    ):
        assert new is old
    given = before.trainable, before.opt_state
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))  # donated


def test_moments_are_held_of_the_trainable_alone():
    optimizer = optax.adam(1e-3)
    is_frozen = freeze(["embed"], AXES)
    whole = abstract_state(CONFIG, optimizer, ONE)
    state = abstract_state(CONFIG, optimizer, ONE, is_frozen)
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    table = whole.params["embedding"].size
    assert size(whole.opt_state) == 2 * size(whole.params) + 1
    assert size(state.opt_state) == 2 * (size(whole.params) - table) + 1
    assert size(state.frozen) == table and size(whole.frozen) == 0
    assert jax.tree.structure(state.params) == jax.tree.structure(whole.params)


def test_a_frozen_state_is_sharded_as_a_whole_one(params):
    devices = np.asarray(jax.devices()[:4])
    mesh = parallel.make_mesh(parallel.MeshConfig(fsdp=2, tensor=2), devices)
    is_frozen = freeze(["mlp"], AXES)
    whole = restart(params, CONFIG, SGD, mesh)
    state = restart(params, CONFIG, SGD, mesh, is_frozen)
    for one, other in zip(
        jax.tree.leaves(whole.params), jax.tree.leaves(state.params), strict=True
    ):
        assert one.sharding == other.sharding
        assert np.array_equal(one, other)
