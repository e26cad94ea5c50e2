"""The environment of a run: versions, devices, flags and commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import jax

_PACKAGES = (
    "jaxrl_surrogate",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
)
# Variables that change what a compiled program computes, or where.
_FLAGS = ("XLA_", "JAX_", "LIBTPU_", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")


def environment(user_code: Mapping[str, str] | None = None) -> dict:
    """Return what a run depends on besides its config, as JSON values.

    Args:
      user_code: SHA-256 of each file of the user's own code, by path.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "flags": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_FLAGS)
        },
        "commit": _commit(),
        "user_code": dict(user_code or {}),
        "command": sys.argv,
    }


def environment_difference(then: dict, now: dict) -> list[tuple[str, object, object]]:
    """Return name, old and new value of each difference except the command line."""
    old, new = _flat(then), _flat(now)
    return [
        (name, old.get(name), new.get(name))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name) and name != "command"
    ]


def _flat(environment: dict) -> dict[str, object]:
    out = {}
    for name, value in environment.items():
        inside = value if isinstance(value, dict) else None
        out |= {name: value} if inside is None else _under(name, inside)
    return out


def _under(name: str, values: dict) -> dict[str, object]:
    return {f"{name}.{key}": value for key, value in values.items()}


def _commit() -> str | None:
    """Return the git commit of this package's checkout, with "-dirty" if modified."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return None  # installed, not a checkout
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
