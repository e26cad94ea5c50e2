"""The device mesh: every device of the run, arranged along five named axes.

    data     replicas of the parameters; each processes its own shard of the batch
    fsdp     shards parameters, optimizer moments and the batch
    expert   shards the experts of a mixture; everywhere else it shards the batch
    sequence shards the positions of completions in an update and the completions of a
             group in a rollout; parameters are sharded over it as over fsdp
    tensor   shards heads, the MLP's hidden width and the vocabulary

The axes are of type Auto on purpose: the compiler derives all shardings and collectives
from the shardings of the parameters, the batch and the constraints on activations. In
newer versions of JAX the default of `jax.make_mesh` is Explicit. Every contraction over
a sharded dimension then has to name its output sharding, so the models would have to
know the mesh.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated

import jax
from jax.experimental import mesh_utils

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.typed_fields import check_fields

AXES = ("data", "fsdp", "expert", "sequence", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes. One axis may be -1: it takes the remaining devices."""

    data: Annotated[
        int, "copies of the parameters; -1: all devices that are left", "operational"
    ] = -1
    fsdp: Annotated[
        int,
        "number of shards of parameters and optimizer state; -1: rest",
        "operational",
    ] = 1
    tensor: Annotated[
        int, "number of shards of heads, MLP and vocabulary; -1: rest", "operational"
    ] = 1
    expert: Annotated[
        int, "number of shards of experts, else of the batch; -1: rest", "operational"
    ] = 1
    sequence: Annotated[
        int,
        "ways completions are split: by position, in rollouts by sample; -1: rest",
        "operational",
    ] = 1

    slices: Annotated[
        int,
        "slices joined by the data-centre network; data is split over them first",
        "operational",
    ] = 1

    def __post_init__(self):
        check_fields(self)
        if self.slices < 1:
            raise FieldError("slices", self.slices, "at least 1")
        if self.data != -1 and self.data % self.slices:
            raise FieldError(
                "slices",
                self.slices,
                f"a divisor of data={self.data}, which is split over the slices first",
            )
        for axis in AXES:
            size = getattr(self, axis)
            if size != -1 and size < 1:
                raise FieldError(
                    axis, size, "at least 1, or -1 for the devices the other axes leave"
                )
        free = [axis for axis in AXES if getattr(self, axis) == -1]
        if len(free) > 1:
            raise FieldError(
                free[1],
                -1,
                problem=f"{free[0]} is -1 too, expected one at most",
                remedy="give a size to all axes but one",
            )

    def sizes(self, num_devices: int) -> tuple[int, ...]:
        """Return the size of each axis of `AXES` on `num_devices` devices.

        Raises:
          ValueError: the product of the sizes is not the number of devices.
        """
        sizes = {axis: getattr(self, axis) for axis in AXES}
        fixed = math.prod(size for size in sizes.values() if size != -1)
        free = next((axis for axis, size in sizes.items() if size == -1), None)
        asked = " x ".join(
            f"{axis}={size}" for axis, size in sizes.items() if size not in (1, -1)
        )
        asked = asked or "1 for every axis"
        if free is None:
            if fixed != num_devices:
                axis = next((axis for axis in AXES if sizes[axis] != 1), "data")
                raise FieldError(
                    axis,
                    sizes[axis],
                    problem=f"{asked} is a mesh of {fixed} devices, but there are "
                    f"{num_devices}",
                    remedy="set one axis to -1 to fit it to the devices",
                )
        elif num_devices % fixed:
            raise FieldError(
                free,
                -1,
                f"{fixed} to be a divisor of {num_devices}",
                problem=f"{asked} does not divide the {num_devices} devices, so it has "
                "no whole size",
            )
        else:
            sizes[free] = num_devices // fixed
        if sizes["data"] % self.slices:
            raise FieldError(
                "data",
                -1,
                f"a multiple of slices={self.slices}",
                problem=f"is {sizes['data']} of {num_devices} devices",
            )
        return tuple(sizes[axis] for axis in AXES)


def make_mesh(
    config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """Build the mesh of a run.

    Args:
      config: sizes of the axes.
      devices: devices to use; None uses all devices of all processes. JAX orders them
        so that the last axis, tensor, has the fastest links.

    Returns:
      A mesh with the axes of `AXES`, all of type Auto. Axes of size 1 are included, so
      the partition rules hold for every mesh.

    Raises:
      ValueError: the product of the sizes is not the number of devices, or the devices
        belong to another number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = config.sizes(len(devices))
    if config.slices > 1:
        place = functools.partial(_over_slices, config.slices)
    else:
        place = mesh_utils.create_device_mesh
    try:
        placed = place(sizes, devices)
    except NotImplementedError:
        # An axis covers only a part of a network dimension, such as 4 chips of 8.
        placed = place(sizes, devices, allow_split_physical_axes=True)
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.sharding.Mesh(placed, AXES, axis_types=types)


def _over_slices(slices, sizes, devices, **options):
    """Arrange devices so that data is split over the slices first, then within each.

    Devices without a slice index, such as CPUs and GPUs, are grouped by host.
    """
    found = {getattr(device, "slice_index", None) for device in devices}
    by_host = len(found) == 1
    if by_host:
        found = {device.process_index for device in devices}
    if len(found) != slices:
        raise FieldError(
            "slices",
            slices,
            problem=f"the {len(devices)} devices are of {len(found)} "
            f"{('hosts' if by_host else 'slices')}",
            expected="as many",
        )
    data, *rest = sizes
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *rest),
        (slices, *[1] * len(rest)),
        devices,
        process_is_granule=by_host,
        **options,
    )
