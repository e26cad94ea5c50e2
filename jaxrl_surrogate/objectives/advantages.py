"""Advantages by name: the field's estimators, and the rules of other trainers.

The package `estimators` defines the published estimators as weight tables. The module
`other_trainers` reproduces the rules of other training libraries weight for weight.
"""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import other_trainers
from jaxrl_surrogate.objectives.estimators import METHODS
from jaxrl_surrogate.objectives.estimators.counts import check_integer
from jaxrl_surrogate.objectives.names import (
    check_parameters,
    refuse_unnamed,
)
from jaxrl_surrogate.objectives.names import parse as parse_name
from jaxrl_surrogate.objectives.weight_table import (
    Array,
    WeightTable,
    check_group_size,
)


@dataclasses.dataclass(frozen=True)
class AdvantageFn:
    """A named method: `f(rewards)` maps (..., M) rewards of groups to (..., M) weights.

    It is pure and hashable, works under `jax.jit` and `jax.vmap`, and takes the group
    size M from the shape of the rewards. Every reward has to be 0 or 1. Another reward
    raises ValueError; inside `jax.jit`, where values are not known, its group gets NaN
    (see `WeightTable`). `f.table(M)` is the float64 table that is applied.

    >>> import numpy as np
    >>> get("dr_grpo")(np.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.75, -0.25, -0.25, -0.25]
    """

    name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __call__(self, rewards: Array) -> jax.Array:
        shape = np.shape(rewards)
        if not shape:
            raise ValueError("rewards: expected groups of shape (..., M), got a number")
        return self.table(shape[-1])(rewards)

    def table(self, group_size: int) -> WeightTable:
        """Return the method's table for groups of `group_size` samples.

        Raises:
          ValueError: as the module's `table`.
        """
        check_group_size(group_size)
        return _cached_table(self, group_size)


def get(name: str, **params) -> AdvantageFn:
    """Return the advantage function of a name: `rloo`, or a trainer's `verl:grpo`.

    Raises:
      ValueError: for an unknown name or parameter (the message names the nearest) and
        for a missing parameter. Most values of parameters are checked later, where the
        group size is known: in `table` and when the function is called.
    """
    if "=" in name:
        known, given = parse_name(name)
        keywords = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise FieldError("name", name, f"get({known!r}, {keywords}), or parse")
    if ":" in name and name not in other_trainers.names():
        first = name.partition(":")[0]
        if first in METHODS:
            refuse_unnamed(name, first, parameters(first))
        raise unknown("name", name, other_trainers.names(), "advantage")
    if name in other_trainers.names():
        expected = other_trainers.parameters(name)
        if set(params) != set(expected):
            wanted = "the parameter k" if expected else "no parameter"
            raise FieldError(
                "name", name, wanted, problem=f"got {sorted(params) or 'none'}"
            )
        for field, value in params.items():
            check_integer(field, value)
        return AdvantageFn(name, tuple(sorted(params.items())))
    if name not in METHODS:
        rules = [
            known for known in other_trainers.names() if known.startswith(f"{name}:")
        ]
        if rules:
            raise FieldError("name", name, " or ".join(rules), problem="is a trainer")
        raise unknown("name", name, names(), "advantage")
    check_parameters(METHODS[name], name, params, given=("group_size",))
    return AdvantageFn(name, tuple(sorted(params.items())))


def is_own_code(name: str) -> bool:
    """Return whether a name refers to the user's code: `file.py:rule`, `module:rule`.

    Registered names take precedence: `verl:grpo` is the registered rule even if a
    module `verl` can be imported. No registered name contains a dot, so a name with a
    file, such as `./verl.py:grpo`, always refers to that file.
    """
    first, colon, _ = name.partition(":")
    trainers = {known.partition(":")[0] for known in other_trainers.names()}
    return bool(colon) and first not in {*METHODS, *trainers}


def parse(text: str) -> AdvantageFn:
    """Return the advantage function of a text such as `pass_at_k:k=2`.

    Raises:
      ValueError: as `get`, and for a text that is not of the form NAME:KEY=VALUE.

    >>> parse("pass_at_k:k=2") == get("pass_at_k", k=2)
    True
    """
    name, params = parse_name(text)
    return get(name, **params)


def names() -> tuple[str, ...]:
    """Return the names of the published estimators.

    They are in the order pass@1, log family, softmax, pass@k, shaping.
    """
    return tuple(METHODS)


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a method or of a trainer's rule, with their defaults.

    The default of a required parameter is `inspect.Parameter.empty`.

    Raises:
      ValueError: for an unknown name.

    >>> parameters("tsallis")
    {'r': 0.5}
    """
    if name in other_trainers.names():
        return dict.fromkeys(other_trainers.parameters(name), inspect.Parameter.empty)
    if name not in METHODS:
        raise unknown("name", name, names(), "advantage")
    signature = inspect.signature(METHODS[name]).parameters
    return {
        name: parameter.default
        for name, parameter in signature.items()
        if name != "group_size"
    }


def table(name: str, group_size: int, **params) -> WeightTable:
    """Return the weights of a named method for groups of M samples, in float64 NumPy.

    Raises:
      ValueError: as `get`, for a parameter out of range, and for a group size that the
        method does not support.

    >>> print(table("pass_at_k", 4, k=2).correct)
    [2.         1.33333333 0.66666667 0.        ]
    """
    return get(name, **params).table(group_size)


@functools.lru_cache(maxsize=4096)
def _cached_table(fn: AdvantageFn, group_size: int) -> WeightTable:
    if ":" in fn.name:
        weights = other_trainers.table(fn.name, group_size, **dict(fn.params))
    else:
        weights = METHODS[fn.name](group_size, **dict(fn.params))
    for entries in (weights.incorrect, weights.correct):
        entries.flags.writeable = False
    return weights
