"""Rewards from a function of the user's, in place of a task's verifier.

An adapter calls a function of one signature as verifiers are called, with a problem and
a completion; another signature is another adapter, and a line in `ADAPTERS`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.resolve import resolve
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict


class Adapter(Protocol):
    """Calls a reward function as a verifier is called. Must pickle if it does."""

    function: Callable[..., Any]

    def __call__(self, problem: Problem, completion: str) -> Verdict | float:
        """The reward of one completion."""
        ...


@dataclasses.dataclass(frozen=True)
class CompletionAndAnswer:
    """`reward(completion, answer)`: a number, a bool, or None to mask the sample."""

    function: Callable[[str, Any], float | bool | None]

    def __call__(self, problem: Problem, completion: str) -> Verdict | float:
        """The function's reward of a completion and its problem's answer."""
        reward = self.function(completion, problem.answer)
        if reward is None:
            name = getattr(self.function, "__name__", "the reward function")
            return Verdict(0.0, False, f"{name} returned None: the sample is masked")
        return reward


# By what the function is called with; the first one that fits is taken.
ADAPTERS: dict[str, Callable[[Callable], Adapter]] = {
    "completion, answer": CompletionAndAnswer,
}


def adapt(function: Any, spec: str) -> Adapter:
    """A function as a verifier, by its signature.

    Args:
      function: of the user's.
      spec: what it was named by, for the error.

    Raises:
      FieldError: it is no function, or takes other arguments.
    """
    if not callable(function) or isinstance(function, type):
        kind = "a class" if callable(function) else f"of type {type(function).__name__}"
        raise _refused(spec, f"it is {kind}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of C have none
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
    """A task whose rewards come from a function of the user's."""

    task: Task | None  # None in a verifier process, which needs no problems
    reward: Adapter

    def __reduce__(self):
        return Rewarded, (None, self.reward)

    @property
    def reward_function(self) -> Callable[..., Any]:
        """The user's function: what messages name."""
        return self.reward.function

    @property
    def train(self) -> Sequence[Problem]:
        """The problems of the task."""
        return self.task.train

    @property
    def test(self) -> Sequence[Problem]:
        """The test problems of the task."""
        return self.task.test

    def verify(self, problem: Problem, completion: str) -> Verdict | float:
        """The function's reward."""
        return self.reward(problem, completion)


def with_reward(task: Task, spec: str) -> Rewarded:
    """A task whose rewards are those of a function.

    Args:
      task: has the problems; its own verifier is not used.
      spec: of the function, see `resolve`.

    Raises:
      FieldError: there is no such function, or see `adapt`.
    """
    return Rewarded(task, adapt(resolve(spec, "reward"), spec))
