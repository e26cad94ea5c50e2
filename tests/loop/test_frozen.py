"""Frozen parameters through a whole run: they stay, and are stored once."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.storage.stops import DamagedCheckpoint
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training.freezing import leaf_paths, split
from jaxrl_surrogate.training.state import abstract_params, init_params

CONFIG = "configs/quickstart.yaml"
WORDS = [
    *SMALL,
    "--model.freeze=[embed, mlp/up]",
    "--train.steps=2",
    "--checkpoint.every=1",
    "--eval.prompts=0",
    "--loss.kl_coef=0.1",
]
FROZEN = {"embedding", "layers/mlp/up/kernel"}


def _train(directory, *words):
    config = cli.load_config(Path(CONFIG), [f"--run_dir={directory}", *WORDS, *words])
    run = assembly.build_run(config)
    assembly.open_directory(config)
    with RunLog(run.directory, 2) as log:
        return run, loop.train(run, log).state


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("frozen") / "run")


def _record(directory, step):
    store = "update" if step else "start/update"
    path = directory / f"checkpoints/{store}/{step}/meta/metadata"
    return json.loads(path.read_text())


def test_frozen_parameters_stay_and_have_no_moments(trained):
    run, state = trained
    drawn = init_params(run.model, run.mesh, run.seed)
    assert set(leaf_paths(state.frozen)) == FROZEN
    jax.tree.map(
        np.testing.assert_array_equal, state.frozen, split(drawn, run.is_frozen)[1]
    )
    for new, old in zip(
        jax.tree.leaves(state.trainable),
        jax.tree.leaves(split(drawn, run.is_frozen)[0]),
        strict=True,
    ):
        assert not np.array_equal(new, old)
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(state.opt_state) == 2 * size(state.trainable) + 8  # and two counters


def test_they_are_stored_with_the_starting_state_alone(trained):
    run, state = trained
    start, last = _record(run.directory, 0), _record(run.directory, 2)
    assert {f"frozen/{path}" for path in FROZEN} <= start["arrays"].keys()
    assert not any(name.startswith("frozen/") for name in last["arrays"])
    assert set(last["frozen"]) == FROZEN and not start["frozen"]
    assert last["frozen"] == digests.named_digests(state.frozen)
    rows = (run.directory / "digests.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        for path in FROZEN:
            assert row["state"][f"frozen/{path}"] == last["frozen"][path]
    reader, abstract = StateReader(run.directory), abstract_params(run.model, run.mesh)
    for found in (reader.params(2, abstract), reader.newest_params(abstract)[0]):
        jax.tree.map(np.testing.assert_array_equal, found, state.params)


def test_a_resumed_run_has_the_same_bits(trained, tmp_path):
    run, state = trained
    directory = tmp_path / "run"
    shutil.copytree(run.directory, directory)
    shutil.rmtree(directory / "checkpoints/update/2")
    shutil.rmtree(directory / "checkpoints/start")  # is made again as it was
    _, again = _train(directory)
    assert digests.named_digests(again) == digests.named_digests(state)
    assert cli.main(["verify", str(directory), "--from", "0"]) == 0
    # A starting state of another seed has other frozen parameters.
    shutil.rmtree(directory / "checkpoints/start")
    _train(tmp_path / "other", "--seed=1", "--train.steps=0")
    shutil.copytree(
        tmp_path / "other/checkpoints/start", directory / "checkpoints/start"
    )
    with pytest.raises(DamagedCheckpoint, match="other frozen parameters than"):
        _train(directory)


def test_what_a_plan_counts():
    config = cli.load_config(Path(CONFIG), SMALL)
    frozen = cli.load_config(Path(CONFIG), [*SMALL, "--model.freeze=[embed]"])
    sizes = []
    for one in (config, frozen):
        job = assembly.build_job(one, "cpu")
        state = job.abstract_state(job.make_mesh(jax.devices()[:1]))
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(state)))
    assert sizes[0] - sizes[1] == 2 * state.params["embedding"].size


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("[lm_head]", "model.freeze='lm_head': matches no parameter"),
        ("['.']", "model.freeze=['.']: matches every parameter"),
    ],
)
def test_a_freeze_that_does_nothing_is_refused(capsys, tmp_path, word, said):
    words = [f"--run_dir={tmp_path / 'run'}", *SMALL, f"--model.freeze={word}"]
    assert cli.main(["train", CONFIG, *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "layers/attention/q/kernel" in told
    assert not (tmp_path / "run").exists()
