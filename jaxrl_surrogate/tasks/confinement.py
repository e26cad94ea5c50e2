"""Limits on a verifier's process: memory, file sizes, processes, the terminal.

The process sets these kernel limits on itself before it judges anything. They protect
the trainer from a verifier that uses too much memory or starts too many processes. They
are no sandbox against malicious code.
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
    """Limit this process and the processes that it starts.

    This process becomes the leader of a new session, so that it can be killed together
    with its children. It cannot write files above 64 MiB. If it does not run as root,
    its user may have at most 64 processes and threads more than now. Its standard
    output and standard error are discarded.

    Args:
      memory_bytes: address space that may be used in addition to what is used now; an
        allocation beyond it raises a MemoryError. None sets no limit.
    """
    os.setsid()
    if memory_bytes is not None:
        _lower(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    if os.geteuid() != 0 and hasattr(resource, "RLIMIT_NPROC"):
        _lower(resource.RLIMIT_NPROC, _tasks_of_user() + _PROCESSES)
    # A file that gets too large raises an error and does not kill the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        # Orphaned grandchildren become children of this process, so `sweep` finds them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def sweep() -> None:
    """Kill the processes that a verifier left behind. Works on Linux only."""
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
    """Return the number of threads of this user, which RLIMIT_NPROC counts."""
    total, me = 0, os.geteuid()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == me:
                total += len(os.listdir(path / "task"))
    return total


def _lower(kind: int, value: int) -> None:
    """Lower a limit; a limit that is lower already is kept."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
