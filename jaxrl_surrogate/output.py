"""Handles standard output and error that the reader closes, as `| head` does."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_CLOSED = 141  # the exit status that a shell shows for SIGPIPE


@contextlib.contextmanager
def closable(go_on: bool) -> Iterator[None]:
    """Return a context in which a closed standard output or error raises no error.

    Args:
      go_on: if true, the program continues and further output is lost, also when
        standard output fails in another way, such as a closed terminal. If false, the
        program ends with status 141 at the first write to a closed standard output,
        and other failures raise. Standard error is always handled as if this is true.
    """
    before = sys.stdout, sys.stderr
    if sys.stdout is not None:
        sys.stdout = _Closable(sys.stdout, go_on)
    if sys.stderr is not None:
        sys.stderr = _Closable(sys.stderr, True)
    try:
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    finally:
        sys.stdout, sys.stderr = before


class _Closable:
    """A text stream that survives the loss of its reader."""

    def __init__(self, stream: Any, go_on: bool):
        self._stream, self._go_on = stream, go_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not self._go_on and not isinstance(error, BrokenPipeError):
            raise error
        # Buffered output is flushed to the null device when the program ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not self._go_on:
            raise SystemExit(_CLOSED)
