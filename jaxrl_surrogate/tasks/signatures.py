"""Options of a task: the annotated arguments of its constructor, listed and checked."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option that a task takes."""

    kind: Any  # a type, or a Literal of its values; Any where the task checks it
    default: Any
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


def check(
    task: str, known: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `given` with numbers in the options' own types.

    Raises:
      ValueError: with a line for each option that is unknown or of another type.
    """
    out, faults = {}, []
    for name, value in given.items():
        if name not in known:
            faults.append(
                f"options.{name}={value!r}: {task} has no such option; expected "
                f"{', '.join(known)}{nearest(name, known)}"
            )
            continue
        try:
            out[name] = _convert(known[name].kind, value)
        except TypeError:
            also = ""
            if get_origin(known[name].kind) is Literal:
                also = nearest(str(value), get_args(known[name].kind))
            faults.append(
                f"options.{name}={value!r}: expected {known[name].type_name} "
                f"({known[name].help}){also}"
            )
    if faults:
        raise ValueError("\n".join(faults))
    return out


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like this one, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


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
