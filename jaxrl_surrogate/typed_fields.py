"""Checks and converts typed values: settings from files, dataclass fields, options.

Pydantic does the work, and a value that it refuses becomes a `FieldError`. It is
imported when the first value is checked, to keep start-up fast.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from typing import Annotated, Any, Literal, get_args, get_origin

from jaxrl_surrogate.errors import Collected, FieldError, FieldErrors, nearest


def converted(kind: Any, value: Any, field: str, *, strict: bool = False) -> Any:
    """Convert a value to the type that an annotation names.

    Args:
      kind: int, float, bool, str, a Literal, a dataclass, or a union, tuple, list or
        dict of these; `object` stands for any JSON value.
      value: value to convert. A bool is not accepted as a number, nor is NaN.
      field: name of the value in errors; an item of a list is `field[i]`.
      strict: refuse values that need conversion: text that spells a number, a float
        with an integer value for an int, a list for a tuple.

    Raises:
      FieldErrors: the value, or items of it, have another type.
    """
    if value is None and get_origin(kind) is dict:
        return {}
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value, strict=strict or None)
    except ValidationError as error:
        places = [fault["loc"][:1] for fault in error.errors(include_url=False)]
    if get_origin(kind) in (tuple, list) and () not in places:
        (kind, *_), rows = get_args(kind), [row for (row,) in dict.fromkeys(places)]
        raise FieldErrors(
            _refused(kind, value[row], f"{field}[{row}]", strict) for row in rows
        )
    raise _refused(kind, value, field, strict)


def check_fields(made: Any) -> None:
    """Check that the fields of a dataclass instance have the annotated types.

    Raises:
      FieldErrors: one error for each field whose value has another type.
    """
    with Collected() as collected:
        for name, kind in _annotations(type(made)):
            value = getattr(made, name)
            collected.call("", converted, kind, value, name, strict=True)


def type_name(kind: Any, strict: bool = False) -> str:
    """Describe an annotation in words for the user.

    Args:
      kind: the annotation.
      strict: use the names of Python's types, such as tuple, not those of YAML.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        inner = (a for a in arguments if a is not type(None))
        return f"{' or '.join(map(type_name, inner))} or null"
    if origin is dict:
        return "options, each a name with a plain value"
    if origin in (tuple, list):
        word = "tuple" if strict and origin is tuple else "list"
        return f"{word}, each {type_name(arguments[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _refused(kind: Any, value: Any, field: str, strict: bool) -> FieldError:
    remedy = ""
    if get_origin(kind) is Literal:
        remedy = nearest(str(value), map(str, get_args(kind)))
    elif kind is str and value is not None and not strict:
        remedy = "put it in quotes"
    return FieldError(field, value, type_name(kind, strict), remedy)


@functools.cache
def _annotations(cls: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))


@functools.cache
def _adapter(kind: Any):
    import pydantic

    return pydantic.TypeAdapter(_stricter(kind))


def _stricter(kind: Any) -> Any:
    """Return a pydantic annotation that refuses bools as numbers, and NaN."""
    import pydantic

    arguments = get_args(kind)
    if kind in (int, float):
        before, after = pydantic.BeforeValidator, pydantic.AfterValidator
        return Annotated[kind, before(_number), after(_not_nan)]
    if kind is bool:
        return Annotated[bool, pydantic.Strict()]
    if kind is object:
        return pydantic.JsonValue
    if dataclasses.is_dataclass(kind):
        return pydantic.InstanceOf[kind]
    if get_origin(kind) in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_stricter, arguments))]  # noqa: UP007
    if get_origin(kind) in (tuple, list, dict):
        inner = (one if one is ... else _stricter(one) for one in arguments)
        return get_origin(kind)[tuple(inner)]
    return kind


def _number(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number; leave other values to pydantic.

    Raises:
      ValueError: the value is a bool.
    """
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError
    return value
