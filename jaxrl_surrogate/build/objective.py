"""What is maximised, as tables of weights."""

from jaxrl_surrogate import objectives, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import refused_at
from jaxrl_surrogate.objectives import TableFamily
from jaxrl_surrogate.settings import SettingsError


def build_objective(config: TrainConfig) -> TableFamily:
    """Weights for every group size up to M, from an advantage function or a surrogate.

    Raises:
      SettingsError: unknown name or option, or one the group size cannot serve.
    """
    wanted = config.objective
    advantages, surrogates = objectives.advantages, objectives.surrogates
    rooms = {
        "auto": (advantages, surrogates),
        "advantage": (advantages,),
        "surrogate": (surrogates,),
    }[wanted.kind]
    room = next((room for room in rooms if wanted.name in room.names()), None)
    if room is None:
        known = dict.fromkeys(name for room in rooms for name in room.names())
        raise SettingsError(
            f"objective.name={wanted.name!r}: unknown; "
            f"{settings.nearest(wanted.name, list(known))}"
        )
    method = refused_at("objective.options", room.get, wanted.name, **wanted.options)

    def table(size):
        if room is advantages:
            return method.table(size)
        return objectives.from_surrogate(
            method, size, method=wanted.method, baseline=wanted.baseline
        )

    group_size = config.rollout.group_size
    return refused_at("objective", objectives.table_family, table, group_size)
