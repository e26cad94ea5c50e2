"""Several hosts, one run: start-up, what only one of them does, what all must know.

Every host runs the same program with the same config and sees the same run directory.
All compute the same prompts from the seed; arrays are global, each host holds the part
on its devices. With one host everything here does nothing.
"""

import dataclasses
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_surrogate.errors import FieldError

PREFIX = "--hosts."

# The coordinator's own time to notice, after the seconds of silence.
_GRACE_S = 15
_TIMEOUT_S = 30
# What the libraries say that carry collectives when a peer is gone.
_LOST = re.compile(
    r"gloo|nccl|connection|socket|heartbeat|unavailable|deadline|peer", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Where the hosts find each other; not part of a run's config."""

    coordinator: Annotated[str, "address:port of host 0; auto: from the cluster"] = ""
    number: Annotated[int, "of hosts; with coordinator=auto it is found out"] = 0
    index: Annotated[int, "of this host, from 0"] = -1
    timeout_s: Annotated[int, "seconds until a silent host counts as lost"] = 30

    def __post_init__(self):
        given = self.coordinator not in ("", "auto")
        if given and (self.number < 1 or not 0 <= self.index < self.number):
            raise FieldError(
                "hosts.index",
                self.index,
                f"0 or more and below hosts.number={self.number}, as the coordinator "
                f"{self.coordinator} is given",
            )
        if not given and (self.number or self.index >= 0):
            raise FieldError(
                "hosts.coordinator",
                expected="address:port of host 0, as hosts.number or hosts.index is "
                "given",
            )
        if self.timeout_s < 5:
            raise FieldError("hosts.timeout_s", self.timeout_s, "5 or more")


def take(argv: Sequence[str]) -> tuple[HostsConfig, list[str]]:
    """Split command-line arguments into the hosts' and the rest.

    Raises:
      ValueError: an unknown or ill-typed field.

    >>> take(["--hosts.number=2", "--seed=1"][1:])[1]
    ['--seed=1']
    """
    kinds = {field.name: field.type for field in dataclasses.fields(HostsConfig)}
    values, rest = {}, []
    for word in argv:
        if not word.startswith(PREFIX):
            rest.append(word)
            continue
        name, equals, text = word.removeprefix(PREFIX).partition("=")
        if name not in kinds or not equals:
            raise FieldError(word, expected=f"{PREFIX}NAME=VALUE of {list(kinds)}")
        default = getattr(HostsConfig, name)
        try:
            values[name] = type(default)(text)
        except ValueError as error:
            raise FieldError(f"hosts.{name}", text, "an integer") from error
    return HostsConfig(**values), rest


def start(config: HostsConfig) -> None:
    """Join the other hosts; before JAX looks at its devices. Does nothing for one host.

    "auto" leaves it to JAX, which knows TPU pods, SLURM, Open MPI and Kubernetes jobs.

    Raises:
      RuntimeError: the hosts do not find each other.
    """
    if not config.coordinator:
        return
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    global _TIMEOUT_S
    _TIMEOUT_S = config.timeout_s
    options = {"heartbeat_timeout_seconds": config.timeout_s}
    if config.coordinator != "auto":
        options |= {
            "coordinator_address": config.coordinator,
            "num_processes": config.number,
            "process_id": config.index,
        }
    jax.distributed.initialize(**options)


def leave(status: int, error: Exception | None = None) -> None:
    """End this process without waiting for others, where there are others.

    Whoever fails must not meet them once more: they would wait for each other. Once
    this process is gone the others notice it. An error that says that another host is
    gone is held back until the coordinator names that host, which ends this process.

    Args:
      status: the exit status.
      error: what went wrong, if it was not expected.
    """
    if not jax.distributed.is_initialized():
        return
    if isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
        reason = str(error).splitlines()[0]
        print(
            f"jaxrl: a host does not answer ({reason}); asking the coordinator which",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(_TIMEOUT_S + _GRACE_S)
    if error is not None:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def is_first() -> bool:
    """Whether this host is the one that writes what one host writes."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Return when all hosts are here; `what` names the place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def gather(tree: Any) -> Any:
    """A tree of global arrays as whole NumPy arrays, on every host."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(tree))
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def any_of(flag: bool) -> bool:
    """Whether it is true on any host; all hosts must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def added(array: np.ndarray) -> np.ndarray:
    """The sum over hosts of arrays that are 0 where another host has the entry."""
    if jax.process_count() == 1:
        return array
    return multihost_utils.process_allgather(array).sum(0).astype(array.dtype)
