"""The mesh: sizes, the free axis, axis types, and what is refused."""

import dataclasses
import functools

import jax
import pytest

from jaxrl_surrogate.parallel import MeshConfig, make_mesh, mesh


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), (1, 8, 1)),
        (MeshConfig(fsdp=2, tensor=2), (2, 2, 2)),
        (MeshConfig(data=2, fsdp=4, tensor=1), (2, 4, 1)),
        (MeshConfig(data=1, fsdp=1, tensor=-1), (1, 1, 8)),
        (MeshConfig(data=1, expert=4, sequence=2), (1, 1, 1, 4, 2)),
    ],
)
def test_axes_take_the_devices(config, sizes):
    found = make_mesh(config, jax.devices()[:8])
    names = ("data", "fsdp", "tensor", "expert", "sequence")
    expected = dict(zip(names, (*sizes, 1, 1), strict=False))
    assert dict(found.shape) == expected
    assert found.size == 8
    assert set(found.axis_types) == {jax.sharding.AxisType.Auto}


def test_all_devices_by_default_and_a_part_on_request():
    assert make_mesh(MeshConfig()).size == jax.device_count()
    one = make_mesh(MeshConfig(), jax.devices()[3:4])
    assert [d.id for d in one.devices.flat] == [jax.devices()[3].id]


def test_data_runs_over_slices_first():
    """Devices of two hosts: neighbours on the data axis are on different ones."""

    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        process_index: int
        platform: str = "cpu"
        device_kind: str = "cpu"

    devices = [Device(i, i // 4) for i in range(8)]
    place = functools.partial(mesh._over_slices, 2)
    found = place((4, 2, 1, 1, 1), devices)
    hosts = [[device.process_index for device in row.flat] for row in found]
    assert hosts == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"slices=4: the 8 devices are of 2 hosts"):
        mesh._over_slices(4, (4, 2, 1, 1, 1), devices)
    with pytest.raises(ValueError, match=r"slices=2: the 8 devices are of 1 hosts"):
        make_mesh(MeshConfig(data=4, fsdp=2, slices=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slices": 0}, "slices=0: expected at least 1"),
        ({"slices": 2, "data": 3}, "slices=2: expected a divisor of data=3"),
    ],
)
def test_slices_divide_data(fields, message):
    with pytest.raises(ValueError, match=message):
        MeshConfig(**fields)
    with pytest.raises(ValueError, match="multiple of slices=3"):
        MeshConfig(slices=3).sizes(8)


@pytest.mark.parametrize("size", [0, -2])
def test_a_size_is_positive_or_free(size):
    with pytest.raises(ValueError, match=rf"^fsdp={size}: expected at least 1"):
        MeshConfig(fsdp=size)


def test_one_axis_at_most_is_free():
    with pytest.raises(ValueError, match=r"^tensor=-1: data is -1 too"):
        MeshConfig(tensor=-1)


def test_errors_name_sizes_and_devices():
    with pytest.raises(ValueError, match=r"data=2 x fsdp=2 is .* 4 .* are 8;"):
        MeshConfig(data=2, fsdp=2).sizes(8)
    with pytest.raises(ValueError, match=r"1 for every axis is .* 1 .* are 8;"):
        MeshConfig(data=1).sizes(8)
    with pytest.raises(ValueError, match=r"fsdp=3 does not divide the 8"):
        MeshConfig(fsdp=3).sizes(8)
