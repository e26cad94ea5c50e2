"""What a run that is there may be continued with: the role of every setting.

The last word of a setting's annotation is its role:

  kept         What is stored was computed with it, and what follows would not belong to
               that. A continued run is refused another value.
  numbers      The steps that follow are computed otherwise, and may be: the change is
               recorded with the step from which it holds. Where no step follows there
               is nothing to record, and a finished run is refused.
  operational  It says where and how the run is computed, stored and shown: nothing but
               rounding changes.

A section may have a role too, where what it does is over before the first step: `kept`
then holds for those of its fields that are `numbers` elsewhere.
"""

import dataclasses
import typing
from typing import Any, Literal

from jaxrl_surrogate.config import TrainConfig

Role = Literal["kept", "numbers", "operational"]


def role(path: str) -> Role:
    """The role of a field, or of an option in one, by its dotted path.

    >>> role("log.every"), role("objective.name"), role("task.options.max_digits")
    ('operational', 'numbers', 'kept')
    >>> role("optimizer.learning_rate"), role("sft.optimizer.learning_rate")
    ('numbers', 'kept')

    What has no role yet is kept: a run is not continued with what may not belong to it.
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
