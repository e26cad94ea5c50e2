"""Partition rules: which dimension of an array is sharded over which mesh axis.

Models give each dimension of an array a logical axis name and do not know the mesh. The
table `RULES` maps these names to mesh axes. Trees that hold arrays of the parameters'
shapes (gradients, optimizer moments, a whole train state) take over the parameters'
shardings.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_surrogate.errors import FieldError

PyTree = Any
LogicalAxes = tuple[str | None, ...]

Rules = Mapping[str, str | tuple[str, ...] | None]

RULES: Rules = MappingProxyType(
    {
        # parameters
        "vocab": "tensor",
        "heads": "tensor",
        "kv_heads": "tensor",
        "mlp": "tensor",
        "experts": "expert",
        "embed": ("fsdp", "sequence"),
        "layers": None,
        "head_dim": None,
        # activations
        "batch": ("data", "fsdp", "expert"),
        "samples": None,
        "positions": "sequence",
        "residual": "tensor",
    }
)

# While a layer computes, its matrices are not sharded along the width "embed": they are
# gathered in the compute dtype just before and dropped afterwards. The residual stream
# between blocks, which the backward pass keeps for every layer, is sharded over tensor
# (Korthikanti et al., arXiv 2205.05198, who shard the sequence instead of the width).
COMPUTE_RULES: Rules = MappingProxyType({**RULES, "embed": None})
# Decoding runs one token at a time: activations are small, so the residual stream is
# not sharded, which saves a collective. There is only one position at a time, so the
# sequence axis shards the completions of a group instead.
DECODE_RULES: Rules = MappingProxyType(
    {**COMPUTE_RULES, "residual": None, "positions": None, "samples": "sequence"}
)

# A dimension with one of these names is replicated if its size is no multiple of the
# number of shards. Models often have fewer key-value heads than the tensor axis has
# devices, and those heads are small beside the rest of the layer. A prompt has one
# sample, and a decoded token has one position.
WHOLE_IF_UNEVEN = frozenset({"kv_heads", "residual", "positions", "samples"})


def partition_spec(
    mesh: Mesh,
    axes: LogicalAxes,
    shape: tuple[int, ...],
    name: str = "array",
    rules: Rules = RULES,
) -> PartitionSpec:
    """Return the partition spec of one array.

    Args:
      mesh: from `make_mesh`.
      axes: for each dimension a logical axis of `rules`, or None (not sharded).
      shape: the array's shape.
      name: the array's name in error messages.
      rules: from logical axes to mesh axes: `RULES` for stored arrays, `COMPUTE_RULES`
        or `DECODE_RULES` for arrays in a computation.

    Raises:
      ValueError: `axes` and `shape` differ in length, `axes` holds an unknown name,
        two dimensions need the same mesh axis, or a size is no multiple of the number
        of shards (except for the names in `WHOLE_IF_UNEVEN`).
    """
    if len(axes) != len(shape):
        raise ValueError(
            f"{name}: logical axes {axes} name {len(axes)} dimensions, but its shape "
            f"is {shape}"
        )
    spec, used = [], {}
    for axis, size in zip(axes, shape, strict=True):
        if axis is not None and axis not in rules:
            raise ValueError(
                f"{name}: logical axis {axis!r} has no rule; expected one of "
                f"{sorted(rules)} or None"
            )
        mesh_axes = None if axis is None else rules[axis]
        if mesh_axes is None:
            spec.append(None)
            continue
        names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
        # A mesh axis of size 1 does not shard: leave its name out of the spec.
        names = tuple(n for n in names if mesh.shape[n] > 1) or names[:1]
        mesh_axes = names if len(names) > 1 else names[0]
        ways = math.prod(mesh.shape[n] for n in names)
        if size % ways:
            if axis in WHOLE_IF_UNEVEN:
                spec.append(None)
                continue
            raise FieldError(
                name,
                problem=f"axis {axis!r} of size {size} in shape {shape} cannot be "
                f"split {ways} ways over mesh axis {mesh_axes!r}",
                expected=f"a multiple of {ways}: change that size or the mesh",
            )
        for n in names:
            if n in used:
                raise ValueError(
                    f"{name}: logical axes {used[n]!r} and {axis!r} both ask for mesh "
                    f"axis {n!r}; one array can be split over it once"
                )
            used[n] = axis
        spec.append(mesh_axes)
    return PartitionSpec(*spec)


def param_shardings(
    mesh: Mesh, logical_axes: PyTree, abstract_params: PyTree
) -> PyTree:
    """Return the sharding of every parameter, by `RULES`.

    Args:
      mesh: from `make_mesh`.
      logical_axes: a tree of the structure of `abstract_params`, with a tuple of
        logical axis names (or None) in the place of each array.
      abstract_params: tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      A tree of the same structure with a `NamedSharding` for each array. Key-value
      heads are replicated where the tensor axis does not divide their number.

    Raises:
      ValueError: a parameter cannot be sharded; the message names it, its axis and the
        sizes. See `partition_spec`.
    """

    def shard(path, array, axes):
        spec = partition_spec(mesh, axes, array.shape, _name(path))
        return NamedSharding(mesh, spec)

    return jax.tree.map_with_path(shard, abstract_params, logical_axes)


def state_shardings(
    mesh: Mesh,
    params_shardings: PyTree,
    abstract_state: PyTree,
    abstract_params: PyTree,
) -> PyTree:
    """Return shardings for a tree with arrays like the parameters, such as moments.

    An array of `abstract_state` belongs to a parameter if its path ends with the
    parameter's path (`0/mu/layers/q` belongs to `layers/q`; the longest match counts)
    and both have the same shape. It then gets that parameter's sharding. All other
    arrays, such as counters and Adafactor's factored moments, are replicated. The tree
    can be the state of any optax chain, masked and accumulating transformations
    included, or a whole train state.

    Args:
      mesh: from `make_mesh`.
      params_shardings: from `param_shardings`.
      abstract_state: tree of arrays or `jax.ShapeDtypeStruct`.
      abstract_params: tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      A tree of the structure of `abstract_state` with a `NamedSharding` for each array.
    """
    params = {
        _names(path): (array.shape, sharding)
        for (path, array), sharding in zip(
            jax.tree.leaves_with_path(abstract_params),
            jax.tree.leaves(params_shardings),
            strict=True,
        )
    }

    def shard(path, array):
        names = _names(path)
        for start in range(len(names) + 1):  # longest suffix first
            shape, sharding = params.get(names[start:], (None, None))
            if shape == array.shape:
                return sharding
        return replicated(mesh)

    return jax.tree.map_with_path(shard, abstract_state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose leading axis is the batch, (G, ...)."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def num_batch_shards(mesh: Mesh) -> int:
    """Return the number of shards of a batch's prompts."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays of which every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(
    x: jax.Array, mesh: Mesh, *axes: str | None, rules: Rules = RULES
) -> jax.Array:
    """Constrain the sharding of an activation inside a jitted function.

    Args:
      x: an array of any shape.
      mesh: from `make_mesh`.
      *axes: for each dimension of `x` a logical axis of `rules`, or None (not sharded).
      rules: from logical axes to mesh axes.

    Returns:
      `x` with this sharding.

    Raises:
      ValueError: see `partition_spec`.
    """
    spec = partition_spec(mesh, axes, x.shape, "activation", rules)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def constrain_tree(tree: PyTree, shardings: PyTree) -> PyTree:
    """Constrain the shardings of a tree of arrays inside a jitted function.

    Args:
      tree: tree of arrays.
      shardings: a tree of the same structure, with a sharding for each array.

    Returns:
      The tree with these shardings; unchanged if all of them are of one device.
    """
    if all(sharding.num_devices == 1 for sharding in jax.tree.leaves(shardings)):
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings)


