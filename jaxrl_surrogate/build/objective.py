"""What is maximised, as tables of weights by step."""

from jaxrl_surrogate import objectives, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import refused_at
from jaxrl_surrogate.objectives import Schedule, TableFamily, schedules
from jaxrl_surrogate.settings import SettingsError


def build_objective(config: TrainConfig) -> Schedule:
    """Weights for every group size up to M, for every step of the run.

    With dynamic sampling all-right and all-wrong groups have weights of 0: those that
    were not replaced count like those that were.

    Raises:
      SettingsError: unknown name or option, or one the group size cannot serve.
    """
    change = config.objective.schedule
    parts = [family for _, family in named_families(config)]
    if config.train.dynamic_sampling_rounds:
        parts = [objectives.mixed_only(family) for family in parts]
    if change.to is None:
        return schedules.constant(parts[0])
    first, last = parts
    end = change.end or config.train.steps
    if not change.begin < end:
        raise SettingsError(
            f"objective.schedule.begin={change.begin}: expected a step before the end "
            f"of the change, {end}"
        )
    return refused_at(
        "objective.schedule",
        schedules.interpolate,
        first,
        last,
        change.begin,
        end,
        change.shape,
    )


def named_families(config: TrainConfig) -> list[tuple[str, TableFamily]]:
    """The objective by name, and the one that a schedule ends with, as they are alone.

    Raises:
      SettingsError: as `build_objective`.
    """
    wanted, change = config.objective, config.objective.schedule
    first = _family(config, "objective", wanted.name, wanted.options)
    if change.to is None:
        return [(wanted.name, first)]
    last = _family(config, "objective.schedule", change.to, change.options, "to")
    return [(wanted.name, first), (change.to, last)]


def _family(
    config: TrainConfig, path: str, name: str, options: dict, field: str = "name"
) -> TableFamily:
    """An advantage function or a surrogate, by name, as tables."""
    wanted = config.objective
    advantages, surrogates = objectives.advantages, objectives.surrogates
    rooms = {
        "auto": (advantages, surrogates),
        "advantage": (advantages,),
        "surrogate": (surrogates,),
    }[wanted.kind]
    room = next((room for room in rooms if name in room.names()), None)
    if ":" in name and advantages in rooms:  # a peer's rule: verl:grpo
        room = advantages
    if room is None:
        known = dict.fromkeys(name for room in rooms for name in room.names())
        raise SettingsError(
            f"{path}.{field}={name!r}: unknown; {settings.nearest(name, list(known))}"
        )
    where = f"{path}.{field}" if ":" in name else f"{path}.options"
    method = refused_at(where, room.get, name, **options)

    def table(size):
        if room is advantages:
            return method.table(size)
        return objectives.from_surrogate(
            method,
            size,
            method=wanted.method,
            baseline=wanted.baseline,
            prior=wanted.prior or None,
            **wanted.weight_options,
        )

    group_size = config.rollout.group_size
    return refused_at(path, objectives.table_family, table, group_size)
