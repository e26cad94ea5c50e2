"""Suppress messages of Orbax that repeat an error which it also raises.

A save that fails raises an error, which is shown in one line. Before that, each thread
of Orbax logs the same error with a traceback, and writes that are still in progress
report that the event loop is closed.
"""

import logging
import sys


def mute() -> None:
    """Keep these messages off standard error from now on."""
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
    # This warning advises to save less often. Saves wait for each other on purpose, so
    # that they reach the disk in order.
    if "Waiting for previous save" in str(record.msg):
        return False
    return not (record.exc_info and "orbax" in record.pathname)
