"""Compiles the phases of a step for a topology, even if they do not fit in memory."""

import dataclasses
import re
import time
from typing import Literal

import jax

from jaxrl_surrogate.lab.plan.cost import Cost, read_cost
from jaxrl_surrogate.lab.plan.job import Job, cache_arrays, decode_weights, shard_bytes
from jaxrl_surrogate.lab.plan.topology import Topology
from jaxrl_surrogate.training import offload

Phase = Literal["rollout", "update"]
PHASES: tuple[Phase, ...] = ("rollout", "update")

_NEEDED = re.compile(r"\(?([\d.]+)([KMGT])\)? exceeds", re.IGNORECASE)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes in the memory of one device while a phase runs."""

    parts: dict[str, int]  # by what they are used for
    usable: int  # what a program may use

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the peak is within the memory that a program may use."""
        return self.total <= self.usable


@dataclasses.dataclass(frozen=True)
class CompiledPhase:
    """A compiled phase: its memory and its work."""

    name: Phase
    memory: Memory
    cost: Cost | None  # None: the compiler refused it for lack of memory
    seconds: float  # time to lower and compile it


def compile_phase(
    job: Job, phase: Phase, topology: Topology, mesh: jax.sharding.Mesh
) -> CompiledPhase:
    """Compile one phase, and read memory and work from the executable.

    Args:
      job: the step.
      phase: "rollout" or "update".
      topology: devices to compile for.
      mesh: the job's mesh on these devices.

    Raises:
      JaxRuntimeError: the compiler fails for another reason than lack of memory.
    """
    began = time.perf_counter()
    lowered = job.lower(phase, mesh)
    held = _held(job, phase, mesh)
    usable = topology.chip.usable_bytes
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _NEEDED.search(str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or not needed:
            raise
        workspace = int(float(needed[1]) * _UNITS[needed[2].upper()])
        parts = _split(held, workspace, 0)
        seconds = time.perf_counter() - began
        return CompiledPhase(phase, Memory(parts, usable), None, seconds)
    seconds = time.perf_counter() - began
    stats = compiled.memory_analysis()
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    code = stats.generated_code_size_in_bytes
    parts = _split(held, stats.temp_size_in_bytes + max(0, outputs), code)
    cost = read_cost(compiled.as_text(), mesh.size)
    return CompiledPhase(phase, Memory(parts, usable), cost, seconds)


def host_bytes(job: Job, mesh: jax.sharding.Mesh) -> int:
    """Return the bytes of one device's train state that are kept in host memory."""
    return sum(
        shard_bytes(leaf, leaf.sharding)
        for leaf in jax.tree.leaves(job.abstract_state(mesh))
        if leaf.sharding.memory_kind == offload.HOST
    )


def _held(job: Job, phase: Phase, mesh: jax.sharding.Mesh) -> dict[str, int]:
    """Return the bytes in use during the whole phase, by what they are used for."""
    state = job.abstract_state(mesh)

    def size(tree):
        return sum(
            shard_bytes(leaf, leaf.sharding)
            for leaf in jax.tree.leaves(tree)
            if leaf.sharding.memory_kind != offload.HOST
        )

    held = {
        "parameters": size(state.params),
        "optimizer": size(state.opt_state),
    }
    if job.loss.kl_coef:
        held["reference"] = size(state.trainable)
    if phase == "update":
        return held | {"gradients": size(state.trainable)}
    return held | {
        "decode weights": sum(
            shard_bytes(*p) for p in decode_weights(job, mesh).values()
        ),
        "kv cache": sum(shard_bytes(*p) for p in cache_arrays(job, mesh).values()),
    }


def _split(held: dict[str, int], workspace: int, code: int) -> dict[str, int]:
    """Return all memory of a phase by part, naming known parts of the workspace.

    The compiler reuses memory, so the named parts may exceed the workspace. The last of
    them are then cut, so that the sum is the compiler's own.
    """
    parts, left = {}, workspace
    for name, size in held.items():
        inside = name in ("gradients", "decode weights", "kv cache")
        parts[name] = min(size, left) if inside else size
        left -= parts[name] if inside else 0
    rest = "activations" if "gradients" in held else "workspace"
    return parts | {rest: left, "code": code}
