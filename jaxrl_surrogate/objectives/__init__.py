"""Objectives on binary rewards: weight tables, surrogates, and the maps between them.

This layer is mathematics only. Of the rest of the package it imports `errors` alone.
"""

from jaxrl_surrogate.objectives import (
    advantages,
    baselines,
    combine,
    graded,
    inverse,
    mixed_groups,
    other_trainers,
    pass_at_k,
    priors,
    schedules,
    surrogates,
    variance,
)
from jaxrl_surrogate.objectives.advantages import AdvantageFn
from jaxrl_surrogate.objectives.certificate import Certificate, Deviation, certify
from jaxrl_surrogate.objectives.curl import Circulation, circulation
from jaxrl_surrogate.objectives.dropped_samples import kept_update
from jaxrl_surrogate.objectives.general_rules import GeneralRule, general_rule
from jaxrl_surrogate.objectives.groups import group_advantages
from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.inverse import from_surrogate
from jaxrl_surrogate.objectives.mixed_groups import mixed_only
from jaxrl_surrogate.objectives.priors import Prior
from jaxrl_surrogate.objectives.schedules import Schedule
from jaxrl_surrogate.objectives.surrogate import Surrogate
from jaxrl_surrogate.objectives.tabulation import tabulate
from jaxrl_surrogate.objectives.weight_table import (
    GroupFunction,
    TableFamily,
    WeightTable,
    table_family,
)

__all__ = [
    "AdvantageFn",
    "Certificate",
    "Circulation",
    "Deviation",
    "GeneralRule",
    "GroupFunction",
    "Prior",
    "Schedule",
    "Surrogate",
    "TableFamily",
    "WeightTable",
    "advantages",
    "baselines",
    "certify",
    "circulation",
    "combine",
    "from_surrogate",
    "general_rule",
    "graded",
    "group_advantages",
    "induced_surrogate",
    "inverse",
    "kept_update",
    "mixed_groups",
    "mixed_only",
    "other_trainers",
    "pass_at_k",
    "priors",
    "schedules",
    "surrogates",
    "table_family",
    "tabulate",
    "variance",
]
