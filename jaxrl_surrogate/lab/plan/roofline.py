"""Predicts the time of a phase from compute, HBM and the network between chips.

Assumptions: matrix products run at the chip's bfloat16 peak, and bytes move at full
bandwidth. Compute and memory traffic overlap within an instruction, but not between
instructions. A collective shares the network with no other traffic. Asynchronous
collectives overlap with all other work, and the others with none. Most of these make
the predicted time too short rather than too long.
"""

import dataclasses
import math

import jax
import numpy as np

from jaxrl_surrogate.lab.plan.collectives import Collective
from jaxrl_surrogate.lab.plan.cost import Cost
from jaxrl_surrogate.lab.plan.topology import HOP_SECONDS, Topology


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of one kind along the same mesh axes."""

    kind: str
    axes: tuple[str, ...]
    times: int
    bytes: float  # sent by one chip
    seconds: float | None  # None: the link bandwidth is unknown
    overlapped_seconds: float | None  # part of `seconds` that is beside other work
    sources: tuple[str, ...]  # names of the JAX operations


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Work and predicted time of a phase on one chip; times are None if unknown."""

    flops: float
    hbm_bytes: float
    compute_seconds: float | None  # all matrix products at peak
    hbm_seconds: float | None  # all bytes at full bandwidth
    busy_seconds: float | None  # sum over instructions of the slower of the two
    traffic: tuple[Traffic, ...]
    seconds: float | None  # of the whole phase
    bound: str | None  # what takes most of the time: compute, HBM, ICI or network

    @property
    def network_seconds(self) -> float | None:
        """Seconds of all collectives, overlapped or not."""
        if self.seconds is None:
            return None
        return sum(t.seconds for t in self.traffic)


def roofline(cost: Cost, topology: Topology, mesh: jax.sharding.Mesh) -> Roofline:
    """Predict the time of a phase from its work and the chip's published figures.

    Args:
      cost: work of the phase on one device.
      topology: devices and the network between them.
      mesh: mesh of the program.

    Returns:
      The roofline; its times are None if figures of the chip are unknown.
    """
    chip = topology.chip
    known = None not in (chip.peak_flops, chip.hbm_bandwidth, chip.link_bandwidth)
    traffic = _traffic(cost, topology, mesh)
    if not known:
        return Roofline(cost.flops, cost.bytes, None, None, None, traffic, None, None)
    by_compute = by_memory = 0.0
    for work in cost.work:
        compute = work.flops / chip.peak_flops
        memory = work.bytes / chip.hbm_bandwidth
        if compute > memory:
            by_compute += work.times * compute
        else:
            by_memory += work.times * memory
    busy = by_compute + by_memory
    hidden = sum(t.overlapped_seconds for t in traffic)
    exposed = sum(t.seconds for t in traffic) - hidden
    shares = {
        "compute": by_compute,
        "HBM": by_memory,
        "ICI" if topology.slices == 1 else "network": exposed + max(0.0, hidden - busy),
    }
    return Roofline(
        flops=cost.flops,
        hbm_bytes=cost.bytes,
        compute_seconds=cost.flops / chip.peak_flops,
        hbm_seconds=cost.bytes / chip.hbm_bandwidth,
        busy_seconds=busy,
        traffic=traffic,
        seconds=max(busy, hidden) + exposed,
        bound=max(shares, key=shares.get),
    )


def collective_seconds(
    each: Collective, topology: Topology, mesh: jax.sharding.Mesh
) -> float | None:
    """Return the seconds of one run of a collective, or None if they are unknown.

    They are the maximum of bandwidth time and hop latency within a slice, plus the time
    on the data-centre network (DCN). Bytes use the links of all network dimensions that
    the group extends in, in both directions if it closes a ring (scaling book,
    chapter 3).

    Args:
      each: the collective.
      topology: devices and the network between them.
      mesh: mesh of the program.
    """
    link = topology.chip.link_bandwidth
    if link is None:
        return None
    extents = _extents(each, topology, mesh)
    links = hops = 0
    for extent, size, ring in zip(
        extents, topology.shape, topology.rings(), strict=True
    ):
        if extent > 1:
            closed = ring and extent == size
            links += 2 if closed else 1
            hops += extent // 2 if closed else extent - 1
    between = _between_slices(each, topology, mesh)
    if not hops:
        return between
    sweeps = 2 if each.kind == "all-reduce" else 1
    if each.kind == "all-to-all":  # bytes go half the way on average, both ways at once
        moved = each.bytes * max(extents) / 4
    elif each.kind == "collective-permute":
        moved, links = each.bytes, 1
    else:
        moved = sent_bytes(each)
    return between + max(moved / (links * link), sweeps * hops * HOP_SECONDS)


def _between_slices(each, topology, mesh) -> float:
    """Return the seconds on the data-centre network; a slice sends shared data once."""
    members = each.groups[0]
    number = len({topology.slice_of(mesh.devices.flat[i]) for i in members})
    if number == 1:
        return 0.0
    share = each.bytes * number / len(members)
    across = dataclasses.replace(each, bytes=share, groups=np.arange(number)[None])
    return sent_bytes(across) / topology.chip.slice_bandwidth


def sent_bytes(each: Collective) -> float:
    """Return the bytes that one chip sends in one run of a collective."""
    n = each.members
    match each.kind:
        case "all-gather" | "reduce-scatter":
            return each.bytes * (n - 1) / n
        case "all-reduce":
            return 2 * each.bytes * (n - 1) / n
        case "all-to-all" | "ragged-all-to-all":
            return each.bytes * (n - 1) / n
        case _:
            return float(each.bytes)


def _extents(each, topology, mesh):
    """Return how many positions a group has along each dimension of the network."""
    devices = mesh.devices.flat
    places = np.array([topology.coordinates(devices[i]) for i in each.groups[0]])
    return [len(set(column)) for column in places.T]


def _traffic(cost, topology, mesh):
    sums: dict[tuple, list] = {}
    for work in cost.collectives:
        each = work.collective
        key = (each.kind, each.axes(mesh))
        seconds = collective_seconds(each, topology, mesh)
        row = sums.setdefault(key, [0, 0.0, 0.0, 0.0, {}])
        row[0] += work.times
        row[1] += work.times * sent_bytes(each)
        if seconds is None:
            row[2] = row[3] = math.nan
        else:
            row[2] += work.times * seconds
            row[3] += work.times * seconds * each.overlapped
        row[4][each.source] = None
    return tuple(
        Traffic(
            kind, axes, times, sent,
            *(None if math.isnan(s) else s for s in (seconds, hidden)),
            tuple(sources),
        )
        for (kind, axes), (times, sent, seconds, hidden, sources) in sorted(
            sums.items(), key=lambda item: -item[1][1]
        )
    )  # fmt: skip
