"""Damaged checkpoints: noticed whichever file it is, named, stepped over, set aside."""

import gc
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_surrogate.storage import manifest
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.stops import DamagedCheckpoint, NoRoom


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two updates and a rollout; what each holds."""
    directory = tmp_path_factory.mktemp("stored") / "checkpoints"
    trees = {step: _tree(step) for step in (2, 4, 5)}
    with RunCheckpoints(directory) as store:
        store.save_update(2, trees[2], {"prompts": {"position": 20}})
        store.save_update(4, trees[4], {"prompts": {"position": 40}})
        store.save_rollout(5, jax.tree.map(np.asarray, trees[5]), {"step": 5})
    return directory, trees


def _tree(seed):
    generator = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(generator.normal(size=(30, 20)), jnp.float32),
        "b": jnp.asarray(generator.normal(size=7), jnp.bfloat16),
        "step": jnp.int32(seed),
    }


def _into(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _same(found, tree):
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True)
    )


def _delete(path):
    path.unlink()


def _halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", [_delete, _halve, _flip])
def test_every_file_in_turn(stored, tmp_path, damage):
    """The newest update: the one before it is used, the file is named."""
    directory, trees = stored
    files = _files(directory / "update" / "4")
    assert len(files) > 8
    for number, file in enumerate(files):
        if file.stat().st_size == 0 and damage is not _delete:
            continue
        copy = tmp_path / str(number)
        shutil.copytree(directory, copy)
        victim = copy / file.relative_to(directory)
        damage(victim)
        told = []
        with RunCheckpoints(copy) as store:
            step, state, meta = store.newest_update(_into(trees[2]), told.append)
            assert (step, meta) == (2, {"prompts": {"position": 20}}), victim
            assert _same(state, trees[2])
            assert store.update_steps() == [2]
        assert len(told) == 1 and str(victim) in told[0], told
        assert "going on from step 2" in told[0]
        assert (copy / "damaged" / "update-4").is_dir()
        with RunCheckpoints(copy) as store:  # the step can be stored again
            store.save_update(4, trees[4], {})
            assert store.newest_update(_into(trees[4]))[0] == 4


@pytest.mark.parametrize("damage", [_delete, _halve, _flip])
def test_without_a_manifest_arrays_are_still_never_wrong(stored, tmp_path, damage):
    """As a kill between the directory's name and its manifest leaves a checkpoint."""
    directory, trees = stored
    caught = 0
    for number, file in enumerate(_files(directory / "update" / "4")):
        if file.stat().st_size == 0 and damage is not _delete:
            continue
        copy = tmp_path / str(number)
        shutil.copytree(directory, copy)
        manifest.manifest_path(copy / "update" / "4").unlink()
        damage(copy / file.relative_to(directory))
        with RunCheckpoints(copy) as store:
            step, state, meta = store.newest_update(_into(trees[2]))
        # Some files are of no use to a restore; then it is whole and used.
        caught += step == 2
        assert _same(state, trees[step])
        assert meta == {"prompts": {"position": 10 * step}}
    assert caught >= 3


def test_a_damaged_rollout_is_sampled_again(stored, tmp_path):
    directory, trees = stored
    like = jax.tree.map(np.asarray, trees[5])
    for file in _files(directory / "rollout" / "5"):
        copy = tmp_path / file.name / str(len(file.parts))
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        _delete(copy / file.relative_to(directory))
        told = []
        with RunCheckpoints(copy) as store:
            assert store.sound_rollout(5, like, "", told.append) is None
            assert store.rollout_steps() == []
            store.save_rollout(5, like, {"step": 5})
            batch, meta = store.sound_rollout(5, like, "")
            assert _same(batch, like) and meta == {"step": 5}
        assert "sampling step 5 again" in told[0]
        shutil.rmtree(copy)


def test_where_nothing_is_sound_nothing_is_moved(stored, tmp_path):
    directory, trees = stored
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    for step in (2, 4):
        _delete(copy / "update" / str(step) / "meta" / "metadata")
    for _ in range(2):  # the second time says the same
        with RunCheckpoints(copy) as store:
            with pytest.raises(DamagedCheckpoint, match="no stored state is") as e:
                store.newest_update(_into(trees[2]))
            assert "4/meta/metadata is missing" in str(e.value)
            assert "2/meta/metadata is missing" in str(e.value)
            assert store.update_steps() == [2, 4]
    assert not (copy / "damaged").exists()


def test_a_damaged_manifest_is_named(stored, tmp_path):
    directory, _ = stored
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    path = manifest.manifest_path(copy / "update" / "4")
    for damage in (_flip, _halve):
        damage(path)
        assert manifest.file_faults(copy / "update" / "4") == [f"{path} is damaged"]


def test_another_model_is_not_damage(stored, tmp_path):
    directory, trees = stored
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    into = _into(trees[4]) | {"w": jax.ShapeDtypeStruct((3, 3), jnp.float32)}
    with RunCheckpoints(copy) as store:
        with pytest.raises(ValueError, match=r"w: float32\[30, 20\]"):
            store.newest_update(into)
        assert store.update_steps() == [2, 4]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True)
    except OSError:
        pytest.skip("there is no program to mount a small file system with")
    if done.returncode:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_before_it_is_full(small_disk):
    state = {"w": jnp.zeros((256, 1024), jnp.float32)}  # 1 MiB, that zstd makes small
    with RunCheckpoints(small_disk, keep_last=9) as store:
        store.save_update(1, state, {})
        store.wait()
        (small_disk / "other").write_bytes(bytes(4 << 20))
        with pytest.raises(NoRoom, match=r"no room to store step 2: 5 MiB are needed"):
            store.save_update(2, state, {})
        assert store.newest_update(_into(state))[0] == 1
        (small_disk / "other").unlink()
        store.save_update(2, state, {})
    with RunCheckpoints(small_disk) as store:
        assert store.newest_update(_into(state))[0] == 2


def test_a_disk_that_fills_while_a_state_is_written(small_disk, monkeypatch, capfd):
    """One line says it, and none of the libraries' threads prints a traceback."""
    random = np.random.default_rng(0)  # what does not shrink
    state = {
        name: jnp.asarray(random.normal(size=(256, 256)), jnp.float32)
        for name in "abcdef"
    }
    with RunCheckpoints(small_disk, keep_last=9) as store:
        store.save_update(1, state, {})
        store.wait()
        free = shutil.disk_usage(small_disk).free
        (small_disk / "other").write_bytes(bytes(free - (1 << 19)))
        monkeypatch.setattr(store._updates, "_check_room", lambda *args: None)
        with pytest.raises(NoRoom, match=r"No space left .* Make room and start"):
            store.save_update(2, state, {})
            store.wait()
        (small_disk / "other").unlink()
    with RunCheckpoints(small_disk, keep_last=9) as store:
        assert store.newest_update(_into(state))[0] == 1
        store.save_update(2, state, {})
    assert "Traceback" not in capfd.readouterr().err
    gc.collect()  # what is left of the failed save, while there is an interpreter
