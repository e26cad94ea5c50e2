"""Options of a task: the annotated arguments of its constructor, listed and checked."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from jaxrl_surrogate.errors import FieldError, FieldErrors, nearest

_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option that a task takes."""

    kind: Any  # a type, or a Literal of its values; Any where the task checks it
    default: Any  # `inspect.Parameter.empty` where it must be given
    help: str

    @property
    def type_name(self) -> str:
        """The type in words."""
        if get_origin(self.kind) is Literal:
            return " | ".join(map(str, get_args(self.kind)))
        return _WORDS.get(self.kind, "any")


def read(make: Callable[..., Any]) -> dict[str, Option]:
    """Options of a constructor whose arguments are `Annotated[type, help] = default`.

    Arguments without an annotation of this form are not options.
    """
    return {
        name: Option(*get_args(argument.annotation)[:1], argument.default, text)
        for name, argument in inspect.signature(make).parameters.items()
        if get_origin(argument.annotation) is Annotated
        for text in get_args(argument.annotation)[1:]
    }


def of_any(make: Callable[..., Any]) -> dict[str, Option]:
    """Options of a function or class of any form: its named arguments.

    An argument `Annotated[type, help]` has a help text; one without an annotation takes
    any value; one without a default must be given (`missing`).
    """
    try:
        called = make.__init__ if isinstance(make, type) else make
        hints = typing.get_type_hints(called, include_extras=True)
    except (TypeError, NameError):  # names that only a type checker has
        hints = {}
    found = {}
    for name, argument in _named(make).items():
        kind, text = hints.get(name, Any), ""
        if get_origin(kind) is Annotated:
            kind, text = get_args(kind)[:2]
        found[name] = Option(kind, argument.default, str(text))
    return found


def takes_any(make: Callable[..., Any]) -> bool:
    """Whether a function or class takes options of any name, as **options."""
    arguments = inspect.signature(make).parameters.values()
    return any(argument.kind is argument.VAR_KEYWORD for argument in arguments)


def _named(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Arguments that can be given by name."""
    return {
        name: argument
        for name, argument in inspect.signature(make).parameters.items()
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    }


def missing(known: Mapping[str, Option], given: Mapping[str, Any]) -> list[str]:
    """Names of options that have no default and are not given."""
    return [
        name
        for name, option in known.items()
        if option.default is inspect.Parameter.empty and name not in given
    ]


def check(
    task: str, known: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `given` with numbers in the options' own types.

    Raises:
      FieldErrors: one for each option that is unknown, of another type or missing.
    """
    out, errors = {}, []
    for name, value in given.items():
        if name not in known:
            errors.append(
                FieldError(
                    f"options.{name}",
                    value,
                    problem=f"{task} has no such option",
                    expected=", ".join(known) or "none",
                    remedy=nearest(name, known),
                )
            )
            continue
        try:
            out[name] = _convert(known[name].kind, value)
        except TypeError:
            option, near = known[name], ""
            if get_origin(option.kind) is Literal:
                near = nearest(str(value), map(str, get_args(option.kind)))
            text = f" ({option.help})" if option.help else ""
            errors.append(
                FieldError(f"options.{name}", value, f"{option.type_name}{text}", near)
            )
    errors += [
        FieldError(f"options.{name}", problem=f"{task} needs it and it is not given")
        for name in missing(known, given)
    ]
    if errors:
        raise FieldErrors(errors)
    return out


def _convert(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise TypeError
    if kind not in _WORDS or type(value) is kind:
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A config file may say 3.0 for an integer and 3 for a number; nothing else bends.
    if is_number and kind is float:
        return float(value)
    if is_number and kind is int and float(value).is_integer():
        return int(value)
    raise TypeError
