"""Threads for many devices of one host.

XLA's CPU client runs its devices on a pool of as many threads as there are cores or
devices. Collectives of one program may run side by side, and each waits in a thread: on
eight devices the pool can be full of waiters while those they wait for have no thread,
and XLA ends the process after 40 s ("Termination timeout for all reduce"). A larger
pool ends that; the threads sleep most of the time.
"""

import os
import re
from collections.abc import MutableMapping

_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_THREADS_PER_DEVICE = 8


def enough_host_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have XLA start threads for all devices that XLA_FLAGS asks of the host.

    To be called before JAX counts its devices; later it does nothing. XLA reads the
    number from NPROC; one that is set already stays.
    """
    found = _DEVICES.search(environment.get("XLA_FLAGS", ""))
    if found and int(found[1]) > 1:
        environment.setdefault("NPROC", str(_THREADS_PER_DEVICE * int(found[1])))
