"""Errors that stop a run but are not config errors; shown without a traceback."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from jaxrl_surrogate.errors import FieldError


class RunInUse(FieldError):
    """Another process trains in this run directory."""


class DamagedCheckpoint(ValueError):
    """A checkpoint differs from what was saved; the message names the file or array."""


class OtherFormat(ValueError):
    """A checkpoint has the format of another version, which this version cannot read.

    The message names the checkpoint, both formats and the version that wrote it.
    """


class NoRoom(RuntimeError):
    """The disk has no room for files of the run; what is already stored is intact."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException) -> str | None:
    """Return why a file could not grow: a full disk, or a quota or limit.

    The result is None for any other error. Errors of libraries that are written in
    other languages are recognized by their text.
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
    """Turn the OSError of a file that cannot grow into a `NoRoom` with its path."""
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
    """The verifier gave too few verdicts, or rewards that the objective cannot take."""
