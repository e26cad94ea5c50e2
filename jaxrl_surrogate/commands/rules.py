"""Resolves the rules and surrogates that a user names in a command.

The spelling is a name, then each parameter after a colon: `grpo`, `pass_at_k:k=4`,
`maxrl:pkpo:k=4`, `my.py:my_rule:beta=2`. Commas separate the items of a list.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_surrogate.assembly import own_rules
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import (
    Surrogate,
    WeightTable,
    advantages,
    names,
    other_trainers,
    surrogates,
    tabulate,
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule that maps rewards to weights, for binary and for graded rewards."""

    table: Callable[[int], WeightTable]  # from group size M, for binary rewards
    graded: Callable[[Any], Any] | None  # (M,) rewards to weights; None: layer cake


def rule(text: str) -> Rule:
    """Return a registered rule, another trainer's rule, or a user's own function.

    Args:
      text: name with parameters, see above.

    Raises:
      FieldError: a name or parameter is unknown, and the error suggests the nearest; or
        a function cannot be imported.
    """
    name, params = names.parse(text)
    if advantages.is_own_code(name):
        try:
            fn = own_rules.own_function(name, params, "rule")
        except FieldError as error:
            remedy = "parameters of a rule have names, as in pass_at_k:k=4"
            remedy = "; ".join(filter(None, (error.remedy, remedy)))
            raise FieldError(
                error.field, error.value, error.expected, remedy, problem=error.problem
            ) from error
        return Rule(functools.partial(tabulate, fn), fn)
    table, graded = advantages.get(name, **params).table, None
    if ":" in name:
        weigh = other_trainers.rule(name, **params)
        graded = lambda rewards: weigh(np.asarray(rewards))  # noqa: E731
    return Rule(table, graded)


def surrogate(text: str) -> Surrogate:
    """Return a registered surrogate from its name with parameters.

    Raises:
      FieldError: a name or parameter is unknown; the error suggests the nearest.
    """
    return surrogates.parse(text)
