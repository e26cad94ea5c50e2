"""Whether the fields of a dataclass hold what their annotations say."""

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

_KINDS = {int: numbers.Integral, float: numbers.Real}


def check_fields(made: Any) -> None:
    """Refuse what a dataclass that was built in Python cannot mean.

    Names are compared with the choices of a `Literal`, numbers and texts with their
    type. No field takes NaN, which passes every comparison that refuses by a bound.
    Annotations other than these are left alone.

    Raises:
      ValueError: with a line for every such field: its name, its value, what is
        expected and the nearest name.
    """
    faults = [
        f"{name}={value!r}: expected {_expected(kind, value)}"
        for name, kind in _annotations(type(made))
        for value in [getattr(made, name)]
        if not _fits(kind, value)
    ]
    if faults:
        raise ValueError("\n".join(faults))


@functools.cache
def _annotations(cls: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))


def _fits(kind: Any, value: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin is Literal:
        return any(same(value, choice) for choice in arguments)
    if origin is tuple and arguments[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(arguments[0], v) for v in value)
    if kind in _KINDS:
        if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
            return False
        return not math.isnan(value)
    if isinstance(kind, type) and (
        kind in (bool, str, types.NoneType) or dataclasses.is_dataclass(kind)
    ):
        return isinstance(value, kind)
    return True


def _expected(kind: Any, value: Any) -> str:
    if get_origin(kind) is tuple:  # settings have lists in their files
        return f"tuple, each {type_name(get_args(kind)[0])}"
    near = ""
    if get_origin(kind) is Literal:
        near = nearest(str(value), list(map(str, get_args(kind))))
    return type_name(kind) + (f"; {near}" if near.startswith("did") else "")


def same(value: Any, choice: Any) -> bool:
    """Equality that tells True from 1."""
    return type(value) is type(choice) and value == choice


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the nearest ones, or all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def type_name(kind: Any) -> str:
    """An annotation as a reader of settings knows it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        inner = (a for a in arguments if a is not type(None))
        return f"{' or '.join(map(type_name, inner))} or null"
    if origin is dict:
        return "options, each a number, a text, true, false or null"
    if origin in (tuple, list):
        return f"list, each {type_name(arguments[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
