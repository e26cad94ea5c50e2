"""The compiled programs hold the collectives that the partitioning intends, no others.

On eight devices of a CPU and, where XLA's TPU compiler is installed, on a TPU slice.
"""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import MappingProxyType

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from plan_jobs import MODEL, small_job

from jaxrl_surrogate.lab.plan import topology
from jaxrl_surrogate.lab.plan.compile import compile_phase
from jaxrl_surrogate.lab.plan.intent import intended_decode, unintended
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.parallel import MeshConfig, partition

MESHES = [MeshConfig(2, 2, 2), MeshConfig(1, 4, 2), MeshConfig(1, 1, 8)]
PODS = [
    "cpu",
    pytest.param(
        "v5e:2x4",
        marks=pytest.mark.skipif(
            not topology.available(), reason="XLA's TPU compiler is not installed"
        ),
    ),
]


def _faults(phase, config, pod="cpu", **fields):
    where = topology.get(pod)
    job = small_job(config, **fields)
    mesh = job.make_mesh(where.devices)
    compiled = compile_phase(job, phase, where, mesh)
    assert compiled.cost.collectives
    return unintended(compiled.cost, phase, job, mesh)


@pytest.mark.parametrize("pod", PODS)
@pytest.mark.parametrize(
    "config",
    # The update of the second is compiled below, with a reference model in it.
    [MESHES[0], pytest.param(MESHES[1], marks=[pytest.mark.slow, pytest.mark.ci])],
    ids=str,
)
def test_an_update_gathers_a_layer_at_a_time(config, pod):
    assert _faults("update", config, pod) == ()


@pytest.mark.parametrize("pod", PODS)
@pytest.mark.parametrize("config", MESHES[:2], ids=str)
def test_a_token_needs_the_collectives_that_the_plan_lists(config, pod):
    assert _faults("rollout", config, pod) == ()


def test_layers_that_stay_split_are_gathered_by_every_token():
    job = small_job(MESHES[1])
    split = job.decode.with_rollout(gather_weights=False)
    assert _faults("rollout", MESHES[1], decode=split) == ()
    where = topology.get("cpu")
    mesh = job.make_mesh(where.devices)
    whole, less = (
        compile_phase(dataclasses.replace(job, decode=d), "rollout", where, mesh)
        for d in (job.decode, split)
    )
    parts = "decode weights"
    assert less.memory.parts[parts] < 0.65 * whole.memory.parts[parts]
    assert less.memory.total < whole.memory.total


def test_key_value_heads_that_do_not_split_are_no_fault():
    """More ways than key-value heads: whole on every device, and intended."""
    wide = dataclasses.replace(MODEL, num_heads=8)
    assert _faults("rollout", MESHES[2], model=wide) == ()


def test_a_reference_model_is_gathered_like_the_policy():
    assert _faults("update", MESHES[1], loss=LossConfig(kl_coef=0.1)) == ()


@pytest.mark.parametrize("pod", PODS)
def test_weights_that_are_not_gathered_beforehand_are_found(monkeypatch, pod):
    """Decoding with the layout of training: every token gathers every layer."""
    rules = MappingProxyType({**partition.DECODE_RULES, "embed": "fsdp"})
    monkeypatch.setattr(partition, "DECODE_RULES", rules)
    config = MESHES[1]
    with_rules = _faults("rollout", config, pod, max_prompt_length=11)
    assert any("no token should need it" in fault for fault in with_rules)


def test_a_matrix_that_is_gathered_over_tensor_is_found(monkeypatch):
    where = topology.get("cpu")
    job = small_job(MESHES[1], max_prompt_length=10)
    mesh = job.make_mesh(where.devices)
    intact = partition.COMPUTE_RULES
    rules = MappingProxyType({**intact, "mlp": None})
    monkeypatch.setattr(partition, "COMPUTE_RULES", rules)
    compiled = compile_phase(job, "update", where, mesh)
    monkeypatch.setattr(partition, "COMPUTE_RULES", intact)
    faults = unintended(compiled.cost, "update", job, mesh)
    assert any("should stay split over tensor" in fault for fault in faults)


def test_layers_that_are_gathered_all_at_once_are_found(monkeypatch):
    """What a loop over layers would do if its weights were laid out before it."""
    from jaxrl_surrogate import models

    # The package has a function of the module's name, which hides the module.
    module = importlib.import_module("jaxrl_surrogate.models.token_logprobs")
    monkeypatch.setattr(module, "shard_ends", models.shard_params)
    faults = _faults("update", MESHES[1], max_prompt_length=9)
    assert any("gathered at once" in fault for fault in faults)


def test_what_is_intended_is_said_with_its_reason():
    job = small_job(MESHES[1])
    mesh = job.make_mesh(jax.devices())
    rows = 8 // 4 * 4
    found = {i.reason: i.elements for i in intended_decode(job, mesh)}
    assert rows * 64 in found.values() and rows * 1152 in found.values()
    assert found["whether all ended"] == 1
