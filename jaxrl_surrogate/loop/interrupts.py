"""Ctrl-C and SIGTERM ask a run to stop at the end of the current phase."""

import os
import signal
import sys
import threading
from types import FrameType

from jaxrl_surrogate.parallel import hosts

_STOPPED = 130  # exit status, the same as of a run that stopped between phases


class StopRequest:
    """A context in which a first signal asks the run to stop and a second one ends it.

    The first SIGINT or SIGTERM sets `received`. The loop checks it between phases,
    saves and returns, so the run stops at the end of the current phase. A second signal
    of either kind ends the process at once. Checkpoints are atomic, so the last one
    stays intact.

    A thread reads the signals, because Python runs signal handlers only between two
    bytecodes of the main thread, which may be waiting for a device.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> "StopRequest":
        """Install the handlers."""
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(
            target=self._watch, args=(reading,), name="signals", daemon=True
        )
        self._thread.start()
        self._previous_fd = signal.set_wakeup_fd(self._writing)
        self._previous = {
            number: signal.signal(number, self._handle) for number in self._SIGNALS
        }
        return self

    def __exit__(self, *exception: object) -> None:
        """Put the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._writing)
        self._thread.join()

    def agreed(self) -> bool:
        """Return whether any host was asked to stop; all hosts must call this."""
        return hosts.any_of(self.received is not None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name

    def _watch(self, reading: int) -> None:
        """Read the numbers of signals as they arrive, until the pipe is closed."""
        asked = False
        while number := os.read(reading, 1):
            if number[0] not in self._SIGNALS:
                continue
            if asked:
                os._exit(_STOPPED)
            asked, name = True, signal.Signals(number[0]).name
            print(
                f"\n{name}: saving at the end of this phase; once more stops now",
                file=sys.stderr,
            )
        os.close(reading)
