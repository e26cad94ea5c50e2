"""Checkpoints: the same bits back, on any mesh, and nothing half-written."""

import os
import random
import secrets
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_surrogate.batch import Batch, Completions, Prompts
from jaxrl_surrogate.parallel import MeshConfig, make_mesh, partition
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.stops import DamagedCheckpoint

pytestmark = pytest.mark.both_pythons


@pytest.fixture
def rng():
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # shown when the test fails
    return np.random.default_rng(seed)


def abstract(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None)
        ),
        tree,
    )


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == b.dtype, path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


def random_bits(rng, dtype, shape):
    """Every bit pattern of the dtype may occur: NaNs, infinities, denormals."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return jnp.asarray(np.frombuffer(rng.bytes(size), dtype).reshape(shape))


def state_of(step):
    params = {"w": jnp.full((4, 8), step, jnp.float32), "b": jnp.arange(8.0) + step}
    return {
        "params": params,
        "moments": optax.adamw(1e-3).init(params),
        "step": jnp.int32(step),
    }


def make_batch(rng, prompts=2, samples=4, length=3):
    shape = (prompts, samples)
    return Batch(
        Prompts(
            tokens=jnp.asarray(rng.integers(0, 99, (prompts, 5)), jnp.int32),
            lengths=jnp.full(prompts, 5, jnp.int32),
            ids=jnp.asarray(rng.integers(0, 2**32, prompts), jnp.uint32),
        ),
        Completions(
            tokens=jnp.asarray(rng.integers(0, 99, (*shape, length)), jnp.int32),
            lengths=jnp.full(shape, length, jnp.int32),
            truncated=jnp.asarray(rng.random(shape) < 0.5),
            sampler_logprobs=jnp.asarray(
                rng.normal(size=(*shape, length)), jnp.float32
            ),
            loss_mask=jnp.asarray(rng.random((*shape, length)) < 0.5),
            policy_step=jnp.asarray(rng.integers(0, 9, shape), jnp.int32),
        ),
        rewards=np.asarray(rng.random(shape), np.float32),  # from the host
        reward_mask=jnp.ones(shape, bool),
    )


def test_every_dtype_comes_back_bit_for_bit(tmp_path, rng):
    bf16 = jnp.bfloat16.dtype
    state = {
        "float32": random_bits(rng, np.float32, (3, 5)),
        "bfloat16": random_bits(rng, bf16, (7, 2)),
        "uint32": random_bits(rng, np.uint32, (4,)),
        "int32": random_bits(rng, np.int32, (2, 2, 2)),
        "uint8": random_bits(rng, np.uint8, (9,)),
        "bool": jnp.asarray(rng.random(6) < 0.5),
        "scalar": jnp.float32(rng.normal()),
        "chain": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(jnp.ones(3)),
        "tuple": (jnp.ones(2), [jnp.zeros(1)], None),
    }
    meta = {"phase": "update", "data": {"position": 12, "epoch": [1, 2]}, "name": "é"}
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(4, state, meta)
    with RunCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_update() == 4
        found, found_meta = checkpoints.restore_update(4, abstract(state))
    assert_same_bits(found, state)
    assert found_meta == meta


def test_a_rollout_comes_back_as_the_record_it_was(tmp_path, rng):
    batch = make_batch(rng)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_rollout(0, batch, {"phase": "rollout"})
        assert checkpoints.rollout_steps() == [0]
        found, meta = checkpoints.restore_rollout(0, abstract(batch))
    assert isinstance(found, Batch)
    assert_same_bits(found, batch)
    assert meta == {"phase": "rollout"}


def test_what_devices_held_comes_back_as_numpy_too(tmp_path, rng):
    tokens = rng.integers(0, 9, (3, 4, 2)).astype(np.int32)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_rollout(1, {"tokens": jnp.asarray(tokens)}, {})
        found, _ = checkpoints.restore_rollout(1, {"tokens": np.zeros_like(tokens)})
    assert type(found["tokens"]) is np.ndarray
    np.testing.assert_array_equal(found["tokens"], tokens)


def test_digests_that_are_known_are_not_taken_again(tmp_path):
    state = state_of(3)
    known = digests.state_digests(state)["state"]
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(3, state, {}, None, known)
        found, _ = checkpoints.restore_update(3, abstract(state))
        assert_same_bits(found, state)
        # What is compared on the way back is what was given.
        other = known | {"step": digests.state_digests(state_of(5))["state"]["step"]}
        checkpoints.save_update(4, state, {}, None, other)
        with pytest.raises(DamagedCheckpoint, match=r"state: step came back"):
            checkpoints.restore_update(4, abstract(state))


def test_numpy_leaves_come_back_as_numpy(tmp_path, rng):
    tokens = rng.integers(0, 9, (3, 4)).astype(np.int32)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_rollout(1, {"tokens": tokens}, {})
        found, _ = checkpoints.restore_rollout(1, {"tokens": np.zeros_like(tokens)})
    assert type(found["tokens"]) is np.ndarray
    np.testing.assert_array_equal(found["tokens"], tokens)


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path, rng):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {f"w{i}": jnp.asarray(rng.normal(size=(300, 300))) for i in range(8)}
    expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(0, state, {})
        for _ in range(5):
            state = step(state)
        jax.block_until_ready(state)
        found, _ = checkpoints.restore_update(0, abstract(state))
    assert_same_bits(found, expected)


def test_one_mesh_writes_another_reads(tmp_path, rng):
    """8 devices, then 1, then 2x4: the same parameters every time."""
    axes = {"w": ("embed", "mlp"), "b": (None,)}
    params = {"w": rng.normal(size=(8, 16)), "b": rng.normal(size=(16,))}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    optimizer = optax.adam(1e-3)
    meshes = [
        make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8]),
        make_mesh(MeshConfig(), jax.devices()[:1]),
        make_mesh(MeshConfig(data=1, fsdp=2, tensor=4), jax.devices()[:8]),
    ]
    state = {"params": params, "moments": optimizer.init(params)}

    def place(mesh):
        where = partition.param_shardings(mesh, axes, params)
        return partition.state_shardings(mesh, where, state, params)

    state = jax.device_put(state, place(meshes[0]))
    with RunCheckpoints(tmp_path) as checkpoints:
        for step, mesh in enumerate([*meshes[1:], meshes[0]]):
            checkpoints.save_update(step, state, {})
            into = partition.abstract_like(state, place(mesh))
            found, _ = checkpoints.restore_update(step, into)
            assert found["params"]["w"].sharding == into["params"]["w"].sharding
            assert_same_bits(found, state)
            state = found


def test_no_sharding_means_the_first_device(tmp_path):
    mesh = make_mesh(MeshConfig(), jax.devices()[:8])
    state = {"x": jax.device_put(jnp.arange(8.0), partition.batch_sharding(mesh))}
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(0, state, {})
        into = {"x": jax.ShapeDtypeStruct((8,), jnp.float32)}
        found, _ = checkpoints.restore_update(0, into)
    assert found["x"].devices() == {jax.local_devices()[0]}
    assert_same_bits(found, state)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"keep_last": 1}, [7]),
        ({"keep_last": 3}, [5, 6, 7]),
        ({"keep_last": 2, "keep_every": 3}, [0, 3, 6, 7]),
    ],
)
def test_retention(tmp_path, options, kept):
    with RunCheckpoints(tmp_path, **options) as checkpoints:
        for step in range(8):
            checkpoints.save_update(step, {"x": jnp.float32(step)}, {"step": step})
        assert checkpoints.update_steps() == kept
    with RunCheckpoints(tmp_path, **options) as checkpoints:
        assert checkpoints.update_steps() == kept
        into = {"x": jax.ShapeDtypeStruct((), jnp.float32)}
        for step in kept:
            found, meta = checkpoints.restore_update(step, into)
            assert (float(found["x"]), meta["step"]) == (step, step)
    names = {p.name for p in (tmp_path / "update").iterdir()}
    assert names == {n for step in kept for n in (str(step), f"{step}.files.json")}


@pytest.mark.parametrize(("lowest", "best"), [(False, 3), (True, 1)])
def test_the_best_is_kept_by_its_metric(tmp_path, lowest, best):
    options = {"keep_last": 1, "keep_best": 1, "lowest_is_best": lowest}
    metrics = [None, 0.2, 0.5, 0.9, 0.4, None, 0.3]
    with RunCheckpoints(tmp_path, **options) as checkpoints:
        for step, metric in enumerate(metrics[:4]):
            checkpoints.save_update(step, {"x": jnp.float32(step)}, {}, metric)
    with RunCheckpoints(tmp_path, **options) as checkpoints:  # remembered
        for step, metric in enumerate(metrics[4:], 4):
            checkpoints.save_update(step, {"x": jnp.float32(step)}, {}, metric)
        assert checkpoints.update_steps() == [best, 6]
        found = checkpoints.newest_update({"x": jax.ShapeDtypeStruct((), jnp.float32)})
        assert found[0] == 6


def test_an_update_supersedes_rollouts_only_once_it_is_on_disk(tmp_path):
    with RunCheckpoints(tmp_path) as checkpoints:
        for step in (5, 6, 7):  # updates are saved less often than rollouts
            checkpoints.save_rollout(step, {"x": jnp.float32(step)}, {})
        assert checkpoints.rollout_steps() == [5, 6, 7]
        checkpoints.save_update(6, {"x": jnp.float32(0)}, {})
        assert checkpoints.rollout_steps() == [7]  # the update may be in flight
        checkpoints.wait()
        assert checkpoints.rollout_steps() == [7]
        checkpoints.save_rollout(8, {"x": jnp.float32(8)}, {})
        assert checkpoints.rollout_steps() == [7, 8]
    names = {p.name for p in (tmp_path / "rollout").iterdir()}
    assert names == {"7", "7.files.json", "8", "8.files.json"}


def test_an_empty_directory_has_nothing(tmp_path):
    with RunCheckpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest_update() is None
        assert checkpoints.update_steps() == []
        assert checkpoints.rollout_steps() == []
        with pytest.raises(
            ValueError, match=r"^step=3: not in .*update, which has none"
        ):
            checkpoints.restore_update(3, {})


def test_steps_are_saved_once_and_in_order(tmp_path):
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(4, {"x": jnp.ones(1)}, {})
        for step in (4, 3):
            with pytest.raises(
                ValueError, match=rf"^step={step}: expected a step after 4"
            ):
                checkpoints.save_update(step, {"x": jnp.ones(1)}, {})
            with pytest.raises(ValueError, match=rf"^step={step}: .* update is saved"):
                checkpoints.save_rollout(step, {"x": jnp.ones(1)}, {})


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"^keep_last=0: expected at least 1"):
        RunCheckpoints(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match=r"^keep_every=-1: expected 0"):
        RunCheckpoints(tmp_path, keep_every=-1)
    with pytest.raises(ValueError, match=r"^keep_best=-1: expected 0"):
        RunCheckpoints(tmp_path, keep_best=-1)
    with RunCheckpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"^meta: expected JSON values, but .*set"):
            checkpoints.save_update(0, {"x": jnp.ones(1)}, {"seen": {1, 2}})
        assert checkpoints.update_steps() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"w": (4, 9)},
            r"params/w: float32\[4, 8\] in the checkpoint, float32\[4, 9\]",
        ),
        ({"w": None}, r"params/w: float32\[4, 8\] in the checkpoint, absent expected"),
        ({"v": (2,)}, r"params/v: absent in the checkpoint, float32\[2\] expected"),
    ],
)
def test_another_state_is_refused_by_name(tmp_path, change, message):
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(0, state_of(0), {})
        into = abstract(state_of(0))
        for name, shape in change.items():
            if shape is None:
                del into["params"][name]
            else:
                into["params"][name] = jax.ShapeDtypeStruct(shape, jnp.float32)
        with pytest.raises(ValueError, match=message):
            checkpoints.restore_update(0, into)


def test_another_dtype_is_refused_not_cast(tmp_path):
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save_update(0, {"x": jnp.ones(2)}, {})
        with pytest.raises(
            ValueError, match=r"x: float32\[2\] .* bfloat16\[2\] expected"
        ):
            checkpoints.restore_update(
                0, {"x": jax.ShapeDtypeStruct((2,), jnp.bfloat16)}
            )


# A run that does nothing but save, each step's arrays a function of the step.
SAVER = """
    import sys
    import jax.numpy as jnp
    from jaxrl_surrogate.storage.checkpoint import RunCheckpoints

    checkpoints = RunCheckpoints(sys.argv[1], keep_last=2, keep_every=5)
    newest = checkpoints.latest_update()
    step = 0 if newest is None else newest + 1
    waiting = checkpoints.rollout_steps()
    print("ready", flush=True)
    while True:
        if step not in waiting:
            batch = {"r": jnp.arange(999) + step}
            checkpoints.save_rollout(step, batch, {"step": step})
        state = {f"w{i}": jnp.full((40, 60), 100.0 * step + i) for i in range(12)}
        checkpoints.save_update(step, state, {"step": step})
        print("saved", flush=True)
        step += 1
