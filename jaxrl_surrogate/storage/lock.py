"""A lock that lets only one process at a time train in a run directory."""

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
    """A context in which no other process can take the lock of the same run directory.

    It is a kernel lock (flock) on DIRECTORY/lock, which ends with the process, also
    after kill -9. The file names the process and host that hold it. On file systems
    without such locks (some network ones) there is no protection.
    """

    def __init__(self, directory: Path):
        """Store the run directory, which is made on entering if it does not exist."""
        self._path = directory / "lock"
        self._file: int | None = None

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
          RunInUse: another process holds the lock; the message names it and its host.
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
        """Release the lock."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def no_place(directory: Path, why: str) -> FieldError:
    """Return the error about a run directory that cannot be made or written to."""
    expected = "a folder that can be made or written to"
    return FieldError("run_dir", str(directory), expected, why)


def holder(directory: Path) -> str | None:
    """Return text that names the process that trains in a run directory now.

    The result is None if there is no such process or it is not known.
    """
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
