"""Enough threads for a CPU host that simulates several devices.

XLA's CPU client runs its devices on a pool of as many threads as there are cores or
devices. Collectives of one program may run side by side, and each one blocks a thread
while it waits. With eight devices all threads can be waiting while the participants
they wait for have no thread; XLA then ends the process after 40 s ("Termination timeout
for all reduce"). A larger pool prevents this; its threads sleep most of the time.
"""

import os
import re
from collections.abc import MutableMapping

_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_THREADS_PER_DEVICE = 8


def enough_host_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give XLA enough threads for the CPU devices that XLA_FLAGS asks for.

    XLA reads the number of threads from the variable NPROC, which this function sets
    unless it is set already. Call it before JAX initialises its devices; later it has
    no effect.

    Args:
      environment: the environment variables to read and to change.
    """
    found = _DEVICES.search(environment.get("XLA_FLAGS", ""))
    if found and int(found[1]) > 1:
        environment.setdefault("NPROC", str(_THREADS_PER_DEVICE * int(found[1])))
