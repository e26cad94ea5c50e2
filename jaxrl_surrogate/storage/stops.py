"""What stops a run through no mistake in its config; said without a traceback."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class RunInUse(ValueError):
    """Another process trains in this run directory."""


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was saved; the message names the file or array."""


class NoRoom(RuntimeError):
    """The disk has no room for what must be stored; what is stored is intact."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_no_room(error: BaseException) -> bool:
    """Whether a file could not grow: the disk is full, or a quota or limit is reached.

    Libraries written in other languages have only their text for it.
    """
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    said = str(error)
    return "RESOURCE_EXHAUSTED" in said or any(os.strerror(n) in said for n in _NO_ROOM)


@contextlib.contextmanager
def room_in(directory: Path) -> Iterator[None]:
    """While entered, a file that cannot grow is `NoRoom` that names the directory."""
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise NoRoom(
            f"{error.filename or directory}: {error.strerror}; the checkpoints are "
            "intact. Make room and start again"
        ) from error


class NotFinite(RuntimeError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class VerifierError(RuntimeError):
    """Too few verdicts to go on, or a reward that the objective cannot take."""
