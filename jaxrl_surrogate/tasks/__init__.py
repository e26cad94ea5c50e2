"""Tasks: problems and verifiers, text to reward, on the host."""

from typing import Any

from jaxrl_surrogate.tasks import prompts, reasoning_gym, signatures, tokenizers
from jaxrl_surrogate.tasks.arithmetic import Arithmetic
from jaxrl_surrogate.tasks.countdown import Countdown
from jaxrl_surrogate.tasks.gsm8k import GSM8K
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts
from jaxrl_surrogate.tasks.signatures import Option
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict
from jaxrl_surrogate.tasks.tokenizers import Tokenizer
from jaxrl_surrogate.tasks.verification import verify_all

_TASKS = {task.name: task for task in (Arithmetic, Countdown, GSM8K)}


def names() -> tuple[str, ...]:
    """Built-in tasks. `reasoning_gym:DATASET` names those of that library."""
    return tuple(_TASKS)


def get(name: str, **options: Any) -> Task:
    """Return a task.

    Args:
      name: one of `names()`, or `reasoning_gym:DATASET`.
      **options: those that the function `options` lists for this name.

    Raises:
      ValueError: naming what is unknown, ill-typed or impossible and what was expected;
        a line for each unknown or ill-typed option.

    Examples:
      >>> task = get("arithmetic", max_digits=3)
      >>> task.verify(Problem("20+22=", answer=42), "42").reward
      1.0
    """
    checked = signatures.check(name, _options(name), options)
    try:
        if name in _TASKS:
            return _TASKS[name](**checked)
        return reasoning_gym.ReasoningGym(_dataset(name), **checked)
    except ValueError as error:
        raise ValueError(f"options.{error}") from error


def options(name: str) -> dict[str, Option]:
    """Type, default and help of each option of a task.

    Raises:
      ValueError: there is no such task, or it needs a library that is missing.
    """
    if name in _TASKS:
        return signatures.read(_TASKS[name])
    if name.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.dataset_options(_dataset(name))
    known = (*_TASKS, reasoning_gym.PREFIX + "DATASET")
    raise ValueError(
        f"name={name!r}: expected one of {', '.join(known)}"
        f"{signatures.nearest(name, known)}"
    )


_options = options  # `get` has an argument of this name


def task_options(name: str) -> dict[str, tuple[Any, str]]:
    """Default and help of each option: `options` for one who only prints them."""
    return {key: (option.default, option.help) for key, option in options(name).items()}


def _dataset(name: str) -> str:
    return name.removeprefix(reasoning_gym.PREFIX)


__all__ = [
    "Option",
    "Problem",
    "PromptStream",
    "Task",
    "Tokenizer",
    "Verdict",
    "encode_prompts",
    "get",
    "names",
    "options",
    "prompts",
    "task_options",
    "tokenizers",
    "verify_all",
]
