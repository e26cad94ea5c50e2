"""Reads the collectives of a compiled program: their bytes, device groups and axes."""

import dataclasses
import math
import re

import jax
import numpy as np

from jaxrl_surrogate.lab.plan.hlo import Computation, Instruction, Module

KINDS = (
    "all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute",
    "ragged-all-to-all", "collective-broadcast",
)  # fmt: skip
_LIST = re.compile(r"\{\{[\d,{}]*\}\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\((.*?)\)(?= \{))?\s*\{([^}]*)\}")
_ORDER = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_SUB_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program; sizes are for one run on one device."""

    kind: str
    bytes: int  # of the larger of input and output, such as the gathered array
    dims: tuple[int, ...]  # shape of its largest input or output array
    groups: np.ndarray  # (groups, members) int, device numbers; permutes: (pairs, 2)
    overlapped: bool  # whether it is asynchronous, beside other work
    source: str  # name of the JAX operation

    @property
    def largest(self) -> int:
        """Number of elements of its largest input or output array."""
        return math.prod(self.dims)

    @property
    def members(self) -> int:
        """Number of devices in a group."""
        return self.groups.shape[1] if self.kind != "collective-permute" else 2

    def axes(self, mesh: jax.sharding.Mesh) -> tuple[str, ...]:
        """Return the mesh axes along which the members of a group differ."""
        places = np.stack(np.unravel_index(self.groups, mesh.devices.shape), axis=-1)
        differ = (places != places[:, :1]).any((0, 1))
        return tuple(name for name, d in zip(mesh.axis_names, differ, strict=True) if d)


def collective(
    module: Module,
    within: Computation,
    instruction: Instruction,
    caller: Instruction | None,
    num_devices: int,
) -> Collective | None:
    """Return the collective that an instruction starts, or None.

    An asynchronous collective on a TPU is compiled to several fusions: its start, steps
    fused with other work, and its end. Only the start counts.

    Args:
      module: the compiled program.
      within: computation that contains the instruction.
      instruction: any instruction.
      caller: the fusion whose body is `within`; None if there is none.
      num_devices: number of devices of the program.
    """
    opcode = instruction.opcode
    kind = opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    inside_fusion = caller is not None
    if inside_fusion and (
        within.name.startswith("async_collective_fusion")
        or "async-collective-done" in caller.name
    ):
        return None
    scattered = inside_fusion and within.name.startswith("all-reduce-scatter")
    if kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
    taken = [
        array
        for operand in instruction.operands
        if operand in within.instructions
        for array in within.instructions[operand].arrays
    ]
    made = instruction.arrays
    if opcode.endswith("-start") and len(made) > len(taken):
        made = made[len(taken) : 2 * len(taken)]  # after copies of the operands
    sides = [sum(array.bytes for array in side) for side in (taken, made)]
    return Collective(
        kind=kind,
        bytes=max(sides),
        dims=max((*taken, *made), key=lambda array: array.size).dims,
        groups=_groups(instruction.attributes, kind, num_devices),
        overlapped=opcode.endswith("-start")
        or (inside_fusion and "async-collective-start" in caller.name),
        source=instruction.source or (caller.source if caller else ""),
    )


def _groups(attributes: str, kind: str, num_devices: int) -> np.ndarray:
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=(\{\{[\d,{}]*\}\})", attributes)
        return _listed(pairs[1])
    text = attributes.partition("replica_groups=")[2]
    if text.startswith("{{"):
        return _listed(_LIST.match(text)[0])
    if text.startswith("["):
        shape, order, axes = _IOTA.match(text).groups()
        return _iota(order, axes).reshape(_integers(shape))
    if text.startswith("mesh"):
        return _of_mesh(*_MESH.match(text).groups())
    return np.arange(num_devices)[None]  # no groups are named: one of all devices


def _of_mesh(axes: str, ids: str | None, chosen: str) -> np.ndarray:
    """Return the groups along axes of a mesh, or parts of axes 'name':(before)size."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    wanted = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in _SUB_AXIS.findall(chosen)
    ]
    factors, picked = [], []
    for name, size in sizes.items():
        parts = sorted((b, s) for n, b, s in wanted if n == name)
        done = 1
        for before, part in parts:
            if before > done:
                factors.append(before // done)
            picked.append(len(factors))
            factors.append(part)
            done = before * part
        if done < size:
            factors.append(size // done)
    grid = np.arange(math.prod(factors))
    if ids is not None:
        order = _ORDER.fullmatch(ids)
        grid = _iota(*order.groups()) if order else np.array(_integers(ids))
    grid = grid.reshape(factors)
    rest = [axis for axis in range(len(factors)) if axis not in picked]
    members = math.prod(factors[axis] for axis in picked)
    return grid.transpose(*rest, *picked).reshape(-1, members)


def _iota(order: str, axes: str | None) -> np.ndarray:
    """Return 0, 1, 2, ... in the shape `order`, transposed by `axes` if given."""
    ids = np.arange(math.prod(_integers(order))).reshape(_integers(order))
    return ids.transpose(_integers(axes)) if axes else ids


def _listed(text: str) -> np.ndarray:
    return np.array([_integers(part) for part in re.findall(r"\{([\d,]+)\}", text)])


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
