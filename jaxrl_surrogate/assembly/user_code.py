"""Files of the user's own that a run computes with, and what is in them."""

from jaxrl_surrogate import tasks
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.objectives import advantages
from jaxrl_surrogate.resolve import source_digest, source_file


def user_code(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of the files that task, reward and objective come from, by path.

    What those files import is not among them.

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
