"""Compile the phases of a step for a topology; what does not fit is a result too."""

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
    """Bytes on one device while a phase runs."""

    parts: dict[str, int]  # what they are for
    usable: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the peak is within what a program may have."""
        return self.total <= self.usable


@dataclasses.dataclass(frozen=True)
class CompiledPhase:
    """A phase as the compiler made it."""

    name: Phase
    memory: Memory
    cost: Cost | None  # None: refused for want of memory
    seconds: float  # to lower and compile


def compile_phase(
    job: Job, phase: Phase, topology: Topology, mesh: jax.sharding.Mesh
) -> CompiledPhase:
    """Compile one phase and read memory and work from the executable."""
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
    """Bytes of the train state that one device leaves in its host's memory."""
    return sum(
        shard_bytes(leaf, leaf.sharding)
        for leaf in jax.tree.leaves(job.abstract_state(mesh))
        if leaf.sharding.memory_kind == offload.HOST
    )


def _held(job: Job, phase: Phase, mesh: jax.sharding.Mesh) -> dict[str, int]:
    """Bytes that stay for a whole phase, by what they are for."""
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
    """Everything a phase needs; what the workspace is known to hold is named.

    The compiler reuses memory, so that the last names can overlap: no part is negative
    and the sum is the compiler's own.
    """
    parts, left = {}, workspace
    for name, size in held.items():
        inside = name in ("gradients", "decode weights", "kv cache")
        parts[name] = min(size, left) if inside else size
        left -= parts[name] if inside else 0
    rest = "activations" if "gradients" in held else "workspace"
    return parts | {rest: left, "code": code}
