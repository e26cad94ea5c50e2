"""Says which settings may change when an existing run is continued.

The last argument of a field's `Annotated` type is its role:

  kept         The stored results depend on this value, and later steps would not fit
               them. A continued run must have the same value.
  numbers      The value may change, and later steps are computed with the new one. The
               change is recorded with the step from which it holds. A run that has no
               step left is refused a new value.
  operational  The value says where and how the run is computed, stored and shown. It
               changes no result except by rounding.

A section can have the role `kept` too, if it takes effect only before the first step:
its fields whose own role is `numbers` are then `kept`.
"""

import dataclasses
import typing
from typing import Any, Literal

from jaxrl_surrogate.config import TrainConfig

Role = Literal["kept", "numbers", "operational"]


def role(path: str) -> Role:
    """Return the role of a config field, or of an option inside one.

    Args:
      path: dotted path of the field, or of an option in a field of options.

    Returns:
      "kept", "numbers" or "operational". A field without a role counts as "kept".

    >>> role("log.every"), role("objective.name"), role("task.options.max_digits")
    ('operational', 'numbers', 'kept')
    >>> role("optimizer.learning_rate"), role("sft.optimizer.learning_rate")
    ('numbers', 'kept')
    """
    section: Any = TrainConfig
    roles: list[Role] = []
    for name in path.split("."):
        if not dataclasses.is_dataclass(section):
            break  # an option
        hint = typing.get_type_hints(section, include_extras=True).get(name)
        section, *notes = typing.get_args(hint) or (hint,)
        roles += [note for note in notes if note in typing.get_args(Role)]
    return (
        "kept"
        if not roles or (roles[0], roles[-1]) == ("kept", "numbers")
        else roles[-1]
    )
