"""Standard output and error that a reader may close, as `| head` does."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_CLOSED = 141  # the exit status that a shell shows for SIGPIPE


@contextlib.contextmanager
def closable(go_on: bool) -> Iterator[None]:
    """While entered, a closed standard output is no error.

    Args:
      go_on: what is printed from then on is lost and nothing else; also where the
        stream fails in another way, such as a terminal that is gone. Otherwise the
        program ends quietly once it prints.
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
    """A text stream whose reader may go away."""

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
        # What is buffered still goes somewhere when the program ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not self._go_on:
            raise SystemExit(_CLOSED)
