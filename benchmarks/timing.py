"""Interleaved medians: times of rivals that share whatever the machine was doing.

Ratios of times taken minutes apart mean little on a shared machine. Here every round
runs each candidate once, in an order that rotates, and what is reported is the median
of the rounds.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds that one call takes, over the rounds of a measurement."""

    median: float
    min: float
    max: float
    repeats: int

    def __str__(self) -> str:
        return f"{format_seconds(self.median)} [{format_seconds(self.min)}]"


# A function to call, or one that prepares its argument, untimed, and one to call with
# it.
Candidate = (
    Callable[[], object] | tuple[Callable[[], object], Callable[[object], object]]
)


def interleave(
    candidates: Mapping[str, Candidate], repeats: int = 15, *, warmup: int = 1
) -> dict[str, Timing]:
    """Time candidates against each other.

    Args:
      candidates: name -> function to call, or a pair (prepare, run) where `run` is
        timed on what `prepare` returned just before: for steps that consume their
        input. JAX arrays in what they return are waited for.
      repeats: rounds that count.
      warmup: rounds before them that do not (compilation, first touch of memory).

    Returns:
      name -> timing, in the order given.

    >>> pair = (lambda: [3, 1, 2], lambda numbers: numbers.sort())
    >>> timings = interleave({"a": lambda: None, "b": pair}, 3)
    >>> list(timings), timings["a"].repeats
    (['a', 'b'], 3)
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: expected 1 or more")
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warmup + repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            elapsed = _seconds(candidates[name])
            if turn >= warmup:
                seconds[name].append(elapsed)
    return {
        name: Timing(statistics.median(taken), min(taken), max(taken), repeats)
        for name, taken in seconds.items()
    }


def environment(packages: Iterable[str] = ()) -> dict[str, str]:
    """What a figure depends on: devices, processor, load, versions.

    Args:
      packages: distributions to name beside jax, jaxlib and numpy; those that are not
        installed are listed as such.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    devices, backend = jax.devices(), jax.default_backend()
    out = {
        "devices": f"{len(devices)} x {devices[0].device_kind} ({backend})",
        "processor": f"{_processor()}, {len(_cores())} cores, load {load:.2f}",
        "python": platform.python_version(),
    }
    for package in ("jax", "jaxlib", "numpy", *packages):
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            out[package] = "not installed"
    return out


def print_environment(packages: Iterable[str] = ()) -> None:
    """Print `environment` as the header of a benchmark, one line each."""
    for name, value in environment(packages).items():
        print(f"# {name}: {value}")


def format_seconds(seconds: float) -> str:
    """Three digits and a unit.

    >>> format_seconds(0.0123), format_seconds(75), format_seconds(4.5e-06)
    ('12.3 ms', '75 s', '4.5 us')
    """
    scales = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    unit = next((unit for unit in scales if seconds >= scales[unit]), "us")
    return f"{seconds / scales[unit]:.3g} {unit}"


def _seconds(candidate):
    if callable(candidate):
        start = time.perf_counter()
        jax.block_until_ready(candidate())
        return time.perf_counter() - start
    prepare, run = candidate
    prepared = jax.block_until_ready(prepare())
    start = time.perf_counter()
    jax.block_until_ready(run(prepared))
    return time.perf_counter() - start


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _processor():
    listing = pathlib.Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
