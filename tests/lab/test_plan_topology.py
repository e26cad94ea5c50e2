"""Topologies: names, refusals, and how long a collective takes on them."""

import jax
import numpy as np
import pytest

from jaxrl_surrogate.lab.plan import topology
from jaxrl_surrogate.lab.plan.collectives import Collective
from jaxrl_surrogate.lab.plan.roofline import collective_seconds, sent_bytes
from jaxrl_surrogate.parallel import MeshConfig, make_mesh

TPU = pytest.mark.skipif(
    not topology.available(), reason="XLA's TPU compiler is not installed"
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "expected KIND:SIZES with KIND one of v5e, v5p, v6e"),
        ("v5p", "expected KIND:SIZES"),
        ("v5p:4x4", "expected 3 sizes"),
        ("v5e:0x4", "expected 2 sizes of at least 1"),
        pytest.param("v5e:3x3", "refused by the TPU compiler", marks=TPU),
    ],
)
def test_refusals_name_topologies_that_are(name, message):
    with pytest.raises(
        ValueError, match=rf"^topology='{name}': .*{message}.*v5p:4x4x4"
    ):
        topology.get(name)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology, "available", lambda: False)
    with pytest.raises(ValueError, match=r"libtpu.*install -e '\.\[tpu\]'"):
        topology.get("v5e:2x2")


def test_devices_of_this_machine():
    found = topology.get("cpu")
    assert found.num_chips == jax.device_count()
    assert found.chip.peak_flops is None and found.chip.usable_bytes > 0


@TPU
@pytest.mark.parametrize(
    ("name", "chips", "rings"),
    [
        ("v5e:16x16", 256, (True, True)),
        ("v6e:8x8", 64, (False, False)),
        ("v5p:4x4x4", 64, (True, True, True)),
        ("v5p:2x2x4", 16, (False, False, True)),
    ],
)
def test_pods(name, chips, rings):
    found = topology.get(name)
    assert found.num_chips == chips and found.rings() == rings
    places = {found.coordinates(device) for device in found.devices}
    assert len(places) == chips
    assert tuple(np.max(list(places), axis=0) + 1) == found.shape


@TPU
@pytest.mark.parametrize(
    ("kind", "sweeps"), [("all-gather", 1), ("reduce-scatter", 1), ("all-reduce", 2)]
)
def test_bytes_over_a_ring_and_over_a_line(kind, sweeps):
    """Large arrays by bandwidth: a ring has two ways round, a line one."""
    size = 10**9
    for name, ways in (("v5e:16x16", 2), ("v6e:8x8", 1)):
        where = topology.get(name)
        n = where.shape[0]
        mesh = make_mesh(MeshConfig(1, where.num_chips // n, n), where.devices)
        groups = np.arange(where.num_chips).reshape(-1, n)
        each = Collective(kind, size, (size,), groups, False, "")
        assert each.axes(mesh) == ("tensor",)
        assert sent_bytes(each) == pytest.approx(sweeps * size * (n - 1) / n)
        expected = sweeps * size * (n - 1) / n / (ways * where.chip.link_bandwidth)
        assert collective_seconds(each, where, mesh) == pytest.approx(expected)
        tiny = Collective(kind, 4, (1,), groups, False, "")
        hops = n // 2 if ways == 2 else n - 1
        found = collective_seconds(tiny, where, mesh)
        assert found == pytest.approx(sweeps * hops * topology.HOP_SECONDS)


@TPU
def test_what_crosses_slices_takes_the_slower_network():
    """A sum over 2 slices of 8 chips: in a slice, then half of an eighth each way."""
    where = topology.get("2*v5e:2x4")
    assert where.num_chips == 16 and where.slices == 2
    mesh = make_mesh(MeshConfig(data=2, fsdp=8, slices=2), where.devices)
    assert {where.slice_of(d) for d in mesh.devices[0].flat} == {0}
    size = 2**30
    inside = Collective("all-reduce", size, (), np.arange(8)[None], False, "")
    across = Collective("all-reduce", size, (), np.arange(16)[None], False, "")
    extra = collective_seconds(across, where, mesh)
    extra -= collective_seconds(inside, where, mesh)
    over_ici = 2 * size * (15 / 16 - 7 / 8) / (2 * 45e9)  # two links, of 15/16 of all
    assert extra - over_ici == pytest.approx(size / 8 / 3.125e9)


@TPU
def test_axes_that_are_part_of_a_dimension_have_a_mesh():
    """4 chips of a row of 8, which JAX refuses unless asked."""
    where = topology.get("v6e:8x8")
    mesh = make_mesh(MeshConfig(1, 16, 4), where.devices)
    rows = [[where.coordinates(d) for d in row] for row in mesh.devices.reshape(16, 4)]
    for row in rows:
        across = [len(set(column)) for column in zip(*row, strict=True)]
        assert sorted(across) == [1, 4]
