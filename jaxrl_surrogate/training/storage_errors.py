"""What can be wrong with a run directory; said to the user without a traceback."""


class RunInUse(ValueError):
    """Another process trains in this run directory."""


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was saved; the message names the file or array."""


class NoRoom(RuntimeError):
    """The disk has no room for a checkpoint; what is stored is intact."""
