"""Parses the text of compiled HLO into computations and instructions.

XLA's own cost analysis counts the body of a loop once. Layers, microbatches and tokens
are loops in these programs, so `cost` walks the loops with their trip counts instead.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

from jaxrl_surrogate.errors import FieldError

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4,
    "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](\{[^{}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of one array of an instruction's output."""

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool  # in memory that is not HBM

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes without padding; 0 for opaque types such as XLA's tokens."""
        return self.size * _BYTES.get(self.dtype, 0)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # of the output, a tuple's flattened
    operands: tuple[str, ...]
    literal: str  # what a constant or parameter has between parentheses
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Bytes of all output arrays."""
        return sum(array.bytes for array in self.arrays)

    def called(self, key: str = "calls") -> str | None:
        """Return the name of the computation in an attribute, or None."""
        found = re.search(rf"\b{key}=%([\w.\-]+)", self.attributes)
        return found and found[1]

    def integers(self, key: str) -> tuple[int, ...]:
        """Return an attribute such as `lhs_contracting_dims={0,1}`; () if missing."""
        found = re.search(rf"\b{key}=\{{([\d,]*)\}}", self.attributes)
        return tuple(map(int, filter(None, found[1].split(",")))) if found else ()

    @property
    def source(self) -> str:
        """The name of the JAX operation that it came from, or ""."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """A computation: its instructions by name, in order."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose output is that of the computation."""
        return next(i for i in self.instructions.values() if i.root)

    @functools.cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        """Parameters by number."""
        return {
            int(i.literal): i
            for i in self.instructions.values()
            if i.opcode == "parameter"
        }

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """The instructions that read the output of each instruction, by its name."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        return {name: tuple(found) for name, found in users.items()}


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    entry: Computation
    computations: Mapping[str, Computation]


def parse(text: str) -> Module:
    """Parse the text of a compiled module (`compiled.as_text()`).

    Raises:
      FieldError: the text has no entry computation.
    """
    computations, entry, name, body = {}, None, None, {}
    for line in text.splitlines():
        if name is None:
            header = _HEADER.match(line)
            if header:
                name, body = header[2], {}
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name], name = Computation(name, body), None
        else:
            instruction = _instruction(line)
            if instruction is not None:
                body[instruction.name] = instruction
    if entry is None:
        raise FieldError("text", text[:60], "a compiled HLO module")
    return Module(computations[entry], computations)


def _instruction(line: str) -> Instruction | None:
    left, equals, rest = line.strip().partition(" = ")
    root, _, name = left.rpartition("%")
    if not equals or not name:
        return None
    split = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:split], rest[split:].lstrip()
    start = rest.find("(")
    end = _closing(rest, start)
    inside = rest[start + 1 : end]
    return Instruction(
        name=name,
        opcode=rest[:start],
        arrays=tuple(
            Array(
                dtype,
                tuple(int(d.lstrip("<=")) for d in dims.split(",") if d),
                bool(re.search(r"S\([1-9]", layout)),
            )
            for dtype, dims, layout in _ARRAY.findall(kind)
        ),
        operands=tuple(_NAME.findall(inside)),
        literal=inside,
        attributes=rest[end + 1 :],
        root=root.startswith("ROOT"),
    )


def _closing(text: str, start: int) -> int:
    """Return the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return len(text)


