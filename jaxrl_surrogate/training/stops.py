"""What stops a run through no mistake in its config; said without a traceback."""


class RunInUse(ValueError):
    """Another process trains in this run directory."""


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was saved; the message names the file or array."""


class NoRoom(RuntimeError):
    """The disk has no room for a checkpoint; what is stored is intact."""


class NotFinite(RuntimeError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class VerifierError(RuntimeError):
    """Too few verdicts to go on, or a reward that the objective cannot take."""
