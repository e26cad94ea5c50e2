"""`jaxrl reproduce`: an honest run is confirmed, and what was changed is named."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_main_job import SMALL

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.training.state import abstract_state

pytestmark = pytest.mark.slow

STEPS = ["--train.steps=4", "--eval.prompts=0"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run with states after steps 0, 2 and 4, by a process of its own."""
    directory = tmp_path_factory.mktemp("runs") / "honest"
    config = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    subprocess.run(
        [sys.executable, "-m", "jaxrl_surrogate", "train", config,
         f"--run_dir={directory}", *SMALL, *STEPS],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        check=True,
        capture_output=True,
    )  # fmt: skip
    return directory


@pytest.fixture
def run(honest, tmp_path):
    return Path(shutil.copytree(honest, tmp_path / "run"))


def _verify(directory, *more):
    """The program as a user starts it: one device, as the run had."""
    return _python("-m", "jaxrl_surrogate", "verify", directory, *more)


def _python(*words):
    return subprocess.run(
        [sys.executable, *words],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )


@pytest.mark.ci
@pytest.mark.multiprocess
def test_an_honest_run_is_confirmed_and_left_as_it_is(honest, tmp_path):
    moved = Path(shutil.copytree(honest, tmp_path / "elsewhere"))
    before = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    done = _verify(moved)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same: steps 3 to 4" in done.stdout
    after = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.multiprocess
def test_the_whole_run_from_its_start(run):
    done = _verify(run, "--from", "0", "--json")
    found = json.loads(done.stdout)
    assert found["difference"] is None and found["changes"] == []
    assert (found["start"], found["last"]) == (0, 4)
    # 15 digests of each step's phases, and of every array of its state.
    assert found["compared"] > 4 * 15


@pytest.mark.multiprocess
def test_another_seed_is_caught_at_the_first_rollout(run):
    done = _verify(run, "--seed=1")
    assert done.returncode == 1
    assert "DIFFERENT at step 3, phase rollout: prompt_tokens, tokens" in done.stdout
    assert "seed: 0 then, 1 now" in done.stdout


@pytest.mark.multiprocess
def test_another_environment_is_named(run):
    done = _verify(run, "--seed=1", "--json")
    rows = (run / "events.jsonl").read_text().replace("cpu", "abacus")
    (run / "events.jsonl").write_text(rows)
    done = _verify(run, "--steps", "1")
    assert done.returncode == 0
    assert "device_kind: abacus then, cpu now" in done.stdout


CHANGED_VERIFIER = """
import sys
from jaxrl_surrogate import cli
from jaxrl_surrogate.tasks import Verdict
from jaxrl_surrogate.tasks.arithmetic import Arithmetic

honest = Arithmetic.verify

def lenient(self, problem, completion):
    verdict = honest(self, problem, completion)
    return Verdict(1.0) if completion.startswith("1") else verdict

Arithmetic.verify = lenient
sys.exit(cli.main(["verify", sys.argv[1]]))
"""


@pytest.mark.multiprocess
def test_a_changed_verifier_is_caught(run):
    done = _python("-c", CHANGED_VERIFIER, run)
    assert done.returncode == 1, done.stderr
    assert "DIFFERENT at step 3, phase verification: rewards" in done.stdout


@pytest.mark.ci
@pytest.mark.multiprocess
def test_one_changed_bit_of_one_parameter_is_caught(run):
    made = assembly.build_run(cli.load_config(run, []))
    abstract = abstract_state(made.model, made.optimizer, made.mesh)
    state, meta = StateReader(run).state(2, abstract)
    leaves, tree = jax.tree.flatten(state.trainable)
    bits = np.array(leaves[1])
    bits.reshape(-1).view(np.uint32)[7] ^= 1
    leaves[1] = bits
    changed = dataclasses.replace(state, trainable=jax.tree.unflatten(tree, leaves))
    shutil.rmtree(run / "checkpoints" / "update")
    with RunCheckpoints(run / "checkpoints") as store:
        store.save_update(2, changed, meta)
    done = _verify(run)
    assert done.returncode == 1
    line = next(x for x in done.stdout.splitlines() if x.startswith("DIFFERENT"))
    assert line.startswith("DIFFERENT at step 2, phase state: trainable/")
    assert "," not in line.partition("trainable/")[2]  # one array
    assert "nothing that was recorded" in done.stdout


def test_what_cannot_be_verified_is_said(run, tmp_path):
    for words, text in (
        ([str(tmp_path)], "has no config.yaml"),
        ([str(run), "--from", "3"], "one of 0, 2"),
        ([str(run), "--steps", "0"], "--steps=0"),
    ):
        with pytest.raises(FieldErrors, match=text):
            cli.run(*cli.parse(["verify", *words]))
    (run / "digests.jsonl").unlink()
    with pytest.raises(FieldErrors, match=r"log\.digests=true"):
        cli.run(*cli.parse(["verify", str(run)]))
