"""One process at a time in a run directory."""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.storage.stops import RunInUse


class RunLock:
    """While entered, no other process of any host enters the same directory.

    A lock of the kernel on DIRECTORY/lock: it ends with the process, however that ends,
    so nothing is left to clean up after kill -9. The file says who holds it, for
    people. File systems without such locks (some network ones) are not guarded.
    """

    def __init__(self, directory: Path):
        """Name the directory; made if it is not there when entered."""
        self._path = directory / "lock"
        self._file: int | None = None

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
          RunInUse: naming the process and host that hold it.
          ValueError: the directory cannot be made or written to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise no_place(self._path.parent, str(error)) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 1000, 0).decode(errors="replace")
            os.close(file)
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                return self
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunInUse(
                    "run_dir",
                    str(self._path.parent),
                    problem=f"in use by {_named(holder)}",
                    remedy="wait for it, stop it, or choose another run_dir",
                ) from error
            raise
        os.ftruncate(file, 0)
        who = {"process": os.getpid(), "host": socket.gethostname()}
        os.pwrite(file, json.dumps(who).encode(), 0)
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def no_place(directory: Path, why: str) -> FieldError:
    """The error about a run directory that cannot be."""
    expected = "a folder that can be made or written to"
    return FieldError("run_dir", str(directory), expected, why)


def holder(directory: Path) -> str | None:
    """Who trains in a run directory now, in words; None: nobody, or it is not known."""
    try:
        file = os.open(directory / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        return _named(os.pread(file, 1000, 0).decode(errors="replace"))
    finally:
        os.close(file)


def _named(text: str) -> str:
    try:
        who = json.loads(text)
        return f"process {who['process']} on {who['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
