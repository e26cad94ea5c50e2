"""Names with parameters in one word, and what the registries say of those they lack.

`pass_at_k:k=4`, `grpo:std=sample:epsilon=1e-6`, `maxrl:pkpo:k=4`: a name, then every
parameter after a colon. It needs no quotes in a shell, and lists by commas stay lists.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jaxrl_surrogate.errors import FieldError, nearest_or_all


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its parameters, from `NAME:KEY=VALUE:KEY=VALUE`.

    Values that look like integers, numbers, `true` or `false` are that, others text.
    What comes before the first parameter is the name, colons in it included.

    Raises:
      ValueError: for anything else.

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
    """The text that `parse` takes apart.

    >>> spell("pass_at_k", {"k": 4})
    'pass_at_k:k=4'
    """

    def shown(value):
        return str(value).lower() if isinstance(value, bool) else value

    return ":".join([name, *(f"{key}={shown(params[key])}" for key in params)])


def refuse_unnamed(text: str, name: str, takes: Collection[str]) -> None:
    """What to say of `pass_at_k:4` and the like.

    Args:
      text: what was given.
      name: the part before the first colon, which is known.
      takes: its parameters.

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
    """Refuse parameters that `make` does not take, and missing ones.

    Args:
      make: the function that the name stands for.
      name: for the message.
      params: the parameters to check, by name.
      given: parameters that the caller will add itself.

    Raises:
      ValueError: naming the parameter and the nearest one, or the missing one.
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
