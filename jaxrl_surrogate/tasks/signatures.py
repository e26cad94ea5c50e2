"""Reads the options of a task from its constructor's arguments, and checks values."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from jaxrl_surrogate.errors import FieldError, FieldErrors, nearest

_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a task."""

    kind: Any  # a type, or a Literal of the values; Any if only the task checks it
    default: Any  # `inspect.Parameter.empty` if the option must be given
    help: str

    @property
    def type_name(self) -> str:
        """The type as text, for help and error messages."""
        if get_origin(self.kind) is Literal:
            return " | ".join(map(str, get_args(self.kind)))
        return _WORDS.get(self.kind, "any")


def read(make: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a built-in task's constructor.

    An option is an argument of the form `name: Annotated[type, help] = default`. Other
    arguments are not options.
    """
    return {
        name: Option(*get_args(argument.annotation)[:1], argument.default, text)
        for name, argument in inspect.signature(make).parameters.items()
        if get_origin(argument.annotation) is Annotated
        for text in get_args(argument.annotation)[1:]
    }


def of_any(make: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of any function or class: its named arguments.

    An argument with the annotation `Annotated[type, help]` has a help text. An argument
    without an annotation accepts any value. An argument without a default must be given
    (see `missing`).
    """
    try:
        called = make.__init__ if isinstance(make, type) else make
        hints = typing.get_type_hints(called, include_extras=True)
    except (TypeError, NameError):  # such as names that only type checkers import
        hints = {}
    found = {}
    for name, argument in _named(make).items():
        kind, text = hints.get(name, Any), ""
        if get_origin(kind) is Annotated:
            kind, text = get_args(kind)[:2]
        found[name] = Option(kind, argument.default, str(text))
    return found


def takes_any(make: Callable[..., Any]) -> bool:
    """Return whether a function or class has an argument like **options."""
    arguments = inspect.signature(make).parameters.values()
    return any(argument.kind is argument.VAR_KEYWORD for argument in arguments)


def _named(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments that can be given by name."""
    return {
        name: argument
        for name, argument in inspect.signature(make).parameters.items()
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    }


def missing(known: Mapping[str, Option], given: Mapping[str, Any]) -> list[str]:
    """Return the names of options that have no default and are not given."""
    return [
        name
        for name, option in known.items()
        if option.default is inspect.Parameter.empty and name not in given
    ]


def check(
    task: str, known: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Check options, and return them with numbers converted to the options' types.

    Args:
      task: the task's name in error messages.
      known: the options that the task takes.
      given: values by name.

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
    # A config file may hold 3.0 for an integer and 3 for a float. No other conversion
    # is made.
    if is_number and kind is float:
        return float(value)
    if is_number and kind is int and float(value).is_integer():
        return int(value)
    raise TypeError
