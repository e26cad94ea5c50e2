"""Applies partition rules to the models' activations while a function is traced."""

import contextlib
import dataclasses
import math

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxrl_surrogate.models import layout
from jaxrl_surrogate.parallel.partition import Rules, constrain, partition_spec


def on(mesh: Mesh | None, rules: Rules) -> contextlib.AbstractContextManager[None]:
    """Have the models shard their activations over a mesh while a function is traced.

    Args:
      mesh: from `make_mesh`. None or a mesh of one device sets no constraints.
      rules: `partition.COMPUTE_RULES` or `partition.DECODE_RULES`.

    Returns:
      A context manager; enter it inside the function that is traced.
    """
    if mesh is None or mesh.size == 1:
        return layout.placed_by(None)
    return layout.placed_by(_OnMesh(mesh, rules))


@dataclasses.dataclass(frozen=True)
class _OnMesh:
    """The `layout.Placement` of a mesh and its rules."""

    mesh: Mesh
    rules: Rules

    def constrain(self, x, *axes):
        return constrain(x, self.mesh, *axes, rules=self.rules)

    def num_shards(self, axis, size):
        (names,) = partition_spec(self.mesh, (axis,), (size,), rules=self.rules)
        names = (names,) if isinstance(names, str) else names or ()
        return math.prod(self.mesh.shape[name] for name in names)

    def sum_over_experts(self, part, rows, banks, bank_axes):
        """Gather rows over the expert axis, and scatter the sums of the outputs.

        Each device runs its own experts on the rows of all devices of that axis. With
        k experts per row, an all-to-all would send every row k times and back. Up to k
        shards the gather sends no more than that, and it needs no capacity limit, so no
        row is dropped.
        """
        leading = ("batch", "samples", "positions")
        rows_specs = tuple(
            self._spec(x, (*leading, *[None] * (x.ndim - 3))) for x in rows
        )
        banks_specs = tuple(
            self._spec(x, axes) for x, axes in zip(banks, bank_axes, strict=True)
        )
        shared = self.mesh.shape["expert"] > 1

        def on_device(rows, banks):
            first = 0
            if shared:
                rows = tuple(
                    jax.lax.all_gather(x, "expert", axis=0, tiled=True) for x in rows
                )
                first = jax.lax.axis_index("expert") * banks[0].shape[0]
            out = part(rows, banks, first)
            out = jax.lax.psum(out, "tensor")
            if shared:
                out = jax.lax.psum_scatter(out, "expert", tiled=True)
            return out

        return jax.shard_map(
            on_device,
            mesh=self.mesh,
            in_specs=(rows_specs, banks_specs),
            out_specs=rows_specs[0],
            check_vma=False,
        )(rows, banks)

    def _spec(self, x, axes) -> PartitionSpec:
        return partition_spec(self.mesh, axes, x.shape, "activation", self.rules)
