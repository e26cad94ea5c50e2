"""Which dimension of which array is split over which mesh axis: one table, `RULES`.

Models name the logical axes of their arrays and know no mesh; here a name becomes a
mesh axis. Everything else that has the shape of the parameters (gradients, optimizer
moments, a whole train state) takes over the parameters' shardings.
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

# While a layer computes, its matrices are whole along the width: gathered over fsdp in
# the compute dtype just before, dropped after. The stream between blocks, which the
# backward pass keeps for every layer, is split over tensor (Korthikanti et al.,
# arXiv 2205.05198, with the width in the place of the sequence).
COMPUTE_RULES: Rules = MappingProxyType({**RULES, "embed": None})
# A token at a time there is little to keep, and one collective is quicker than two.
# The positions of a completion come one after the other, so its group is split instead.
DECODE_RULES: Rules = MappingProxyType(
    {**COMPUTE_RULES, "residual": None, "positions": None, "samples": "sequence"}
)

# Models have few key-value heads, often fewer than the tensor axis is long. They are
# then kept whole on every device of the axis: small beside the rest of the layer. So
# are positions and samples: a prompt has one sample, a decoded token one position.
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
      axes: a name of `RULES` or None (not split) for each dimension.
      shape: the array's shape.
      name: what error messages call the array.
      rules: what the names mean: `RULES` where an array is stored, `COMPUTE_RULES` or
        `DECODE_RULES` while it is used.

    Raises:
      ValueError: `axes` has another length than `shape`, holds an unknown name, wants
        one mesh axis for two dimensions, or a size does not divide.
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
        # What has one device does not split: one name less in every table.
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
      logical_axes: the tree of `abstract_params` with a tuple of logical axis names (or
        None) in the place of every array.
      abstract_params: tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The same tree of `NamedSharding`. Key-value heads that the tensor axis does not
      divide are not split.

    Raises:
      ValueError: naming the array, its axis and the sizes; see `partition_spec`.
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
    """Return shardings for a tree that holds copies of the parameters, such as moments.

    An array of `abstract_state` belongs to the parameter whose path ends its own path
    (`0/mu/layers/q` to `layers/q`; the longest wins) and whose shape it has; it is
    placed as that parameter is. All else, counters and Adafactor's factored moments
    included, is replicated. Any optax chain, masked and accumulating transformations
    too, and a whole train state are such trees.

    Args:
      mesh: from `make_mesh`.
      params_shardings: from `param_shardings`.
      abstract_state: tree of arrays or `jax.ShapeDtypeStruct`.
      abstract_params: tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The tree of `abstract_state` with a `NamedSharding` for every array.
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
    """Sharding of arrays whose leading axis is the batch, such as (G, ...)."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def num_batch_shards(mesh: Mesh) -> int:
    """How many ways the prompts of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(
    x: jax.Array, mesh: Mesh, *axes: str | None, rules: Rules = RULES
) -> jax.Array:
    """Pin the layout of an activation inside a jitted function.

    Args:
      x: array with one logical axis for each dimension.
      mesh: from `make_mesh`.
      *axes: names of `rules`, or None: not split.
      rules: what the names mean.

    Returns:
      `x`, laid out by the rules.

    Raises:
      ValueError: see `partition_spec`.
    """
    spec = partition_spec(mesh, axes, x.shape, "activation", rules)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def constrain_tree(tree: PyTree, shardings: PyTree) -> PyTree:
    """Lay a tree of arrays out inside a jitted function; nothing on one device."""
    if all(sharding.num_devices == 1 for sharding in jax.tree.leaves(shardings)):
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings)


def abstract_like(abstract: PyTree, shardings: PyTree) -> PyTree:
    """Attach shardings to a tree of shapes: what a checkpoint is restored into.

    Args:
      abstract: tree of arrays or `jax.ShapeDtypeStruct`.
      shardings: the same tree of shardings.

    Returns:
      The same tree of `jax.ShapeDtypeStruct` with shardings.
    """
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def describe(shardings: PyTree, abstract: PyTree) -> str:
    """Return a table of arrays, how each is split, and what one device holds of it.

    Args:
      shardings: tree of `NamedSharding`.
      abstract: the same tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      Lines of text: name, dtype, shape, partition spec, shape on one device, MiB on one
      device; then the sum.
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
    """A tree path as text, whatever the kind of its containers."""
    return "/".join(_names(path))


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _axis(mesh_axes: str | tuple[str, ...]) -> str:
    return mesh_axes if isinstance(mesh_axes, str) else "+".join(mesh_axes)
