"""Rules and surrogates as a user names them in a command, all in one spelling.

`grpo`, `pass_at_k:k=4`, `maxrl:pkpo:k=4`, `my.py:my_rule:beta=2`: a name, then each
parameter after a colon; lists are by commas.
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
    """A rule for weights: what it does on binary rewards, and on others."""

    table: Callable[[int], WeightTable]  # of groups of M
    graded: Callable[[Any], Any] | None  # (M,) rewards to weights; None: level by level


def rule(text: str) -> Rule:
    """A registered rule, another trainer's, or a function of rewards of the user's.

    Raises:
      FieldError: an unknown name or parameter, with the nearest; or a function that
        cannot be imported.
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
    """A registered surrogate.

    Raises:
      FieldError: an unknown name or parameter, with the nearest.
    """
    return surrogates.parse(text)
