"""Environments: what the texts of a policy lead to. A task is the one of one turn.

An episode begins with `reset`, which reads a problem; each text that the policy writes
is a `step`. Environments hold no state of an episode themselves, so one object serves
all episodes, in whatever process they are judged.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

State = Any  # of an episode; must pickle


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one text of the policy led to."""

    observation: str  # what the policy reads before it writes on; "" where it is done
    reward: Verdict | float  # of this turn
    done: bool  # whether the episode is over


class Environment(Protocol):
    """Judges a policy text by text."""

    def reset(self, problem: Problem) -> State:
        """Begin an episode; the policy reads `problem.prompt` first."""
        ...

    def step(self, state: State, text: str) -> Turn:
        """Take what the policy wrote. Must not depend on anything but its arguments.

        Where an episode goes on, the state is changed in place.
        """
        ...


@dataclasses.dataclass(frozen=True)
class OneTurn:
    """A task as an environment: one text, which its verifier judges."""

    task: Task

    def reset(self, problem: Problem) -> Problem:
        """The problem is all that there is to know."""
        return problem

    def step(self, state: Problem, text: str) -> Turn:
        """The verifier's reward; the episode is over."""
        return Turn("", self.task.verify(state, text), done=True)


def environment_of(task: Any) -> Environment:
    """A task as an environment; one that has `reset` and `step` is its own."""
    is_environment = hasattr(task, "reset") and hasattr(task, "step")
    return task if is_environment else OneTurn(task)


def reward_function(task: Any) -> Callable:
    """The function that rewards come from: the one to name and to mend."""
    if isinstance(task, OneTurn):
        task = task.task
    own = getattr(task, "reward_function", None)  # of a task that was given another one
    return own or getattr(task, "verify", None) or task.step
