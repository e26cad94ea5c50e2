"""Commands that read a run change nothing in it, also while it is being written."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.lock import RunLock
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.storage.stops import DamagedCheckpoint
from jaxrl_surrogate.training.state import abstract_params, abstract_state

CONFIG = "configs/quickstart.yaml"
EVALUATION = ["--eval.prompts=8", "--eval.samples=4"]


def _state(made, step):
    """Of that step; every array has its own numbers, as after training."""
    draw = np.random.default_rng(step)

    def drawn(leaf):
        values = np.asarray(draw.normal(size=leaf.shape) + step).astype(leaf.dtype)
        return jax.device_put(values, leaf.sharding)

    return jax.tree.map(drawn, abstract_state(made.model, made.optimizer, made.mesh))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run directory with states after steps 0, 2 and 3, and its states."""
    directory = tmp_path_factory.mktemp("runs") / "stored"
    words = [f"--run_dir={directory}", *SMALL]
    config = cli.load_config(Path(CONFIG), words)
    assembly.open_directory(config)
    made = assembly.build_run(config)
    states = {step: _state(made, step) for step in (0, 2, 3)}
    with RunCheckpoints(directory / "checkpoints" / "start") as store:
        store.save_update(0, states[0], {})
    with RunCheckpoints(directory / "checkpoints") as store:
        for step in (2, 3):
            store.save_update(step, states[step], {"step": step})
    return directory, made, states


@pytest.fixture
def live(stored, tmp_path):
    """The same while its process stores step 4: lock held, half of it written."""
    return _copy(stored[0], tmp_path)


def _copy(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "live")
    directory = tmp_path / "live"
    for store in ("update", "rollout", "start/update"):
        place = directory / "checkpoints" / store
        half = place / "4.orbax-checkpoint-tmp" / "state"
        half.mkdir(parents=True)
        (half / "manifest.ocdbt").write_bytes(b"half")
        (place / "deleted" / "1").mkdir(parents=True)
        (place / "4.files.json").write_text("{}")
    return directory


def _tree(directory):
    """Name, size, time of change, number and bytes of all that is in a directory."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        body = path.read_bytes() if path.is_file() else None
        found[path] = status.st_size, status.st_mtime_ns, status.st_ino, body
    return found


@pytest.mark.parametrize("command", ["eval", "sample"])
def test_a_live_run_is_left_as_it_is(live, capsys, command):
    with RunLock(live):
        before = _tree(live)
        assert cli.main([command, str(live), *EVALUATION]) == 0
        assert _tree(live) == before
    assert "parameters after step 3" in capsys.readouterr().out


def test_starting_from_a_live_run_leaves_it_as_it_is(stored, live, tmp_path):
    words = [f"--run_dir={tmp_path / 'other'}", f"--model.init_from={live}", *SMALL]
    config = cli.load_config(Path(CONFIG), words)
    with RunLock(live):
        before = _tree(live)
        params = assembly.build_run(config).init_params(pytest.fail)
        assert _tree(live) == before
    _assert_same_bits(params, stored[2][3].params)


def _assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.sharding == b.sharding
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_what_was_stored_is_read(stored, live):
    _, made, states = stored
    reader = StateReader(live)
    assert reader.steps() == [0, 2, 3]
    whole = abstract_state(made.model, made.optimizer, made.mesh)
    params = abstract_params(made.model, made.mesh)
    for step in (0, 2, 3):
        _assert_same_bits(reader.params(step, params), states[step].params)
        state, meta = reader.state(step, whole)
        _assert_same_bits(state, states[step])
        assert meta == ({"step": step} if step else {})
    with pytest.raises(ValueError, match=r"step=1: no state in .*\[0, 2, 3\]"):
        reader.params(1, params)
    _, step = reader.newest_params(params)
    assert step == 3


def test_what_is_damaged_is_passed_over_and_left_where_it_is(stored, live, capsys):
    _, made, states = stored
    params = abstract_params(made.model, made.mesh)
    for path in (live / "checkpoints/update/3/state").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    before = _tree(live)
    told = []
    found, step = StateReader(live).newest_params(params, told.append)
    assert step == 2 and len(told) == 1
    assert "update/3" in told[0] and "holds other bytes" in told[0]
    _assert_same_bits(found, states[2].params)
    assert cli.main(["eval", str(live), *EVALUATION]) == 0
    printed = capsys.readouterr().out
    assert "warning: " in printed and "parameters after step 2" in printed
    assert _tree(live) == before
    for step in ("update/2", "start/update/0"):
        (live / "checkpoints" / step / "meta" / "metadata").unlink()
    with pytest.raises(DamagedCheckpoint, match="no stored state is sound"):
        StateReader(live).newest_params(params)


def test_without_a_manifest_the_parameters_are_compared_by_their_digests(stored, live):
    _, made, states = stored
    for path in (live / "checkpoints/update").glob("3.files.json"):
        path.unlink()
    shutil.rmtree(live / "checkpoints/update/3/state")
    shutil.copytree(
        live / "checkpoints/update/2/state", live / "checkpoints/update/3/state"
    )
    told = []
    params = abstract_params(made.model, made.mesh)
    found, step = StateReader(live).newest_params(params, told.append)
    assert step == 2 and "came back with other bits than were saved" in told[0]
    assert "trainable/" in told[0] and "opt_state" not in told[0]  # which were not read
    _assert_same_bits(found, states[2].params)


def test_parameters_alone_are_read(stored):
    directory, made, states = stored
    before = {id(array) for array in jax.live_arrays()}
    abstract = abstract_params(made.model, made.mesh)
    params = StateReader(directory).params(3, abstract)
    new = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(a.nbytes for a in new) == sum(a.nbytes for a in jax.tree.leaves(params))
    whole = sum(array.nbytes for array in jax.tree.leaves(states[3]))
    assert sum(a.nbytes for a in new) < 0.4 * whole


def test_a_run_without_a_state_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        StateReader(tmp_path / "none").newest_params({})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "eval", "sample", "verify"])
def test_a_run_of_another_format_is_refused_in_a_line(live, capsys, command):
    path = live / "checkpoints/update/3/meta/metadata"
    path.write_text(path.read_text().replace('"format": 3', '"format": 2'))
    assert cli.main([command, str(live)]) == 3
    told = capsys.readouterr().err
    assert (
        told.count("\n") == 1 and f"{path.parents[1]}: has checkpoint format 2" in told
    )
    assert "expected 3. Go on with the version that wrote it, jaxrl_surrogate 0" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train", CONFIG, "--model.init_from=LIVE", "--run_dir=LIVE/../other", *SMALL,
         "--sft.steps=0", "--train.steps=1", "--eval.prompts=0"],
        ["verify", "LIVE", "--from", "2"],
        ["verify", "LIVE", "--from", "0", "--steps", "1"],
        ["runs", "LIVE/.."],
        ["objective", "--replay", "LIVE"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_commands_that_read_a_trained_run(trained, tmp_path, words):
    live = _copy(trained, tmp_path)
    with RunLock(live):
        before = _tree(live)
        assert cli.main([word.replace("LIVE", str(live)) for word in words]) == 0
        assert _tree(live) == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with states after steps 0, 2 and 3 that holds to a reference policy."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    short = ["--sft.steps=2", "--train.steps=3", "--eval.prompts=0"]
    words = [f"--run_dir={directory}", *SMALL, *short, "--loss.kl_coef=0.1"]
    assert cli.main(["train", CONFIG, *words]) == 0
    return directory
