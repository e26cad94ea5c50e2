"""What a verifier's process may use: memory, file sizes, processes, the terminal.

Limits of the kernel, set by the process on itself before it judges anything. They keep
a trainer alive beside a verifier that floods memory or forks; they are no sandbox: code
that means harm needs one of its own.
"""

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

_FILE_BYTES = 64 << 20
_PROCESSES = 64
_PR_SET_CHILD_SUBREAPER = 36


def confine(memory_bytes: int | None) -> None:
    """Limit this process and all that it starts, from now on.

    It leads a session of its own, so that it can be killed with its children; writes no
    file above 64 MiB; where it is not root, may have 64 processes and threads more than
    its user has now; and prints nowhere.

    Args:
      memory_bytes: address space beyond what is used now; None: no limit. What asks for
        more gets a MemoryError.
    """
    os.setsid()
    if memory_bytes is not None:
        _lower(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    if os.geteuid() != 0 and hasattr(resource, "RLIMIT_NPROC"):
        _lower(resource.RLIMIT_NPROC, _tasks_of_user() + _PROCESSES)
    # A file that is too large is an error to the verifier, not its death.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        # Grandchildren whose parent ended come to this process: `sweep` sees them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def sweep() -> None:
    """End the processes that a verifier left behind (Linux; elsewhere nothing)."""
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _children() -> list[int]:
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 2 << 30
    return pages * resource.getpagesize()


def _tasks_of_user() -> int:
    """Threads of all processes of this user: what the kernel counts."""
    total, me = 0, os.geteuid()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == me:
                total += len(os.listdir(path / "task"))
    return total


def _lower(kind: int, value: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
