"""What stops a run through no mistake in its config; said without a traceback."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from jaxrl_surrogate.errors import FieldError


class RunInUse(FieldError):
    """Another process trains in this run directory."""


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was saved; the message names the file or array."""


class OtherFormat(ValueError):
    """A checkpoint was written by another version, in a format that this one reads not.

    The message names the checkpoint, both formats and the version that wrote it.
    """


class NoRoom(RuntimeError):
    """The disk has no room for what must be stored; what is stored is intact."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException) -> str | None:
    """Why a file could not grow: the disk is full, or a quota or limit is reached.

    None for any other error. Libraries written in other languages have only text.
    """
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _NO_ROOM else None
    known = (os.strerror(number) for number in _NO_ROOM)
    known = [reason for reason in known if reason in str(error)]
    if not known and "RESOURCE_EXHAUSTED" in str(error):
        known = [os.strerror(errno.ENOSPC)]
    return known[0] if known else None


@contextlib.contextmanager
def room_in(directory: Path) -> Iterator[None]:
    """While entered, a file that cannot grow is `NoRoom` that names the directory."""
    try:
        yield
    except OSError as error:
        if no_room(error) is None:
            raise
        raise NoRoom(
            f"{error.filename or directory}: {no_room(error)}; the checkpoints are "
            "intact. Make room and start again"
        ) from error


class NotFinite(RuntimeError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class VerifierError(RuntimeError):
    """Too few verdicts to go on, or a reward that the objective cannot take."""
