"""The one checker of types: of settings from files, of dataclasses, of options.

Pydantic converts and checks a value; what it refuses becomes a `FieldError`. It is
imported when the first value is checked.
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
    """A value of the type that an annotation names.

    Args:
      kind: int, float, bool, str, a Literal, a dataclass, or a union, tuple, list or
        dict of these; `object` stands for plain values of any depth, as JSON has them.
      value: what was given. No number is true or false, and none is NaN.
      field: what errors call it; an item of a list is `field[i]`.
      strict: refuse what is converted otherwise: text that spells a number, a whole
        float for an integer, a list for a tuple.

    Raises:
      FieldErrors: the value is of another type, or items of it are.
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
    """Refuse what a dataclass that was built in Python cannot mean.

    Raises:
      FieldErrors: of every field that holds another type than its annotation says.
    """
    with Collected() as collected:
        for name, kind in _annotations(type(made)):
            value = getattr(made, name)
            collected.call("", converted, kind, value, name, strict=True)


def type_name(kind: Any, strict: bool = False) -> str:
    """An annotation in words; `strict` where it stands in Python and not in a file."""
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
    """An annotation for pydantic that tells numbers from true, false and NaN."""
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
    """A number of Python for one of NumPy; pydantic refuses what is none."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError
    return value
