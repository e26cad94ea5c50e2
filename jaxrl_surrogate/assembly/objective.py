"""What is maximised, as tables of weights by step."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

from jaxrl_surrogate import objectives, settings
from jaxrl_surrogate.assembly import own_rules
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.faults import refused_at
from jaxrl_surrogate.objectives import GeneralRule, TableFamily, names, schedules
from jaxrl_surrogate.objectives.config import ObjectiveConfig
from jaxrl_surrogate.settings import SettingsError


def build_objective(
    config: TrainConfig,
) -> Callable[[int], TableFamily | GeneralRule]:
    """Weights for every group size up to M, for every step of the run.

    With dynamic sampling groups of equal rewards have weights of 0: those that were not
    replaced count like those that were.

    Returns:
      A `Schedule` of tables; with objective.kind=function one rule for all steps.

    Raises:
      SettingsError: unknown name or option, or one the group size cannot serve.
    """
    change = config.objective.schedule
    if config.objective.kind == "function":
        rule = _general_rule(config)
        return lambda step: rule
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

    None with objective.kind=function, which has no tables.

    Raises:
      SettingsError: as `build_objective`.
    """
    wanted, change = config.objective, config.objective.schedule
    if wanted.kind == "function":
        return []
    named = [("objective", "name", wanted.name, wanted.options)]
    if change.to is not None:
        named.append(("objective.schedule", "to", change.to, change.options))
    homes = [_home(config, path, field, name) for path, field, name, _ in named]
    _refuse_what_nothing_reads(config, homes)
    return [
        (name, _family(config, home, path, field, name, options))
        for home, (path, field, name, options) in zip(homes, named, strict=True)
    ]


def _home(config: TrainConfig, path: str, field: str, name: str) -> ModuleType:
    """The module of advantage functions or of surrogates, where it knows the name."""
    advantages, surrogates = objectives.advantages, objectives.surrogates
    homes = {
        "auto": (advantages, surrogates),
        "advantage": (advantages,),
        "surrogate": (surrogates,),
    }[config.objective.kind]
    if "=" in name:
        known, given = refused_at(f"{path}.{field}", names.parse, name)
        options = " ".join(f"--{path}.options.{key}={x}" for key, x in given.items())
        raise SettingsError(
            f"{path}.{field}={name!r}: in a config parameters are options; expected "
            f"--{path}.{field}={known} {options}"
        )
    if advantages.is_own_code(name):
        own = refused_at(path, own_rules.is_own_surrogate, name, field)
        return homes[-1] if own else homes[0]
    if ":" in name and advantages in homes:  # a peer's rule: verl:grpo
        return advantages
    for home in homes:
        if name in home.names():
            return home
    known = dict.fromkeys(name for home in homes for name in home.names())
    raise SettingsError(
        f"{path}.{field}={name!r}: unknown; {settings.nearest(name, list(known))}"
    )


def _refuse_what_nothing_reads(config: TrainConfig, homes: list[ModuleType]) -> None:
    """Fields that were set and do nothing with this objective: a mistake by the user.

    Raises:
      SettingsError: a line for each.
    """
    wanted, plain = config.objective, ObjectiveConfig()
    faults = []
    if wanted.kind == "function" and wanted.rewards != plain.rewards:
        faults.append(
            f"objective.rewards={wanted.rewards!r}: lifts tables to graded rewards, "
            "and a function gets the rewards as they are; leave it out"
        )
    if wanted.kind == "function" and wanted.schedule.to is not None:
        raise SettingsError(
            f"objective.schedule.to={wanted.schedule.to!r}: a schedule mixes tables, "
            "and objective.kind=function has none; leave it out, or leave out the kind "
            "to have the rule as a table"
        )
    if objectives.surrogates not in homes:
        names = " and ".join(filter(None, (wanted.name, wanted.schedule.to)))
        for field in ("method", "baseline", "prior", "weight_options"):
            value = getattr(wanted, field)
            if value != getattr(plain, field):
                faults.append(
                    f"objective.{field}={value!r}: makes weights of a surrogate, and "
                    f"{names} has weights of its own; leave it out, or name a "
                    "surrogate (objective.kind=surrogate where both have the name)"
                )
    if wanted.schedule.to is None:
        faults += [
            f"objective.schedule.{name}={value!r}: needs objective.schedule.to, the "
            "objective to end with"
            for name, _, value in settings.difference(plain.schedule, wanted.schedule)
        ]
    if faults:
        raise SettingsError("\n".join(faults))


def _family(
    config: TrainConfig,
    home: ModuleType,
    path: str,
    field: str,
    name: str,
    options: dict,
) -> TableFamily:
    """An advantage function or a surrogate, as tables."""
    wanted = config.objective
    if objectives.advantages.is_own_code(name):
        rules = home is objectives.advantages
        make = own_rules.own_function if rules else own_rules.own_surrogate
        method = refused_at(path, make, name, options, field)
    else:
        where = f"{path}.{field}" if ":" in name else f"{path}.options"
        method = refused_at(where, home.get, name, **options)

    def table(size):
        if home is objectives.advantages:
            return own_rules.tabulated(method, size, name, field)
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


def _general_rule(config: TrainConfig) -> GeneralRule:
    """The function that objective.kind=function names, tried on a group."""
    wanted = config.objective
    _refuse_what_nothing_reads(config, [])
    if not objectives.advantages.is_own_code(wanted.name):
        raise SettingsError(
            f"objective.name={wanted.name!r}: objective.kind=function takes a function "
            "of your own; expected my.py:my_rule, or another kind for a rule by name"
        )
    function = refused_at(
        "objective",
        own_rules.own_function,
        wanted.name,
        wanted.options,
        may_take_mask=True,
    )
    try:
        rule = objectives.general_rule(function, config.rollout.group_size)
    except FieldError as error:
        raise SettingsError(
            f"objective.name={wanted.name!r}: {error.problem}"
        ) from error
    return dataclasses.replace(
        rule, mixed_only=config.train.dynamic_sampling_rounds > 0
    )
