"""Tasks: problems, and verifiers that turn completions into rewards on the host."""

from typing import Any

from jaxrl_surrogate.errors import FieldErrors, unknown
from jaxrl_surrogate.tasks import (
    prompts,
    reasoning_gym,
    signatures,
    tokenizers,
    user_tasks,
)
from jaxrl_surrogate.tasks.arithmetic import Arithmetic
from jaxrl_surrogate.tasks.config import TaskConfig
from jaxrl_surrogate.tasks.countdown import Countdown
from jaxrl_surrogate.tasks.gsm8k import GSM8K
from jaxrl_surrogate.tasks.prompts import PromptStream, encode_prompts
from jaxrl_surrogate.tasks.rewards import with_reward
from jaxrl_surrogate.tasks.signatures import Option
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict
from jaxrl_surrogate.tasks.tokenizers import Tokenizer
from jaxrl_surrogate.tasks.verification import verify_all

_TASKS = {task.name: task for task in (Arithmetic, Countdown, GSM8K)}


def names() -> tuple[str, ...]:
    """Return the names of the built-in tasks, without those of reasoning-gym."""
    return tuple(_TASKS)


def get(name: str, **options: Any) -> Task:
    """Return a task.

    Args:
      name: one of `names()`; `reasoning_gym:DATASET`; or `file.py:attribute` or
        `module:attribute` for the user's own task, which is a class or function that
        takes the options, or an object.
      **options: options of the task, as the function `options` lists them.

    Raises:
      FieldErrors: the name or an option is unknown, or an option has another type or an
        impossible value. The fields are `name` and `options.NAME`.

    Examples:
      >>> task = get("arithmetic", max_digits=3)
      >>> task.verify(Problem("20+22=", answer=42), "42").reward
      1.0
    """
    if _is_users(name):
        return user_tasks.make(name, options)
    checked = signatures.check(name, _options(name), options)
    try:
        if name in _TASKS:
            return _TASKS[name](**checked)
        return reasoning_gym.ReasoningGym(_dataset(name), **checked)
    except FieldErrors as error:
        raise error.inside("options") from error


def build(config: TaskConfig) -> Task:
    """Make the task of a config, with the config's reward function if it names one.

    Raises:
      FieldErrors: see `get`, `rewards.with_reward`, `user_tasks.check` and
        `user_tasks.check_travels`.
    """
    task = get(config.name, **config.options)
    if _is_users(config.name):
        needs_verifier = config.reward is None
        user_tasks.check(task, config.name, needs_verifier=needs_verifier)
    if config.reward is not None:
        task = with_reward(task, config.reward)
    if config.verify_workers:
        user_tasks.check_travels(task, config.verify_workers)
    return task


def user_code(config: TaskConfig) -> list[str]:
    """Return the specs (such as `my.py:MyTask`) of the user's code that a task uses."""
    return [
        *([config.name] if _is_users(config.name) else []),
        *([config.reward] if config.reward is not None else []),
    ]


def options(name: str) -> dict[str, Option]:
    """Return type, default and help text of each option of a task.

    Raises:
      FieldError: there is no such task, or it needs a library that is missing.
    """
    if name in _TASKS:
        return signatures.read(_TASKS[name])
    if name.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.dataset_options(_dataset(name))
    if _is_users(name):
        return user_tasks.options(name)
    known = (*_TASKS, reasoning_gym.PREFIX + "DATASET", "FILE.py:CLASS")
    raise unknown("name", name, known, "task")


def _is_users(name: str) -> bool:
    return ":" in name and not name.startswith(reasoning_gym.PREFIX)


_options = options  # `get` has an argument of this name


def task_options(name: str) -> dict[str, tuple[Any, str]]:
    """Return default and help text of each option of a task; see `options`."""
    return {key: (option.default, option.help) for key, option in options(name).items()}


def _dataset(name: str) -> str:
    return name.removeprefix(reasoning_gym.PREFIX)


__all__ = [
    "Option",
    "Problem",
    "PromptStream",
    "Task",
    "TaskConfig",
    "Tokenizer",
    "Verdict",
    "build",
    "encode_prompts",
    "get",
    "names",
    "options",
    "prompts",
    "task_options",
    "tokenizers",
    "user_code",
    "verify_all",
]
