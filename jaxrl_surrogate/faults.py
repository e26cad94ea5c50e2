"""What a room refuses, as lines that begin with the dotted path of a field."""

import re
from collections.abc import Callable
from typing import Any

from jaxrl_surrogate import settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.settings import SettingsError


class Faults:
    """Collects what rooms refuse; on leaving, all of it is raised together."""

    def __init__(self):
        self._lines: list[str] = []

    def __enter__(self) -> "Faults":
        """Start collecting."""
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        """Raise what was collected."""
        if kind is None and self._lines:
            raise SettingsError("\n".join(self._lines))

    def at(self, section: str, make: Callable, *arguments: Any, **options: Any) -> Any:
        """What `make` returns, or None and a fault."""
        try:
            return refused_at(section, make, *arguments, **options)
        except SettingsError as error:
            self._lines.append(str(error))
            return None


def refused_at(section: str, make: Callable, *arguments: Any, **options: Any) -> Any:
    """Call a room.

    Raises:
      SettingsError: what it refuses, with the section's dotted path in front.
    """
    try:
        return make(*arguments, **options)
    except SettingsError:
        raise
    except FieldErrors as error:
        lines = [_placed(section, str(one)) for one in error.errors]
        raise SettingsError("\n".join(lines)) from error
    except ValueError as error:
        raise SettingsError(_placed(section, str(error))) from error


def names_a_field(message: str) -> bool:
    """Whether a message begins with `section.field=`: then it is about the config."""
    path = message.partition("=")[0]
    return path in {known for known, *_ in settings.fields(TrainConfig)}


def _placed(section: str, message: str) -> str:
    """A room's message, with a dotted path where it begins with a field or option."""
    word = re.match(r"\w*", message)[0]
    if word == "group_size":  # the objectives speak of the group that is rolled out
        return f"rollout.{message}"
    fields = {path for path, *_ in settings.fields(TrainConfig)}
    if f"{section}.{word}" in fields:
        return f"{section}.{message}"
    if re.match(r"\w+=", message):
        bag = f"{section}.options"
        return f"{bag if bag in fields else section}.{message}"
    return f"{section}: {message}"
