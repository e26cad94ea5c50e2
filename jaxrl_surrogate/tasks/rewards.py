"""Rewards from a user's function, which replaces a task's verifier.

An adapter gives a function of one signature the signature of a verifier: (problem,
completion). To support another signature, write an adapter and add it to `ADAPTERS`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.resolve import resolve
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict


class Adapter(Protocol):
    """Gives a reward function the signature of a verifier.

    It must pickle if the function does.
    """

    function: Callable[..., Any]

    def __call__(self, problem: Problem, completion: str) -> Verdict | float:
        """Return the reward of one completion."""
        ...


@dataclasses.dataclass(frozen=True)
class CompletionAndAnswer:
    """Adapts `reward(completion, answer)`, which returns a number, a bool or None.

    None masks the sample.
    """

    function: Callable[[str, Any], float | bool | None]

    def __call__(self, problem: Problem, completion: str) -> Verdict | float:
        """Call the function with a completion and its problem's answer."""
        reward = self.function(completion, problem.answer)
        if reward is None:
            name = getattr(self.function, "__name__", "the reward function")
            return Verdict(0.0, False, f"{name} returned None: the sample is masked")
        return reward


# From the arguments that the function is called with; the first adapter that fits is
# used.
ADAPTERS: dict[str, Callable[[Callable], Adapter]] = {
    "completion, answer": CompletionAndAnswer,
}


def adapt(function: Any, spec: str) -> Adapter:
    """Return the adapter for a reward function, by the function's signature.

    Args:
      function: the user's function.
      spec: its name in the config, for error messages.

    Raises:
      FieldError: it is no function, or takes other arguments.
    """
    if not callable(function) or isinstance(function, type):
        kind = "a class" if callable(function) else f"of type {type(function).__name__}"
        raise _refused(spec, f"it is {kind}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have no signature
        return CompletionAndAnswer(function)
    for arguments, make in ADAPTERS.items():
        try:
            signature.bind(*arguments.split(", "))
        except TypeError:
            continue
        return make(function)
    raise _refused(spec, f"its arguments are {signature}")


def _refused(spec: str, problem: str) -> FieldError:
    expected = " or ".join(f"({arguments})" for arguments in ADAPTERS)
    return FieldError(
        "reward",
        spec,
        f"a function of {expected} that gives a number, or None to mask the sample",
        problem=problem,
    )


@dataclasses.dataclass(frozen=True)
class Rewarded:
    """A task whose rewards come from the user's function."""

    task: Task | None  # None in a verifier process, which needs no problems
    reward: Adapter

    def __reduce__(self):
        return Rewarded, (None, self.reward)

    @property
    def reward_function(self) -> Callable[..., Any]:
        """The user's function, for error messages."""
        return self.reward.function

    @property
    def train(self) -> Sequence[Problem]:
        """The training problems of the task."""
        return self.task.train

    @property
    def test(self) -> Sequence[Problem]:
        """The test problems of the task."""
        return self.task.test

    def verify(self, problem: Problem, completion: str) -> Verdict | float:
        """Return the function's reward of a completion."""
        return self.reward(problem, completion)


def with_reward(task: Task, spec: str) -> Rewarded:
    """Replace a task's verifier by a reward function.

    Args:
      task: has the problems; its own verifier is not used.
      spec: where the function is, such as `my.py:my_reward`; see `resolve`.

    Raises:
      FieldError: there is no such function, or `adapt` refuses it.
    """
    return Rewarded(task, adapt(resolve(spec, "reward"), spec))
