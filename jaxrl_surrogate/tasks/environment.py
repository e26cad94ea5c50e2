"""Environments judge the texts of a policy; a task is an environment of one turn.

An episode begins with `reset`, which takes a problem. Each text that the policy writes
is passed to `step`. An environment object holds no state of an episode, so one object
serves all episodes, in any process.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

State = Any  # the state of an episode; must pickle


@dataclasses.dataclass(frozen=True)
class Turn:
    """The result of one text of the policy."""

    observation: str  # what the policy reads next; "" if the episode is over
    reward: Verdict | float  # of this turn
    done: bool  # whether the episode is over


class Environment(Protocol):
    """The interface of environments, which judge a policy text by text."""

    def reset(self, problem: Problem) -> State:
        """Begin an episode and return its state. `problem.prompt` is read first."""
        ...

    def step(self, state: State, text: str) -> Turn:
        """Judge a text of the policy. The result may depend on the arguments only.

        If the episode goes on, `step` updates the state in place.
        """
        ...


@dataclasses.dataclass(frozen=True)
class OneTurn:
    """A task as an environment of one turn, whose text the task's verifier judges."""

    task: Task

    def reset(self, problem: Problem) -> Problem:
        """Return the problem, which is the whole state."""
        return problem

    def step(self, state: Problem, text: str) -> Turn:
        """Return the verifier's reward and end the episode."""
        return Turn("", self.task.verify(state, text), done=True)


def environment_of(task: Any) -> Environment:
    """Return `task` if it has `reset` and `step`, otherwise wrap it in `OneTurn`."""
    is_environment = hasattr(task, "reset") and hasattr(task, "step")
    return task if is_environment else OneTurn(task)


def reward_function(task: Any) -> Callable:
    """Return the function that computes a task's rewards, for error messages.

    It is the user's reward function if there is one, otherwise `verify` or `step`.
    """
    if isinstance(task, OneTurn):
        task = task.task
    own = getattr(task, "reward_function", None)  # see `rewards.Rewarded`
    return own or getattr(task, "verify", None) or task.step
