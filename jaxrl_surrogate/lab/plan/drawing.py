"""Draws as text how an array is sharded over a mesh: one cell for each shard."""

import itertools
from collections.abc import Sequence

import jax
from jax.sharding import NamedSharding

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.plan.job import Job, cache_arrays, decode_weights


def drawings(job: Job, devices: Sequence[jax.Device], name: str) -> str:
    """Draw all arrays of a step whose names contain `name`.

    Args:
      job: the step.
      devices: devices of the job's mesh.
      name: part of a name, such as of a parameter.

    Raises:
      FieldError: no array has such a name; the error lists the names.
      ValueError: as `Job.make_mesh`.
    """
    mesh = job.make_mesh(devices)
    state = jax.tree.leaves_with_path(job.abstract_state(mesh))
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): (leaf, leaf.sharding)
        for path, leaf in state
    }
    for owner, pairs in (
        ("rollout", decode_weights(job, mesh)),
        ("cache", cache_arrays(job, mesh)),
    ):
        arrays |= {f"{owner}/{inner}": pair for inner, pair in pairs.items()}
    found = [draw(n, a.shape, s) for n, (a, s) in arrays.items() if name in n]
    if not found:
        raise FieldError(
            "draw",
            name,
            problem="in the name of no array",
            expected=f"a part of one of {', '.join(arrays)}",
        )
    return "\n\n".join(found)


def draw(name: str, shape: tuple[int, ...], sharding: NamedSharding) -> str:
    """Draw one array, with its first two sharded dimensions as rows and columns.

    Every cell has the devices that hold the shard, as positions in the mesh. Each index
    of further sharded dimensions has a grid of its own.

    Args:
      name: heading of the drawing.
      shape: shape of the whole array.
      sharding: its sharding.
    """
    part = sharding.shard_shape(shape)
    split = [axis for axis in range(len(shape)) if part[axis] != shape[axis]]
    order = {device: i for i, device in enumerate(sharding.mesh.devices.flat)}
    owners: dict[tuple[int, ...], list[int]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        place = tuple((index[axis].start or 0) // part[axis] for axis in split)
        owners.setdefault(place, []).append(order[device])
    cells = {place: _ranges(sorted(each)) for place, each in owners.items()}
    sizes = [shape[axis] // part[axis] for axis in split]
    sides = [
        f"{shape[axis]} in {ways} over {_axes(sharding.spec[axis])}"
        for axis, ways in zip(split, sizes, strict=True)
    ]
    text = "x".join(map(str, shape)) or "a scalar"
    lines = [f"{name}: {text}; " + ("; ".join(sides) or "whole on every device")]
    rows, columns, *rest = [*sizes, 1, 1][: max(2, len(sizes))]
    for tail in itertools.product(*map(range, rest)):
        if tail:
            lines.append(f"part {', '.join(map(str, tail))}")
        grid = [
            [cells[(row, column)[: len(sizes)] + tail] for column in range(columns)]
            for row in range(rows)
        ]
        width = max(len(cell) for row in grid for cell in row)
        rule = "+" + "+".join(["-" * (width + 2)] * columns) + "+"
        for row in grid:
            inner = " | ".join(cell.center(width) for cell in row)
            lines += [rule, f"| {inner} |"]
        lines.append(rule)
    return "\n".join(lines)


def _axes(entry: str | tuple[str, ...]) -> str:
    return entry if isinstance(entry, str) else "+".join(entry)


def _ranges(numbers: list[int]) -> str:
    """Abbreviate a sorted list of numbers, such as 0-3 or 0,8..56.

    >>> _ranges([0, 1, 2, 3]), _ranges([0, 8, 16]), _ranges([5])
    ('0-3', '0,8..16', '5')
    """
    steps = {b - a for a, b in itertools.pairwise(numbers)}
    if len(numbers) == 1:
        return str(numbers[0])
    if steps == {1}:
        return f"{numbers[0]}-{numbers[-1]}"
    if len(steps) == 1 and len(numbers) > 2:
        return f"{numbers[0]},{numbers[1]}..{numbers[-1]}"
    if len(numbers) > 6:
        return ",".join(map(str, numbers[:3])) + f"..{numbers[-1]}"
    return ",".join(map(str, numbers))
