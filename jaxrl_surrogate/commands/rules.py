"""Rules and surrogates as a user names them in a command, all in one spelling.

`grpo`, `pass_at_k:k=4`, `maxrl:pkpo:k=4`, `my.py:my_rule:beta=2`: a name, then each
parameter after a colon; lists are by commas.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

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
from jaxrl_surrogate.resolve import resolve
from jaxrl_surrogate.settings import SettingsError


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for weights: what it does on binary rewards, and on others."""

    table: Callable[[int], WeightTable]  # of groups of M
    graded: Callable[[Any], Any] | None  # (M,) rewards to weights; None: level by level


def rule(text: str) -> Rule:
    """A registered rule, another trainer's, or a function of rewards of the user's.

    Raises:
      SettingsError: an unknown name or parameter, with the nearest; or a function that
        cannot be imported.
    """
    try:
        name, params = names.parse(text)
        first = name.partition(":")[0]
        trainers = {known.partition(":")[0] for known in other_trainers.names()}
        if ":" not in name or first in {*advantages.names(), *trainers}:
            table, graded = advantages.get(name, **params).table, None
            if ":" in name:
                weigh = other_trainers.rule(name, **params)
                graded = lambda rewards: weigh(np.asarray(rewards))  # noqa: E731
            return Rule(table, graded)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    fn = _function(name)
    try:
        inspect.signature(fn).bind(np.zeros(1), **params)
    except TypeError as error:
        raise SettingsError(
            f"{text!r}: {name} {error}; it is called with the rewards (M,) of a group "
            "and the parameters named"
        ) from error
    fn = functools.partial(fn, **params)
    return Rule(functools.partial(tabulate, fn), fn)


def surrogate(text: str) -> Surrogate:
    """A registered surrogate.

    Raises:
      SettingsError: an unknown name or parameter, with the nearest.
    """
    try:
        return surrogates.parse(text)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _function(name: str) -> Callable[..., Any]:
    """The function that `module:function` or `file.py:function` names."""
    try:
        fn = resolve(name, "rule")
    except FieldError as error:
        raise SettingsError(
            f"{error}; parameters of a rule have names, as in pass_at_k:k=4"
        ) from error
    if not callable(fn):
        raise SettingsError(f"rule={name!r}: expected a function of rewards (M,)")
    return fn
