"""Collectives of a compiled program: what moves, between whom, along which axes."""

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
    """One collective of the program; sizes are those of one device, once."""

    kind: str
    bytes: int  # of the larger side: gathered, or still to be reduced
    dims: tuple[int, ...]  # of the largest array that it makes or takes
    groups: np.ndarray  # (groups, members) int; permutes: (pairs, 2)
    overlapped: bool  # started, and waited for later
    source: str  # the JAX operation

    @property
    def largest(self) -> int:
        """Elements of that array."""
        return math.prod(self.dims)

    @property
    def members(self) -> int:
        """Devices that take part with one another."""
        return self.groups.shape[1] if self.kind != "collective-permute" else 2

    def axes(self, mesh: jax.sharding.Mesh) -> tuple[str, ...]:
        """Mesh axes along which members of one group differ."""
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
    """The collective that an instruction starts, or None.

    Args:
      module: the program.
      within: where the instruction stands.
      instruction: any instruction.
      caller: the fusion that `within` is the body of.
      num_devices: devices of the program.

    A collective that a TPU runs beside other work is written as several fusions: its
    start, the steps that are mixed with the work, and its end. Only the start counts.
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
        made = made[len(taken) : 2 * len(taken)]  # a start repeats its operands first
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
    return np.arange(num_devices)[None]  # none named: all of them


def _of_mesh(axes: str, ids: str | None, chosen: str) -> np.ndarray:
    """Groups along axes of a mesh, or along parts of axes: 'name':(before)size."""
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
    """0, 1, 2, ... in a shape whose axes are then permuted."""
    ids = np.arange(math.prod(_integers(order))).reshape(_integers(order))
    return ids.transpose(_integers(axes)) if axes else ids


def _listed(text: str) -> np.ndarray:
    return np.array([_integers(part) for part in re.findall(r"\{([\d,]+)\}", text)])


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
