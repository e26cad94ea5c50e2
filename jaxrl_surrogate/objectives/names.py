"""The text form of names with parameters, and the errors for unknown parameters.

Examples are `pass_at_k:k=4`, `grpo:std=sample:epsilon=1e-6` and `maxrl:pkpo:k=4`: a
name, then each parameter after a colon. The form needs no quotes in a shell, and
commas can separate the names of a list.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jaxrl_surrogate.errors import FieldError, nearest_or_all


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of a text `NAME:KEY=VALUE:KEY=VALUE`.

    Values are parsed as bool (`true`, `false`), int or float if possible; others remain
    text. The name is the part before the first parameter, and may contain colons.

    Raises:
      ValueError: for a text of another form.

    >>> parse("grpo:std=sample:epsilon=1e-6")
    ('grpo', {'std': 'sample', 'epsilon': 1e-06})
    """
    words = text.split(":")
    first = next((i for i, word in enumerate(words) if "=" in word), len(words))
    name, params = ":".join(words[:first]), {}
    for word in words[first:]:
        key, equals, value = word.partition("=")
        if not (name and key.isidentifier() and equals and value) or key in params:
            raise FieldError(
                "name",
                text,
                "a name and each parameter once after a colon, such as pass_at_k:k=4 "
                "or grpo:std=sample:epsilon=1e-6",
            )
        params[key] = _value(value)
    return name, params


def spell(name: str, params: Mapping[str, Any]) -> str:
    """Return the text form of a name with its parameters, the inverse of `parse`.

    >>> spell("pass_at_k", {"k": 4})
    'pass_at_k:k=4'
    """

    def shown(value):
        return str(value).lower() if isinstance(value, bool) else value

    return ":".join([name, *(f"{key}={shown(params[key])}" for key in params)])


def refuse_unnamed(text: str, name: str, takes: Collection[str]) -> None:
    """Raise the error for a parameter without a name, as in `pass_at_k:4`.

    Args:
      text: the text that was given.
      name: its part before the first colon, a registered name.
      takes: the parameters of that name.

    Raises:
      ValueError: always.
    """
    value = text.removeprefix(f"{name}:")
    if not takes:
        raise FieldError("name", text, problem=f"{name} takes no parameters")
    example = spell(name, {next(iter(takes)): value})
    raise FieldError("name", text, example, problem="parameters have names")


def _value(text):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_parameters(
    make: Callable, name: str, params: Mapping, *, given: Collection[str] = ()
) -> None:
    """Check that `make` takes the given parameters and that none is missing.

    Args:
      make: the function that the name stands for.
      name: the name, for error messages.
      params: the parameters to check, by name.
      given: the parameters that the caller adds itself.

    Raises:
      ValueError: for an unknown parameter (the message names the nearest known one) or
        for a missing one.
    """
    signature = inspect.signature(make).parameters
    takes = [parameter for parameter in signature if parameter not in given]
    for parameter in params:
        if parameter not in takes:
            value = params[parameter]
            if not takes:
                problem = f"{name} takes no parameters"
                raise FieldError(parameter, value, problem=problem)
            raise FieldError(
                parameter,
                value,
                problem=f"{name} has no such parameter",
                **nearest_or_all(parameter, takes),
            )
    for parameter in takes:
        required = signature[parameter].default is inspect.Parameter.empty
        if required and parameter not in params:
            raise FieldError(
                parameter,
                problem=f"{name} needs the parameter {parameter!r}, for example "
                f"{spell(name, {parameter: 4})}",
            )
