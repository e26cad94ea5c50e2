"""Loads advantage functions and surrogates from the user's code: `my.py:my_rule`."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import AdvantageFn, Surrogate, WeightTable, tabulate
from jaxrl_surrogate.objectives.tabulation import NoTable
from jaxrl_surrogate.resolve import resolve

_SURROGATE = (
    "an object with value(p) and slope(p), h and h' elementwise on [0, 1], or a class "
    "or function that makes one from the options"
)


def own_function(
    spec: str,
    options: Mapping[str, Any],
    field: str = "name",
    *,
    may_take_mask: bool = False,
) -> Callable[..., Any]:
    """Return the function of rewards (M,) that a spec names, with its options bound.

    Args:
      spec: `file.py:function` or `module:function`, see `resolve`.
      options: keyword arguments of the function.
      field: name of the config field that holds the spec, for errors.
      may_take_mask: whether the function may have a parameter `mask`, which the caller
        then passes.

    Raises:
      FieldError: as `resolve`; or the object is not callable, or it does not accept
        these arguments.
    """
    fn = resolve(spec, field)
    if not callable(fn):
        raise FieldError(field, spec, "a function of the rewards (M,) of a group")
    try:
        signature = inspect.signature(fn)
        mask = {"mask"} if may_take_mask else set()
        given = dict.fromkeys(mask & {*signature.parameters}, np.ones(1, bool))
        signature.bind(np.zeros(1), **given, **options)
    except TypeError as error:
        raise FieldError(
            field,
            spec,
            problem=f"{error}; it is called with the rewards (M,) of a group and the "
            f"options {dict(options) or 'given, none'}",
        ) from error
    except ValueError:
        pass  # a built-in function has no signature to check
    return functools.partial(fn, **options) if options else fn


def tabulated(
    method: Callable[..., Any], group_size: int, spec: str, field: str = "name"
) -> WeightTable:
    """Return the weight table of a function of rewards (M,), for groups of M samples.

    Args:
      method: the function, or a registered `AdvantageFn`, which has a table.
      group_size: M.
      spec: name of the function, for errors.
      field: name of the config field that holds the spec, for errors.

    Raises:
      FieldError: the function raises, or no table has its weights; the error shows
        rewards and weights that prove it.
    """
    if not isinstance(method, AdvantageFn):
        method = functools.partial(_called, method)
    try:
        return tabulate(method, group_size)
    except FieldError as error:
        if error.field != "advantage_fn":
            raise
        remedy = error.remedy
        if isinstance(error, NoTable):
            remedy += "; objective.kind=function trains it as it is"
        raise FieldError(
            field, spec, error.expected, remedy, problem=error.problem
        ) from error


def _called(fn: Callable[..., Any], rewards: Any) -> Any:
    """Call a user's function; an exception becomes an error that names the rewards."""
    try:
        return fn(rewards)
    except Exception as error:
        raise FieldError(
            "advantage_fn",
            problem=f"the rewards {np.asarray(rewards).astype(int)} make it raise "
            f"{type(error).__name__}: {error}",
        ) from error


def is_own_surrogate(spec: str, field: str = "name") -> bool:
    """Return whether a spec names an object or class with methods value and slope.

    Raises:
      FieldError: as `resolve`.
    """
    return _is_surrogate(resolve(spec, field))


def own_surrogate(
    spec: str, options: Mapping[str, Any], field: str = "name"
) -> Surrogate:
    """Return the surrogate that a spec names: an object with value(p) and slope(p).

    Args:
      spec: names the object, or a class or function that makes it from the options.
      options: keyword arguments of that class or function.
      field: name of the config field that holds the spec, for errors.

    Raises:
      FieldError: as `resolve`; or the object lacks value or slope, or the options are
        not accepted.
    """
    found = resolve(spec, field)
    if inspect.isclass(found) or (not _is_surrogate(found) and callable(found)):
        try:
            found = found(**options)
        except TypeError as error:
            raise FieldError(
                field, spec, _SURROGATE, problem=f"called with {dict(options)}: {error}"
            ) from error
    elif options:
        raise FieldError(
            field,
            spec,
            f"no options, got {dict(options)}",
            "name the class or function that makes the object from them",
        )
    if not _is_surrogate(found):
        raise FieldError(field, spec, _SURROGATE)
    if isinstance(found, Surrogate):
        return found
    return Surrogate(found.value, found.slope, name=spec.rpartition(":")[2])


def _is_surrogate(found: object) -> bool:
    return callable(getattr(found, "value", None)) and callable(
        getattr(found, "slope", None)
    )
