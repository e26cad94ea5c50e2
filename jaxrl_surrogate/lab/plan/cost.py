"""Counts the work of a compiled program on one device: flops, HBM bytes, collectives.

Every instruction counts once for each iteration of the loops around it.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from jaxrl_surrogate.lab.plan.collectives import KINDS, Collective, collective
from jaxrl_surrogate.lab.plan.hlo import (
    Computation,
    Instruction,
    Module,
    may_stop_early,
    parse,
    trip_count,
)
from jaxrl_surrogate.lab.plan.kernels import grouped_product

# Instructions that move no data, or whose work is counted elsewhere.
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "while",
        "call",
        "conditional",
        "partition-id",
        "replica-id",
        "copy-done",
        "async-done",
        "async-update",
        "opt-barrier",
        "add-dependency",
        "domain",
    ]
)
_COLLECTIVE = frozenset(
    f"{kind}{end}" for kind in KINDS for end in ("", "-start", "-done")
)


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop around an instruction."""

    source: str  # name of the JAX operation
    may_stop: bool  # whether it can end before its bound, as the loop over tokens can


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one instruction, or of one collective."""

    times: int  # how often it runs
    flops: float  # of matrix products, in one run
    bytes: float  # read from and written to HBM, in one run
    collective: Collective | None
    loops: tuple[Loop, ...]  # loops around it, the outermost first
    unknown_trips: bool  # whether a loop around it has an unknown trip count
    source: str  # name of the JAX operation


@dataclasses.dataclass(frozen=True)
class Cost:
    """All work of a compiled program on one device."""

    work: tuple[Work, ...]

    @property
    def flops(self) -> float:
        """Flops of matrix products; a multiplication and an addition count as two."""
        return sum(w.times * w.flops for w in self.work)

    @property
    def bytes(self) -> float:
        """Bytes read from and written to HBM."""
        return sum(w.times * w.bytes for w in self.work)

    @property
    def collectives(self) -> tuple[Work, ...]:
        """The items of `work` that are collectives."""
        return tuple(w for w in self.work if w.collective is not None)


def read_cost(text: str, num_devices: int) -> Cost:
    """Read the work of a compiled module from its text.

    Args:
      text: `compiled.as_text()`.
      num_devices: number of devices of the program.

    Returns:
      The work of one device. The body of a loop with an unknown trip count counts once
      and has `unknown_trips` set.
    """
    module = parse(text)
    return Cost(tuple(_walk(module, module.entry, num_devices, 1, (), False)))


def _walk(
    module: Module,
    computation: Computation,
    num_devices: int,
    times: int,
    loops: tuple[Loop, ...],
    unknown: bool,
) -> Iterator[Work]:
    for instruction in computation.instructions.values():
        inner = instruction.called() or instruction.called("to_apply")
        if instruction.opcode == "while":
            trips = trip_count(module, computation, instruction)
            early = may_stop_early(module, instruction)
            inside = (*loops, Loop(instruction.source, early))
            for key, more in (("body", 0), ("condition", 1)):
                yield from _walk(
                    module,
                    module.computations[instruction.called(key)],
                    num_devices,
                    times * (1 if trips is None else trips + more),
                    inside,
                    unknown or trips is None,
                )
        elif instruction.opcode in ("call", "async-start") and inner:
            callee = module.computations[inner]
            yield from _walk(module, callee, num_devices, times, loops, unknown)
        elif instruction.opcode == "conditional":
            for name in _branches(instruction):
                branch = module.computations[name]
                yield from _walk(module, branch, num_devices, times, loops, unknown)
        else:
            flops, found = _inside(module, computation, instruction, None, num_devices)
            moved = 0.0 if found else hbm_bytes(module, computation, instruction)
            around = (loops, unknown)
            if flops or moved:
                yield Work(times, flops, moved, None, *around, instruction.source)
            for each in found:
                yield Work(times, 0, 0, each, *around, each.source)


def _branches(instruction: Instruction) -> list[str]:
    names = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if names:
        return re.findall(r"%([\w.\-]+)", names[1])
    return [
        name
        for key in ("true_computation", "false_computation")
        if (name := instruction.called(key))
    ]


def _inside(module, computation, instruction, caller, num_devices):
    """Return flops and collectives of an instruction, or of the body of a fusion."""
    if instruction.opcode == "fusion":
        body = module.computations[instruction.called()]
        flops, found = 0.0, []
        for inner in body.instructions.values():
            more = _inside(module, body, inner, instruction, num_devices)
            flops, found = flops + more[0], found + more[1]
        return flops, found
    each = collective(module, computation, instruction, caller, num_devices)
    return _flops(computation, instruction), [] if each is None else [each]


def _flops(computation: Computation, instruction: Instruction) -> float:
    """Return the flops of a matrix product or convolution; 0 for other instructions."""
    opcode = instruction.opcode
    if opcode == "custom-call":
        kernel = grouped_product(computation, instruction)
        if kernel is not None:
            return kernel[0]
        if not re.search(
            r'target="(__cublas|__onednn|.*matmul)', instruction.attributes
        ):
            return 0.0
        inner = re.search(
            r'"lhs_contracting_dimensions":\["?([\d",]*?)"?\]', instruction.attributes
        )
        dims = [int(d) for d in re.findall(r"\d+", inner[1])] if inner else []
    elif opcode == "dot":
        dims = instruction.integers("lhs_contracting_dims")
    elif opcode == "convolution":
        return _convolution_flops(computation, instruction)
    else:
        return 0.0
    left = computation.instructions[instruction.operands[0]].arrays[0].dims
    return 2.0 * instruction.arrays[0].size * math.prod(left[d] for d in dims)


def _convolution_flops(computation, instruction):
    """Return the flops of a convolution.

    The TPU compiler writes every matrix product as a convolution, with batch axes as
    dilated windows.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    left, right = (
        computation.instructions[name].arrays[0].dims for name in instruction.operands
    )
    out = instruction.arrays[0].dims
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    given = dict(re.findall(r"(\w+)=([\dx_\-]+)", window[1])) if window else {}
    spatial = [label for label in labels[1] if label.isdigit()]
    positions = 1
    for index, label in enumerate(sorted(spatial)):

        def of(key, default, index=index):
            return given[key].split("x")[index] if key in given else default

        low = int(re.match(r"-?\d+", of("pad", "0_0"))[0])
        positions *= _valid_positions(
            left[labels[1].index(label)],
            right[labels[2].index(label)],
            out[labels[3].index(label)],
            *(int(of(key, 1)) for key in ("stride", "lhs_dilate", "rhs_dilate")),
            low,
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = left[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    contracted = right[labels[2].index("i")]
    return 2.0 * batch * contracted * out[labels[3].index("f")] * positions


def _valid_positions(size, kernel, out, stride, dilate, kernel_dilate, low):
    """Count pairs of output and kernel position that read neither padding nor holes."""
    count = 0
    for k in range(kernel):
        first = k * kernel_dilate - low
        if stride == 1 and dilate == 1:
            count += max(0, min(out, size - first) - max(0, -first))
            continue
        for o in range(out):
            place = o * stride + first
            count += 0 <= place <= (size - 1) * dilate and place % dilate == 0
    return count


def hbm_bytes(
    module: Module, computation: Computation, instruction: Instruction
) -> float:
    """Return the bytes that one run of an instruction reads from and writes to HBM.

    For a slice or an update in place only the part counts, not the whole array. Arrays
    that the compiler keeps in on-chip memory do not count.
    """
    opcode = instruction.opcode
    if opcode in _FREE or opcode in _COLLECTIVE:
        return 0.0
    kernel = grouped_product(computation, instruction)
    if kernel is not None:
        return kernel[1]
    if opcode == "copy-start":
        source = computation.instructions[instruction.operands[0]].arrays
        target = instruction.arrays[: len(source)]
        return float(_off_chip(source) + _off_chip(target))
    if opcode == "fusion":
        body = module.computations[instruction.called()]
        return _fusion_bytes(module, computation, instruction, body)
    reads = [
        _off_chip(computation.instructions[name].arrays)
        for name in instruction.operands
        if name in computation.instructions
    ]
    written = _off_chip(instruction.arrays)
    if opcode in ("dynamic-slice", "slice", "gather"):
        return float(2 * written)
    if opcode == "dynamic-update-slice":
        update = computation.instructions[instruction.operands[1]].arrays
        return float(sum(a.bytes for a in update) + _off_chip(update))
    if opcode in ("iota", "broadcast"):
        return float(written)
    return float(sum(reads) + written)


def _fusion_bytes(module, computation, instruction, body):
    total = 0.0
    for index, name in enumerate(instruction.operands):
        outer = computation.instructions.get(name)
        parameter = body.parameters.get(index)
        whole = _off_chip(outer.arrays) if outer is not None else 0
        if whole and parameter is not None:
            total += min(whole, _read(module, body, parameter, whole))
    parts = _parts(module, body)
    arrays = list(instruction.arrays)
    for part, updated in parts:
        size, arrays = arrays[: len(part.arrays)], arrays[len(part.arrays) :]
        if _off_chip(size):
            total += _off_chip(size) if updated is None else updated
    return total


def _read(module, body, value, whole):
    """Return the bytes that a fusion reads of an operand of `whole` bytes."""
    total = 0.0
    for user in body.users.get(value.name, ()):
        first = user.operands[0] == value.name
        if user.opcode == "bitcast":
            total += _read(module, body, user, whole)
        elif user.opcode == "fusion":
            inner = module.computations[user.called()]
            for index, name in enumerate(user.operands):
                if name != value.name:
                    continue
                parameter = inner.parameters[index]
                if _through_bitcasts(inner, inner.root) is parameter:
                    total += _read(module, body, user, whole)
                else:
                    total += _read(module, inner, parameter, whole)
        elif first and user.opcode in ("dynamic-slice", "slice", "gather"):
            total += user.bytes
        elif not (first and user.opcode == "dynamic-update-slice"):
            return whole
    return total


def _through_bitcasts(body, value):
    while value.opcode == "bitcast":
        value = body.instructions[value.operands[0]]
    return value


def _parts(module, body):
    """Yield each output of a fusion with the bytes updated in place; None means all."""
    root = body.root
    names = root.operands if root.opcode == "tuple" else (root.name,)
    for name in names:
        part = source = body.instructions[name]
        inside = body
        while source.opcode in ("bitcast", "copy", "fusion") and source.operands:
            if source.opcode == "fusion":
                inside = module.computations[source.called()]
                source = inside.root
            else:
                source = inside.instructions[source.operands[0]]
        update = source.opcode == "dynamic-update-slice"
        size = inside.instructions[source.operands[1]].bytes if update else None
        yield part, size


def _off_chip(arrays) -> int:
    return sum(array.bytes for array in arrays if not array.on_chip)
