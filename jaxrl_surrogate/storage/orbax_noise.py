"""What Orbax prints beside what it raises: nothing that a user could act upon.

A save that fails raises, and is said in a line. Its threads log the same error with a
traceback each before that, and writes that were still under way find the event loop of
the failed one closed.
"""

import logging
import sys


def mute() -> None:
    """Keep it off standard error, from now on."""
    logger = logging.getLogger("absl")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
    before = sys.unraisablehook
    if getattr(before, "mutes_orbax", False):
        return

    def hook(what):
        if str(what.exc_value) != "Event loop is closed":
            before(what)

    hook.mutes_orbax = True
    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    # It would advise everybody whose states take a second to be written to store fewer;
    # that a phase waits for the one before it is what makes them durable in order.
    if "Waiting for previous save" in str(record.msg):
        return False
    return not (record.exc_info and "orbax" in record.pathname)