def trip_count(module: Module, within: Computation, loop: Instruction) -> int | None:
    """Return the trip count of a while loop, or None if the text does not show it.

    For a loop that may stop early this is the maximum. A loop whose counter continues
    that of a previous loop is taken to start at the bound of that loop.

    Args:
      module: the compiled program.
      within: computation that contains the loop.
      loop: the `while` instruction.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    bound = _bound(module, loop)
    if bound is None:
        return None
    first = _start(module, within, loop, bound[0])
    return max(0, -(-(bound[1] - first) // _stride(module, loop, bound[0])))


def may_stop_early(module: Module, loop: Instruction) -> bool:
    """Return whether the condition of a while loop tests more than its counter."""
    root = module.computations[loop.called("condition")].root
    while root.opcode == "fusion":
        root = module.computations[root.called()].root
    return root.opcode != "compare"


def _bound(module, loop):
    """Return (index of the counter in the loop's tuple, its upper bound), or None."""
    condition = module.computations[loop.called("condition")]
    for compare in _flattened(module, condition):
        if (
            compare[0].opcode != "compare"
            or "direction=LT" not in compare[0].attributes
        ):
            continue
        counter, limit = compare[1]
        if counter is None or limit is None:
            continue
        if counter.opcode == "get-tuple-element" and limit.opcode == "constant":
            return int(re.search(r"index=(\d+)", counter.attributes)[1]), int(
                limit.literal
            )
    return None


def _flattened(module, computation, arguments=()):
    """Yield instructions of two operands with these operands, also inside fusions."""

    def resolve(name):
        found = computation.instructions.get(name)
        while found is not None and found.opcode in ("bitcast", "copy"):
            found = computation.instructions.get(found.operands[0])
        if found is not None and found.opcode == "parameter" and arguments:
            return arguments[int(found.literal)]
        return found

    for instruction in computation.instructions.values():
        operands = [resolve(name) for name in instruction.operands]
        inner = instruction.called()
        if instruction.opcode == "fusion" and inner:
            yield from _flattened(module, module.computations[inner], operands)
        elif len(operands) == 2:
            yield instruction, operands


def _stride(module, loop, index):
    """Return what one iteration adds to the counter; above 1 if it is unrolled."""
    body = module.computations[loop.called("body")]
    if body.root.opcode != "tuple":
        return 1
    return max(1, _added(module, body, body.root.operands[index], (), 0))


def _added(module, computation, name, arguments, part):
    """Sum the constants that are added between a value and its loop's tuple.

    `arguments` has a (computation, name, arguments) for each parameter of a fusion, and
    `part` is the index of the output of a fusion with several.
    """
    value = computation.instructions[name]
    if value.opcode in ("copy", "bitcast", "convert"):
        return _added(module, computation, value.operands[0], arguments, part)
    if value.opcode == "add":
        sides = [
            _added(module, computation, operand, arguments, 0)
            for operand in value.operands
        ]
        return sum(sides)
    if value.opcode == "constant":
        found = re.fullmatch(r"-?\d+", value.literal)
        return int(found[0]) if found else 0
    if value.opcode == "parameter" and arguments:
        outer, operand, rest = arguments[int(value.literal)]
        return _added(module, outer, operand, rest, 0)
    if value.opcode == "get-tuple-element":
        source = computation.instructions[value.operands[0]]
        if source.opcode == "fusion":
            part = int(re.search(r"index=(\d+)", value.attributes)[1])
            return _added(module, computation, source.name, arguments, part)
    if value.opcode == "fusion":
        inner = module.computations[value.called()]
        root = inner.root
        of = root.operands[part] if root.opcode == "tuple" else root.name
        outside = tuple((computation, name, arguments) for name in value.operands)
        return _added(module, inner, of, outside, 0)
    return 0


def _start(module, within, loop, index):
    """Return the counter's first value: a constant, or the previous loop's bound."""
    value = within.instructions.get(loop.operands[0])
    for _ in range(64):
        if value is None:
            return 0
        if value.opcode == "tuple":
            value = within.instructions.get(value.operands[index])
        elif value.opcode in ("copy", "bitcast"):
            value = within.instructions.get(value.operands[0])
        elif value.opcode == "get-tuple-element":
            index = int(re.search(r"index=(\d+)", value.attributes)[1])
            value = within.instructions.get(value.operands[0])
        elif value.opcode == "constant":
            return int(value.literal)
        elif value.opcode == "while":
            bound = _bound(module, value)
            return bound[1] if bound and bound[0] == index else 0
        else:
            return 0
    return 0
