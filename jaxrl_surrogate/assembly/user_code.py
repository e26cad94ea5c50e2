"""Lists the user's own source files that a run computes with, and their digests."""

from jaxrl_surrogate import tasks
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.objectives import advantages
from jaxrl_surrogate.resolve import source_digest, source_file


def user_code(config: TrainConfig) -> dict[str, str]:
    """Return the SHA-256 of each user file that defines task, reward or objective.

    Files that these import are not included.

    Returns:
      Hexadecimal digests by absolute path.

    Raises:
      FieldError: as `resolve`.
    """
    found = {}
    names = (config.objective.name, config.objective.schedule.to)
    rules = [name for name in names if name and advantages.is_own_code(name)]
    for spec in (*tasks.user_code(config.task), *rules):
        digest = source_digest(spec)
        if digest is not None:
            found[str(source_file(spec))] = digest
    return found
