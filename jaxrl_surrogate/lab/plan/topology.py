"""Maps names of pods to devices to compile for, with the figures of their chips."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax

from jaxrl_surrogate.errors import FieldError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip; None if nothing is published.

    Peak and HBM bandwidth are those of Google's pages on each TPU version
    (cloud.google.com/tpu/docs/v5e, v5p, v6e) and of NVIDIA's data sheets; link
    bandwidths are those measured in "How to Scale Your Model", chapter 2
    (jax-ml.github.io/scaling-book/tpus), which are a tenth below the nominal ones. The
    data-centre bandwidth of a chip is Google's figure for a pod, divided by its chips.
    """

    name: str
    hbm_bytes: int
    usable_bytes: int  # what XLA lets a program use
    peak_flops: float | None  # bfloat16 products, per second
    hbm_bandwidth: float | None  # bytes per second
    link_bandwidth: float | None  # bytes per second, one link in one direction
    dimensions: int = 1  # of the network within a slice
    ring_at: int = 0  # a dimension closes a ring if its size is a multiple of this
    slice_bandwidth: float | None = None  # bytes per second of a chip, between slices


CHIPS = {
    "v5e": Chip(
        "TPU v5e", 16 * _GIB, int(15.75 * _GIB), 197e12, 819e9, 45e9, 2, 16, 3.125e9
    ),
    "v5p": Chip(
        "TPU v5p", 96 * _GIB, int(95.74 * _GIB), 459e12, 2765e9, 90e9, 3, 4, 6.25e9
    ),
    "v6e": Chip(
        "TPU v6e", 32 * _GIB, int(31.25 * _GIB), 918e12, 1640e9, 90e9, 2, 16, 12.5e9
    ),
}
EXAMPLES = "v5e:4x4, v5e:16x16, v5p:2x2x4, v5p:4x4x4, v5p:8x8x16, v6e:8x8, v6e:16x16"

# Latency of a message between neighbouring chips (scaling book, chapter 3).
HOP_SECONDS = 1e-6

_GPUS = {
    "H100": Chip(
        "NVIDIA H100 SXM", 80 * 10**9, 75 * 10**9, 989e12, 3350e9, 450e9, None
    ),
    "H200": Chip(
        "NVIDIA H200 SXM", 141 * 10**9, 106 * 10**9, 989e12, 4800e9, 450e9, None
    ),
    "A100": Chip(
        "NVIDIA A100 80 GB", 80 * 10**9, 60 * 10**9, 312e12, 2039e9, 300e9, None
    ),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for and the network between them."""

    name: str
    chip: Chip
    shape: tuple[int, ...]  # chips of one slice along each dimension of its network
    slices: int  # number of slices, joined by the data-centre network
    devices: Sequence[jax.Device]
    compiles_for_others: bool  # whether the devices need not be in this machine

    @property
    def num_chips(self) -> int:
        """Number of chips; each is one device."""
        return len(self.devices)

    def rings(self) -> tuple[bool, ...]:
        """Return for each dimension of the network whether it closes a ring."""
        every = self.chip.ring_at
        return tuple(bool(every) and size % every == 0 for size in self.shape)

    def coordinates(self, device: jax.Device) -> tuple[int, ...]:
        """Return the coordinates of a device in the network of its slice."""
        if not self.compiles_for_others:
            return (list(self.devices).index(device),)
        return tuple(device.coords[: len(self.shape)])

    def slice_of(self, device: jax.Device) -> int:
        """Return the number of the slice that a device is in."""
        return device.slice_index if self.slices > 1 else 0


def get(name: str) -> Topology:
    """Return a topology by name.

    Args:
      name: KIND:SIZExSIZE.. with the chips along each dimension of the network, such as
        "v5p:4x4x4"; "2*v5p:4x4x4" for two such slices; or "local", "cpu", "cuda", "gpu"
        or "tpu" for devices of this machine.

    Raises:
      FieldError: the name is unknown or malformed, XLA's TPU compiler refuses it or is
        not installed, or this machine has no such device.
    """
    if name in ("local", "cpu", "cuda", "gpu", "tpu"):
        return _local(name)
    found = re.fullmatch(r"(?:([1-9]\d*)\*)?(\w+):(\d+(?:x\d+)*)", name)
    if not found or found[2] not in CHIPS:
        raise FieldError(
            "topology",
            name,
            f"KIND:SIZES with KIND one of {', '.join(CHIPS)}, such as {EXAMPLES}, or "
            "local, cpu, cuda, tpu",
        )
    slices, chip = int(found[1] or 1), CHIPS[found[2]]
    shape = tuple(map(int, found[3].split("x")))
    if len(shape) != chip.dimensions or 0 in shape:
        raise FieldError(
            "topology",
            name,
            f"{chip.dimensions} sizes of at least 1, the network of {chip.name} has "
            "as many dimensions",
            f"such as {EXAMPLES}",
        )
    one = f"{found[2]}:{found[3]}"
    devices = _described(one, slices, math.prod(shape))
    return Topology(name, chip, shape, slices, devices, True)


def names_a_pod(name: str) -> bool:
    """Return whether a name is of TPU chips that need not be in this machine."""
    return name.split(":")[0].split("*")[-1] in CHIPS


def available() -> bool:
    """Return whether XLA's TPU compiler is installed."""
    return importlib.util.find_spec("libtpu") is not None


def _described(name: str, slices: int, num_chips: int) -> Sequence[jax.Device]:
    if not available():
        raise FieldError(
            "topology",
            name,
            "package libtpu, which holds XLA's compiler for TPUs and runs on any "
            "machine",
            "in the checkout: pip install -e '.[tpu]'",
        )
    # The library looks for a TPU machine; elsewhere these variables stand for one.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # no device is opened
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
    ):
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, num_slices=slices
        )
    except Exception as error:  # the library's own, of many types
        reason = str(error).splitlines()[0]
        raise FieldError(
            "topology",
            name,
            problem=f"refused by the TPU compiler ({reason})",
            expected=f"a slice that can be had, such as {EXAMPLES}",
        ) from error
    if len(found.devices) != slices * num_chips:
        raise FieldError(
            "topology",
            name,
            problem=f"has {len(found.devices)} devices on {num_chips} chips",
            expected="chips that are one device each",
        )
    return found.devices


def _local(name: str) -> Topology:
    try:
        devices = jax.devices() if name == "local" else jax.devices(name)
    except RuntimeError as error:
        raise FieldError(
            "topology",
            name,
            problem=f"this machine has no such device ({str(error).splitlines()[0]})",
            expected=f"local, or a pod such as {EXAMPLES}",
        ) from error
    kind = devices[0].device_kind
    chip = next((chip for key, chip in _GPUS.items() if key in kind), None)
    if chip is None:
        memory = _host_memory() // len(devices) if name != "tpu" else 0
        stats = devices[0].memory_stats() or {}
        memory = stats.get("bytes_limit", memory)
        chip = Chip(kind, memory, memory, None, None, None)
    return Topology(name, chip, (len(devices),), 1, devices, False)


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
