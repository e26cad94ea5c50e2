"""Ctrl-C and SIGTERM as a request to stop at the next phase border."""

import signal
import sys
from types import FrameType

from jaxrl_surrogate.parallel import hosts


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `received`; a second one kills.

    The loop looks at `received` between phases, saves and returns: at most one phase
    later. Who cannot wait asks twice. The second one has the kernel's own action, which
    does not wait for a device either; checkpoints are atomic, so the last is intact.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Install the handlers."""
        self._previous = {
            number: signal.signal(number, self._handle) for number in self._SIGNALS
        }
        return self

    def __exit__(self, *exception: object) -> None:
        """Put the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether a host was asked to stop; all hosts ask at the same places."""
        return hosts.any_of(self.received is not None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for other in self._SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        self.received = signal.Signals(number).name
        print(
            f"\n{self.received}: saving at the end of this phase; once more stops now",
            file=sys.stderr,
        )