"""


def check_run(directory):
    """Restore everything that is listed; return the newest update."""
    rollout = {"r": jax.ShapeDtypeStruct((999,), jnp.int32)}
    state = {f"w{i}": jax.ShapeDtypeStruct((40, 60), jnp.float32) for i in range(12)}
    with RunCheckpoints(directory, keep_last=2, keep_every=5) as checkpoints:
        steps = checkpoints.update_steps()
        for step in steps:
            found, meta = checkpoints.restore_update(step, state)
            assert meta == {"step": step}
            for i in range(12):
                assert (np.asarray(found[f"w{i}"]) == 100.0 * step + i).all()
        newest = steps[-1] if steps else -1
        assert checkpoints.rollout_steps() in ([], [newest + 1])
        for step in checkpoints.rollout_steps():
            found, meta = checkpoints.restore_rollout(step, rollout)
            assert meta == {"step": step}
            assert (np.asarray(found["r"]) == np.arange(999) + step).all()
    kept = {*range(0, newest + 1, 5), *range(max(newest - 1, 0), newest + 1)}
    assert set(steps) >= kept, "a checkpoint that was to be kept is gone"
    return newest


@pytest.mark.multiprocess
def test_kill_at_any_moment_leaves_whole_checkpoints(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    delays = random.Random(seed)
    newest = -1
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVER), str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "XLA_FLAGS": ""},
        )
        with process:
            for _ in range(delays.randint(1, 5)):
                assert process.stdout.readline() in (b"ready\n", b"saved\n")
            time.sleep(delays.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        found = check_run(tmp_path)
        assert found >= newest
        newest = found
