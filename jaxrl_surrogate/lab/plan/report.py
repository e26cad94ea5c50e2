"""Makes a plan: memory and time of a step's phases, compiled for a topology."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxrl_surrogate.lab.plan.compile import PHASES, CompiledPhase, compile_phase
from jaxrl_surrogate.lab.plan.estimate import model_flops
from jaxrl_surrogate.lab.plan.intent import unintended
from jaxrl_surrogate.lab.plan.job import Job
from jaxrl_surrogate.lab.plan.roofline import Roofline, roofline
from jaxrl_surrogate.lab.plan.topology import Topology

ASSUMPTIONS = (
    "every completion and prompt is as long as the config allows",
    "products run at the bfloat16 peak, bytes at full bandwidth, collectives alone",
    "what the compiler starts early hides behind other work, the rest behind nothing",
    "verification, the host, checkpoints and evaluation take no time",
    "model flops: 2 a parameter and token, 6 with a backward pass; causal attention",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Predicted memory and time of a step on a topology."""

    name: str
    job: Job
    topology: Topology
    mesh: jax.sharding.Mesh
    phases: dict[str, CompiledPhase]
    rooflines: dict[str, Roofline | None]  # None: the phase could not be compiled

    @property
    def fits(self) -> bool:
        """Whether every phase could be compiled and fits in the chip's memory."""
        return all(
            phase.cost is not None and phase.memory.fits
            for phase in self.phases.values()
        )

    @property
    def peak_bytes(self) -> int:
        """Peak bytes on a chip in the phase that needs most."""
        return max(phase.memory.total for phase in self.phases.values())

    @property
    def compile_seconds(self) -> float:
        """Seconds to lower and compile both phases."""
        return sum(phase.seconds for phase in self.phases.values())

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a rollout and its updates; None if one of them is unknown."""
        times = {
            name: line.seconds if line is not None else None
            for name, line in self.rooflines.items()
        }
        if None in times.values():
            return None
        return times["rollout"] + self.job.loop.updates * times["update"]

    @property
    def unintended(self) -> dict[str, tuple[str, ...]]:
        """Descriptions of each phase's collectives that are not intended."""
        return {
            name: unintended(phase.cost, name, self.job, self.mesh)
            for name, phase in self.phases.items()
            if phase.cost is not None
        }

    @property
    def utilisation(self) -> float | None:
        """Model-flops utilisation (MFU) of a step; None if its time is unknown."""
        seconds = self.step_seconds
        if seconds is None:
            return None
        peak = self.topology.chip.peak_flops * self.topology.num_chips
        return sum(model_flops(self.job).values()) / (peak * seconds)

    @property
    def network_share(self) -> float | None:
        """Time of all collectives, also overlapped ones, over that of a step."""
        seconds = self.step_seconds
        if seconds is None:
            return None
        lines = self.rooflines
        network = lines["rollout"].network_seconds
        network += self.job.loop.updates * lines["update"].network_seconds
        return network / seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; bytes and flops of phases are for one chip."""
        return {
            "name": self.name,
            "topology": self.topology.name,
            "chip": dataclasses.asdict(self.topology.chip),
            "chips": self.topology.num_chips,
            "mesh": dict(self.mesh.shape),
            "fits": self.fits,
            "peak_bytes": self.peak_bytes,
            "compile_seconds": self.compile_seconds,
            "step_seconds": self.step_seconds,
            "model_flops": model_flops(self.job),
            "mfu": self.utilisation,
            "network_share": self.network_share,
            "updates_per_step": self.job.loop.updates,
            "assumptions": list(ASSUMPTIONS),
            "unintended_collectives": {k: list(v) for k, v in self.unintended.items()},
            "phases": {
                name: _phase_dict(phase, self.rooflines[name])
                for name, phase in self.phases.items()
            },
        }


def make_plan(
    job: Job,
    topology: Topology,
    name: str = "plan",
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Plan:
    """Compile the rollout and the update of a job for a topology.

    Args:
      job: programs of the step.
      topology: result of `topology.get`.
      name: name of the plan.
      on_phase: called with the name of each phase before it is compiled.

    Raises:
      ValueError: the mesh does not fit the topology or the batch.
    """
    mesh = job.make_mesh(topology.devices)
    phases, lines = {}, {}
    for phase in PHASES:
        on_phase(phase)
        made = phases[phase] = compile_phase(job, phase, topology, mesh)
        known = made.cost is not None
        lines[phase] = roofline(made.cost, topology, mesh) if known else None
    return Plan(name, job, topology, mesh, phases, lines)


def _phase_dict(phase: CompiledPhase, line: Roofline | None) -> dict[str, Any]:
    found = {
        "compile_seconds": phase.seconds,
        "compiled": phase.cost is not None,
        "fits": phase.cost is not None and phase.memory.fits,
        "memory": phase.memory.parts,
        "peak_bytes": phase.memory.total,
        "usable_bytes": phase.memory.usable,
    }
    if line is None:
        return found
    return found | {
        "flops": line.flops,
        "hbm_bytes": line.hbm_bytes,
        "compute_seconds": line.compute_seconds,
        "hbm_seconds": line.hbm_seconds,
        "ici_seconds": line.network_seconds,
        "seconds": line.seconds,
        "bound": line.bound,
        "loops_of_unknown_length": any(w.unknown_trips for w in phase.cost.work),
        "collectives": [
            {
                "kind": t.kind,
                "axes": list(t.axes),
                "times": t.times,
                "bytes": t.bytes,
                "seconds": t.seconds,
                "overlapped_seconds": t.overlapped_seconds,
                "sources": list(t.sources),
            }
            for t in line.traffic
        ],
    }
