"""A plan beside the programs when they run: operations and memory, on this CPU.

Operations are counted again by a walk over the traced program, which knows nothing of
the compiler. Memory is what the process grows by.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from plan_jobs import small_job

from jaxrl_surrogate.lab.plan import make_plan, topology
from jaxrl_surrogate.parallel import MeshConfig
from jaxrl_surrogate.rollout import DecodeConfig, RolloutConfig
from jaxrl_surrogate.training.step import make_update


def _flops(jaxpr, times, loops):
    """Two for every multiplication of products; `loops`: trips of while loops."""
    total = 0
    for equation in jaxpr.eqns:
        params = equation.params
        if equation.primitive.name == "dot_general":
            (left, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            contracted = math.prod(shape[axis] for axis in left)
            total += times * 2 * math.prod(equation.outvars[0].aval.shape) * contracted
        elif equation.primitive.name == "scan":
            inner = times * params["length"]
            total += _flops(params["jaxpr"].jaxpr, inner, loops)
        elif equation.primitive.name == "while":
            total += _flops(params["body_jaxpr"].jaxpr, times * loops.pop(0), loops)
        else:
            for value in params.values():
                for inner in value if isinstance(value, tuple | list) else [value]:
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        total += _flops(inner, times, loops)
    return total


def test_operations_are_those_of_the_program_that_runs():
    """On one device, where nothing is split."""
    job = small_job(MeshConfig(1, 1, 1))
    where = dataclasses.replace(topology.get("cpu"), devices=jax.devices()[:1])
    plan = make_plan(job, where)
    mesh = job.make_mesh(where.devices)
    update = make_update(job.model, job.update, job.optimizer, mesh)
    state = job.abstract_state(mesh)
    traced = update.trace(state, job._batch(mesh), job.objective, None)
    expected = _flops(traced.jaxpr.jaxpr, 1, [])
    assert plan.rooflines["update"].flops == pytest.approx(expected, rel=0.1)

    from jaxrl_surrogate.rollout import rollout

    key = jax.random.key(0)
    prompts = job._prompts(mesh, job.rollout.prompts_per_step)
    traced = rollout.trace(job.model, job.decode, state.params, prompts, key, mesh)
    expected = _flops(traced.jaxpr.jaxpr, 1, [job.rollout.max_completion_length])
    assert plan.rooflines["rollout"].flops == pytest.approx(expected, rel=0.1)


# In a process of its own: what it grows by from before the arrays to the highest.
_MEASURE = """
import gc, json, sys
sys.path.insert(0, {folder!r})
from test_plan_actual import large_job, one_device, run_phase, peak, resident, reset
from jaxrl_surrogate.lab.plan.compile import compile_phase
job, where = large_job(), one_device()
plan = compile_phase(job, {phase!r}, where, job.make_mesh(where.devices))
run = run_phase(job, where, {phase!r})
run()
gc.collect()
reset()
before = resident()
run()
print(json.dumps({{"planned": plan.memory.total, "measured": peak() - before}}))
"""


def large_job():
    """Half a GiB of activations and more: what the process itself does is small."""
    from plan_jobs import MODEL

    model = dataclasses.replace(
        MODEL, vocab_size=4096, num_layers=4, embed_dim=256, head_dim=64, mlp_dim=1024
    )
    return small_job(
        MeshConfig(1, 1, 1),
        model=model,
        decode=DecodeConfig(
            RolloutConfig(
                prompts_per_step=16,
                group_size=16,
                max_prompt_length=12,
                max_completion_length=96,
            ),
            stop_tokens=(),
        ),
        objective=_objective(16),
    )


def _objective(size):
    from jaxrl_surrogate import objectives

    return objectives.table_family(objectives.advantages.get("rloo").table, size)


def one_device():
    """The first CPU alone."""
    return dataclasses.replace(topology.get("cpu"), devices=jax.devices()[:1])


def run_phase(job, where, phase):
    """A compiled phase as a function that makes its inputs and runs it."""
    mesh = job.make_mesh(where.devices)
    compiled = job.lower(phase, mesh).compile()
    random = np.random.default_rng(0)

    def fill(leaf):
        if leaf.dtype == bool:
            value = np.ones(leaf.shape, bool)
        elif np.issubdtype(leaf.dtype, np.floating):
            value = random.normal(size=leaf.shape).astype(leaf.dtype)
        else:
            value = np.ones(leaf.shape, leaf.dtype)
        return jax.device_put(value, leaf.sharding)

    state = job.abstract_state(mesh)
    if phase == "update":
        inputs = (state, job._batch(mesh), job.objective)
    else:
        inputs = (state.params, job._prompts(mesh, job.rollout.prompts_per_step))

    def run():
        arrays = jax.tree.map(
            lambda leaf: fill(leaf) if hasattr(leaf, "sharding") else leaf, inputs
        )
        if phase == "update":
            out = compiled(*arrays, None, {})
        else:
            held = jax.tree.map(fill, state.opt_state)  # it stays while one rolls out
            out = (compiled(*arrays, jax.random.key(0)), held)
        return jax.block_until_ready(out)

    return run


def resident():
    """Bytes of this process."""
    return _status("VmRSS")


def peak():
    """The most since `reset`."""
    return _status("VmHWM")


def reset():
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("phase", ["update", "rollout"])
def test_memory_is_what_the_process_grows_by(phase):
    code = _MEASURE.format(folder=str(Path(__file__).parent), phase=phase)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            # What is freed is given back at once.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["planned"] > 2**27
    assert found["planned"] == pytest.approx(found["measured"], rel=0.1), found