def abstract_like(abstract: PyTree, shardings: PyTree) -> PyTree:
    """Attach shardings to a tree of shapes, as restoring a checkpoint needs them.

    Args:
      abstract: tree of arrays or `jax.ShapeDtypeStruct`.
      shardings: a tree of the same structure, with a sharding for each array.

    Returns:
      A tree of the same structure, of `jax.ShapeDtypeStruct` with shardings.
    """
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def describe(shardings: PyTree, abstract: PyTree) -> str:
    """Return a table of how arrays are sharded and how much of each a device holds.

    Args:
      shardings: tree of `NamedSharding`.
      abstract: a tree of the same structure, of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      Text with one line for each array (name, dtype, shape, partition spec, shape and
      MiB on one device) and a last line with the total MiB.
    """
    rows = [("array", "dtype", "shape", "partition", "on a device", "MiB")]
    total = 0
    for (path, array), sharding in zip(
        jax.tree.leaves_with_path(abstract), jax.tree.leaves(shardings), strict=True
    ):
        local = sharding.shard_shape(array.shape)
        size = math.prod(local) * array.dtype.itemsize
        total += size
        rows.append(
            (
                _name(path),
                str(array.dtype),
                _shape(array.shape),
                ", ".join("-" if p is None else _axis(p) for p in sharding.spec) or "-",
                _shape(local),
                f"{size / 2**20:.2f}",
            )
        )
    rows.append(("total", "", "", "", "", f"{total / 2**20:.2f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i == len(row) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _name(path: tuple) -> str:
    """Return a tree path as text, for any kind of containers."""
    return "/".join(_names(path))


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _axis(mesh_axes: str | tuple[str, ...]) -> str:
    return mesh_axes if isinstance(mesh_axes, str) else "+".join(mesh_axes)
