"""Builds the objective of a run: weight tables, or an advantage function, by step."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType

from jaxrl_surrogate import objectives, settings
from jaxrl_surrogate.assembly import own_rules
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError, FieldErrors, inside, unknown
from jaxrl_surrogate.objectives import GeneralRule, TableFamily, names, schedules
from jaxrl_surrogate.objectives.config import ObjectiveConfig


def build_objective(
    config: TrainConfig,
) -> Callable[[int], TableFamily | GeneralRule]:
    """Return the function that gives the weights of a step.

    With dynamic sampling, groups of equal rewards get weights of 0, also those that
    could not be replaced.

    Returns:
      A function from step to a `TableFamily`, the weight tables of all group sizes up
      to M; with objective.kind=function, to the same `GeneralRule` at every step.

    Raises:
      FieldErrors: a name or option is unknown, or does not work with the group size.
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
        raise FieldError(
            "objective.schedule.begin",
            change.begin,
            f"a step before the end of the change, {end}",
        )
    with inside("objective.schedule"):
        return schedules.interpolate(first, last, change.begin, end, change.shape)


def named_families(config: TrainConfig) -> list[tuple[str, TableFamily]]:
    """Return the objective and, with a schedule, the one that it ends with.

    Dynamic sampling does not change these tables, unlike those of `build_objective`.

    Returns:
      (name, tables) of each; empty with objective.kind=function, which has no tables.

    Raises:
      FieldErrors: as `build_objective`.
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
    """Return the module that knows the name: `advantages` or `surrogates`."""
    advantages, surrogates = objectives.advantages, objectives.surrogates
    homes = {
        "auto": (advantages, surrogates),
        "advantage": (advantages,),
        "surrogate": (surrogates,),
    }[config.objective.kind]
    if "=" in name:
        try:
            known, given = names.parse(name)
        except FieldError as error:
            raise error.at(f"{path}.{field}") from error
        options = " ".join(f"--{path}.options.{key}={x}" for key, x in given.items())
        raise FieldError(
            f"{path}.{field}",
            name,
            f"--{path}.{field}={known} {options}",
            problem="in a config parameters are options",
        )
    if advantages.is_own_code(name):
        with inside(path):
            own = own_rules.is_own_surrogate(name, field)
        return homes[-1] if own else homes[0]
    if ":" in name and advantages in homes:  # another trainer's rule: verl:grpo
        return advantages
    for home in homes:
        if name in home.names():
            return home
    known = dict.fromkeys(name for home in homes for name in home.names())
    raise unknown(f"{path}.{field}", name, known)


def _refuse_what_nothing_reads(config: TrainConfig, homes: list[ModuleType]) -> None:
    """Refuse fields that are set but have no effect with this objective.

    Raises:
      FieldErrors: one error for each such field.
    """
    wanted, plain = config.objective, ObjectiveConfig()
    errors = []
    if wanted.kind == "function" and wanted.rewards != plain.rewards:
        errors.append(
            FieldError(
                "objective.rewards",
                wanted.rewards,
                problem="lifts tables to graded rewards, and a function gets the "
                "rewards as they are",
                remedy="leave it out",
            )
        )
    if wanted.kind == "function" and wanted.schedule.to is not None:
        raise FieldError(
            "objective.schedule.to",
            wanted.schedule.to,
            problem="a schedule mixes tables, and objective.kind=function has none",
            remedy="leave it out, or leave out the kind to have the rule as a table",
        )
    if objectives.surrogates not in homes:
        names = " and ".join(filter(None, (wanted.name, wanted.schedule.to)))
        for field in ("method", "baseline", "prior", "weight_options"):
            value = getattr(wanted, field)
            if value != getattr(plain, field):
                errors.append(
                    FieldError(
                        f"objective.{field}",
                        value,
                        problem=f"makes weights of a surrogate, and {names} has "
                        "weights of its own",
                        remedy="leave it out, or name a surrogate "
                        "(objective.kind=surrogate where both have the name)",
                    )
                )
    if wanted.schedule.to is None:
        errors += [
            FieldError(
                f"objective.schedule.{name}",
                value,
                problem="needs objective.schedule.to, the objective to end with",
            )
            for name, _, value in settings.difference(plain.schedule, wanted.schedule)
        ]
    if errors:
        raise FieldErrors(errors)


def _family(
    config: TrainConfig,
    home: ModuleType,
    path: str,
    field: str,
    name: str,
    options: dict,
) -> TableFamily:
    """Return the weight tables of an advantage function or of a surrogate."""
    wanted = config.objective

    def table(size, method):
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

    places = {
        "name": f"{path}.{field}",
        field: f"{path}.{field}",
        "group_size": "rollout.group_size",
        **{field: f"objective.{field}" for field in ("method", "baseline", "prior")},
        **{key: f"objective.weight_options.{key}" for key in wanted.weight_options},
    }
    try:
        if objectives.advantages.is_own_code(name):
            rules = home is objectives.advantages
            make = own_rules.own_function if rules else own_rules.own_surrogate
            method = make(name, options, field)
        else:
            method = home.get(name, **options)
        make_table = functools.partial(table, method=method)
        return objectives.table_family(make_table, config.rollout.group_size)
    except FieldErrors as error:
        raise FieldErrors(
            one.at(places.get(one.field, f"{path}.options.{one.field}"))
            for one in error.errors
        ) from error


def _general_rule(config: TrainConfig) -> GeneralRule:
    """Return the function of objective.kind=function, after a trial on a group."""
    wanted = config.objective
    _refuse_what_nothing_reads(config, [])
    if not objectives.advantages.is_own_code(wanted.name):
        raise FieldError(
            "objective.name",
            wanted.name,
            "my.py:my_rule, or another kind for a rule by name",
            problem="objective.kind=function takes a function of your own",
        )
    with inside("objective"):
        function = own_rules.own_function(
            wanted.name, wanted.options, may_take_mask=True
        )
    try:
        rule = objectives.general_rule(function, config.rollout.group_size)
    except FieldError as error:
        raise FieldError(
            "objective.name", wanted.name, problem=error.problem
        ) from error
    return dataclasses.replace(
        rule, mixed_only=config.train.dynamic_sampling_rounds > 0
    )
