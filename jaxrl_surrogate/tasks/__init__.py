"""Tasks: problems and verifiers, text to reward, on the host."""

import difflib
import inspect
from typing import Any, get_args

from jaxrl_surrogate.tasks import prompts, tokenizers
from jaxrl_surrogate.tasks.arithmetic import Arithmetic
from jaxrl_surrogate.tasks.countdown import Countdown
from jaxrl_surrogate.tasks.gsm8k import GSM8K
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts
from jaxrl_surrogate.tasks.reasoning_gym import ReasoningGym
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict
from jaxrl_surrogate.tasks.tokenizers import Tokenizer
from jaxrl_surrogate.tasks.verification import verify_all

_TASKS = {task.name: task for task in (Arithmetic, Countdown, GSM8K)}


def names() -> tuple[str, ...]:
    """Built-in tasks; `reasoning_gym:DATASET` names those of that library."""
    return tuple(_TASKS)


def get(name: str, **options: Any) -> Task:
    """Return a task.

    Args:
      name: one of `names()`, or `reasoning_gym:DATASET`.
      **options: see `task_options`.

    Raises:
      ValueError: naming what is unknown or ill-typed, and the nearest valid name.
    """
    if name.startswith("reasoning_gym:"):
        return ReasoningGym(name.split(":", 1)[1], **options)
    if name not in _TASKS:
        raise ValueError(
            f"name={name!r}: expected one of {', '.join(_TASKS)} or "
            f"reasoning_gym:DATASET{_hint(name, _TASKS)}"
        )
    known = task_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"options.{option}: {name} has no such option; expected one of "
                f"{', '.join(known)}{_hint(option, known)}"
            )
        expected = type(known[option][0])
        if type(value) is not expected:
            raise ValueError(
                f"options.{option}={value!r}: expected {expected.__name__}"
            )
    return _TASKS[name](**options)


def task_options(name: str) -> dict[str, tuple[Any, str]]:
    """Default and help text of each option of a built-in task."""
    parameters = inspect.signature(_TASKS[name]).parameters
    return {
        option: (parameter.default, get_args(parameter.annotation)[1])
        for option, parameter in parameters.items()
    }


def _hint(name, known):
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


__all__ = [
    "Problem",
    "PromptStream",
    "Task",
    "Tokenizer",
    "Verdict",
    "encode_prompts",
    "get",
    "names",
    "prompts",
    "task_options",
    "tokenizers",
    "verify_all",
]
