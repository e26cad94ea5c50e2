"""Objectives on binary rewards: weights, surrogates, and the ways between them.

Mathematics only; imports nothing else of this package.
"""

from jaxrl_surrogate.objectives import advantages, baselines, pass_at_k, surrogates
from jaxrl_surrogate.objectives.advantages import AdvantageFn
from jaxrl_surrogate.objectives.bernstein import (
    from_surrogate,
    induced_surrogate,
    tabulate,
)
from jaxrl_surrogate.objectives.surrogates import Surrogate
from jaxrl_surrogate.objectives.weight_table import (
    GroupFunction,
    TableFamily,
    WeightTable,
    group_advantages,
    table_family,
)

__all__ = [
    "AdvantageFn",
    "GroupFunction",
    "Surrogate",
    "TableFamily",
    "WeightTable",
    "advantages",
    "baselines",
    "from_surrogate",
    "group_advantages",
    "induced_surrogate",
    "pass_at_k",
    "surrogates",
    "table_family",
    "tabulate",
]
