"""Moments in the host's memory: the same steps, the same bits, the same checkpoints."""

import jax
import numpy as np
import pytest

from jaxrl_surrogate import models, objectives, parallel
from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.storage import checkpoint
from jaxrl_surrogate.storage.digests import state_digests
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.optimizer import OptimizerConfig, make_optimizer
from jaxrl_surrogate.training.state import abstract_state, init_state
from jaxrl_surrogate.training.step import UpdateConfig, make_update

MODEL = models.presets.get("nano", vocab_size=40)
MESH = parallel.MeshConfig(2, 2, 2)
pytestmark = pytest.mark.both_pythons


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(MESH)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(4)
    tokens = random.integers(2, 40, size=(8, 4, 7), dtype=np.int32)
    return Batch(
        Prompts(
            random.integers(2, 40, size=(8, 6), dtype=np.int32),
            np.full(8, 6, np.int32),
            np.arange(8, dtype=np.uint32),
        ),
        Completions(
            tokens,
            np.full((8, 4), 7, np.int32),
            np.zeros((8, 4), bool),
            np.full(tokens.shape, -3.0, np.float32),
            np.ones(tokens.shape, bool),
            np.zeros((8, 4), np.int32),
        ),
        random.integers(2, size=(8, 4)).astype(np.float32),
        np.ones((8, 4), bool),
    )


def _optimizer(**settings):
    return make_optimizer(OptimizerConfig(**settings), 10, models.logical_axes(MODEL))


def _kinds(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


def _steps(optimizer, mesh, batch, number=2):
    update = make_update(
        MODEL, UpdateConfig(LossConfig(), SamplingConfig()), optimizer, mesh
    )
    family = objectives.table_family(objectives.advantages.get("rloo").table, 4)
    state = init_state(MODEL, optimizer, mesh, 1)
    for _ in range(number):
        state, _ = update(state, batch, family, None)
    return state


def test_an_offloaded_state_lies_in_host_memory_and_takes_the_same_steps(
    mesh, batch, request
):
    """The bits are those of the compiler that users have; others round elsewhere."""
    plain = _steps(_optimizer(), mesh, batch)
    state = _steps(_optimizer(offload=True), mesh, batch)
    assert _kinds(state.opt_state) == {offload.HOST}
    assert _kinds(state.params) == _kinds(plain.opt_state) != {offload.HOST}
    if jax.__version_info__ >= (0, 11) or request.config.getoption("--full-compiler"):
        assert state_digests(state) == state_digests(plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        *(jax.device_get((each.params, each.opt_state)) for each in (state, plain)),
    )


def test_a_checkpoint_knows_no_memories(mesh, batch, tmp_path):
    """Stored offloaded, restored both ways."""
    optimizer = _optimizer(offload=True)
    state = _steps(optimizer, mesh, batch)
    expected = state_digests(state)
    with checkpoint.RunCheckpoints(tmp_path) as store:
        store.save_update(1, state, {})
        store.wait()
        for again, kind in ((optimizer, offload.HOST), (_optimizer(), "device")):
            abstract = abstract_state(MODEL, again, mesh)
            found, _ = store.restore_update(1, abstract)
            assert _kinds(found.opt_state) == {kind}
            assert state_digests(found) == expected


def test_devices_without_host_memory_are_refused():
    class Device:
        device_kind = "toaster"

        def addressable_memories(self):
            return []

    with pytest.raises(ValueError, match="offload=True: devices of kind 'toaster'"):
        offload.check(_optimizer(offload=True), Device())
    offload.check(_optimizer(), Device())
