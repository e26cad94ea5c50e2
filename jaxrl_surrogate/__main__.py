"""`python -m jaxrl_surrogate` is the `jaxrl` program."""

import signal
import sys


def program() -> None:
    """Run the program of the command line and exit."""
    # Ctrl-C ends it at once and without a traceback, while it imports too; training
    # has handlers of its own (`loop.interrupts`). Ignored where a shell says so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from jaxrl_surrogate.cli import main

    sys.exit(main())


if __name__ == "__main__":
    program()
