"""What is held at once: never a second whole state, never moments that nobody needs."""

import gc
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from test_readers import CONFIG, SMALL, stored  # noqa: F401

from jaxrl_surrogate import assembly, cli, models, rng
from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.storage.stops import DamagedCheckpoint
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.optimizer import OptimizerConfig, make_optimizer
from jaxrl_surrogate.training.state import init_state


def _live_bytes():
    return sum(array.nbytes for array in jax.live_arrays())


def _bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


class WatchingLog(RunLog):
    """A log that remembers the most that was held when something was logged."""

    def __init__(self, directory):
        super().__init__(directory, 2)
        gc.collect()
        self.before, self.most = _live_bytes(), 0

    def supervised(self, *row):
        self.watch()
        super().supervised(*row)

    def watch(self):
        self.most = max(self.most, _live_bytes() - self.before)


def _run(directory, *words):
    config = cli.load_config(Path(CONFIG), [f"--run_dir={directory}", *SMALL, *words])
    return assembly.build_run(config)


def test_the_warm_start_holds_its_own_moments_alone(tmp_path):
    run = _run(tmp_path / "run", "--sft.steps=3")
    log = WatchingLog(tmp_path / "run")
    state = loop.starting_state(run, log)
    params = _bytes(state.params)
    assert _bytes(state) > 2.9 * params
    # Parameters and two moments, and a batch; moments of the run's own came on top.
    assert 2.9 * params < log.most < 3.5 * params


def test_resuming_with_a_reference_reads_its_parameters_alone(
    stored,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    directory, _, states = stored
    shutil.copytree(directory / "checkpoints/start", tmp_path / "run/checkpoints/start")
    run = _run(
        tmp_path / "run", "--loss.kl_coef=0.1", "--train.steps=2", "--eval.prompts=0"
    )
    meta = {"before": {}, "after": {}, "prompts": run.prompts.state()}
    with RunCheckpoints(tmp_path / "run/checkpoints") as store:
        store.save_update(2, states[2], meta)
    log = WatchingLog(tmp_path / "run")
    taken = digests.device_digests

    def watched(arrays):  # what was restored is looked at while all of it is held
        log.watch()
        return taken(arrays)

    monkeypatch.setattr(digests, "device_digests", watched)
    outcome = loop.train(run, log)
    assert outcome.finished and outcome.step == 2
    assert digests.state_digests(outcome.state) == digests.state_digests(states[2])
    params, whole = _bytes(states[2].params), _bytes(states[2])
    assert whole + 0.9 * params < log.most < whole + 1.5 * params


def test_a_damaged_reference_names_the_way_out(stored, tmp_path):  # noqa: F811
    directory, _, states = stored
    start = tmp_path / "run/checkpoints/start"
    shutil.copytree(directory / "checkpoints/start", start)
    words = ["--loss.kl_coef=0.1", "--train.steps=2", "--eval.prompts=0"]
    run = _run(tmp_path / "run", *words, "--sft.steps=0")
    meta = {"before": {}, "after": {}, "prompts": run.prompts.state()}
    with RunCheckpoints(tmp_path / "run/checkpoints") as store:
        store.save_update(2, states[2], meta)
    (start / "update/0/meta/metadata").unlink()
    with pytest.raises(DamagedCheckpoint, match=f"Remove {start} to make the starting"):
        loop.train(run, WatchingLog(tmp_path / "run"))
    shutil.rmtree(start)
    assert loop.train(run, WatchingLog(tmp_path / "run")).finished
    assert StateReader(tmp_path / "run").steps() == [0, 2]


def test_parameters_are_drawn_as_ever_and_taken_over(tmp_path):
    """Drawn apart from the moments, which are made around the same arrays."""
    run = _run(tmp_path / "run")
    gc.collect()
    before = _live_bytes()
    state = init_state(run.model, run.optimizer, run.mesh, 5)
    assert _live_bytes() - before == _bytes(state)
    drawn = jax.jit(lambda key: models.init_params(run.model, key))
    for found, expected in zip(
        jax.tree.leaves(state.params),
        jax.tree.leaves(drawn(rng.stream_key(5, "init"))),
        strict=True,
    ):
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    for leaf in jax.tree.leaves(state.opt_state):
        assert not np.asarray(leaf).any()


def _moved(jaxpr):
    """Entries of every array that a program moves between memories."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "device_put":
            yield from (variable.aval.size for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from _moved(inner)


def test_digests_fetch_offloaded_moments_a_layer_at_a_time(tmp_path):
    run = _run(tmp_path / "run")
    optimizer = make_optimizer(
        OptimizerConfig(offload=True), 10, models.logical_axes(run.model)
    )
    state = init_state(run.model, optimizer, run.mesh, 1)
    moments = [a for a in jax.tree.leaves(state.opt_state) if a.ndim >= 3]
    assert moments and {a.sharding.memory_kind for a in moments} == {offload.HOST}
    for array in moments:
        program = jax.make_jaxpr(digests._fingerprint_of_host)(array)
        assert list(_moved(program.jaxpr)) == [array.size // array.shape[0]]
