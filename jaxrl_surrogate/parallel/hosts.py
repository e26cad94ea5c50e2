"""One run on several hosts: start-up, shutdown and communication between processes.

Every host runs the same program with the same config and sees the same run directory.
All hosts compute the same prompts from the seed. Arrays are global, and each host holds
the part that is on its devices. With one host the functions here do nothing or return
their argument.
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

# How long the coordinator may take to report a lost host once its timeout has passed.
_GRACE_S = 15
_TIMEOUT_S = 30
# Messages of the communication libraries when another process is gone.
_LOST = re.compile(
    r"gloo|nccl|connection|socket|heartbeat|unavailable|deadline|peer", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """How the hosts of a run find each other. It is not part of the run's config."""

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
    """Separate the `--hosts.NAME=VALUE` arguments of a command line from the others.

    Args:
      argv: the arguments, without the program's name.

    Returns:
      The config of the hosts, and the remaining arguments in their order.

    Raises:
      ValueError: a field is unknown or has a value of another type.

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
    """Connect this process to the other hosts of the run.

    Call it before JAX initialises its devices. It does nothing where no coordinator is
    given. With the coordinator "auto", JAX finds the hosts itself; it supports TPU
    pods, SLURM, Open MPI and Kubernetes jobs.

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
    """End this process at once if it is one of several; return otherwise.

    A process that failed must not enter another collective or barrier, where it and the
    others would wait for each other. The others notice when it is gone. If `error` says
    that another host is lost, this function first waits, so that the coordinator can
    report which host it is; JAX ends this process when that report arrives.

    Args:
      status: the exit status.
      error: an unexpected exception, whose traceback is printed; None if there is none.
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
    """Whether this is host 0, which writes the files that a run writes once."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Wait until every host has called this function.

    Args:
      what: a name of the barrier, the same on all hosts.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def gather(tree: Any) -> Any:
    """Return a tree of global arrays as complete NumPy arrays, on every host."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(tree))
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def any_of(flag: bool) -> bool:
    """Return whether `flag` is true on any host. Every host must call this."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def added(array: np.ndarray) -> np.ndarray:
    """Return the sum of an array over all hosts. Every host must call this.

    Args:
      array: of the same shape and dtype on every host; each host leaves the entries
        that another host provides at 0.

    Returns:
      An array of that shape and dtype, the same on every host.
    """
    if jax.process_count() == 1:
        return array
    return multihost_utils.process_allgather(array).sum(0).astype(array.dtype)
