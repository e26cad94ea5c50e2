"""Judges one completion with any verifier, and turns failures into masked verdicts."""

import functools
import inspect
import numbers
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from jaxrl_surrogate.tasks.environment import Environment, reward_function
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

_LARGEST = float(np.finfo(np.float32).max)
_NOTE_LENGTH = 200  # most characters of a note
# Files of this folder whose functions call the verifier on behalf of `judge`.
_BETWEEN = tuple(
    str(Path(__file__).with_name(name))
    for name in ("judging.py", "environment.py", "rewards.py")
)


def judge(environment: Environment, problem: Problem, completion: str) -> Verdict:
    """Judge a completion in an episode of one turn.

    A plain number (int, float, bool, or NumPy's types) counts as a reward. A failure
    gives a verdict with `ok` False and a note, never a reward of 0 that counts. These
    are failures: an exception, `sys.exit` included, whose file and line the note names;
    a result that is neither a `Verdict` nor a number; a reward that is not finite in
    float32; and an episode that is not over after one turn. A KeyboardInterrupt is not
    caught.
    """
    name = getattr(reward_function(environment), "__name__", "the verifier")
    try:
        turn = environment.step(environment.reset(problem), completion)
        verdict = turn.reward
        if isinstance(verdict, (numbers.Real, np.bool_)):
            verdict = Verdict(float(verdict))
        if not all(hasattr(verdict, part) for part in ("reward", "ok", "note")):
            return no_verdict(
                f"{name} returned {type(verdict).__name__}; expected a Verdict or a "
                "number"
            )
        reward, ok, note = float(verdict.reward), bool(verdict.ok), str(verdict.note)
        done = bool(turn.done)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"[:_NOTE_LENGTH]
        return Verdict(0.0, False, f"{said} ({_line_that_raised(environment, error)})")
    if not done:
        return no_verdict(f"{name} goes on after one turn; expected done=True")
    if not ok:
        return no_verdict(note or "the verifier gave no verdict")
    if not abs(reward) <= _LARGEST:
        return no_verdict(f"{name} returned {reward}, which is not finite in float32")
    return Verdict(reward, True, note[:_NOTE_LENGTH])


def no_verdict(note: str) -> Verdict:
    """Return the verdict of a completion that could not be judged, with a note."""
    return Verdict(0.0, False, note[:_NOTE_LENGTH])


def verifier_name(task: Task | Environment) -> str:
    """Return a verifier as "Class.verify, file:line", or its name if it has no code."""
    function = reward_function(task)
    code = _code(function)
    name = getattr(function, "__qualname__", f"{type(task).__qualname__}.verify")
    return f"{name}, {code.co_filename}:{code.co_firstlineno}" if code else name


def _code(function: Any) -> CodeType | None:
    """Return the code object of a function, or None if it is not a Python function."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", None)


def _line_that_raised(task: Task | Environment, error: BaseException) -> str:
    """Return where an error was raised, as file:line.

    It is the innermost line in the verifier's own file if there is one.
    """
    lines = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename not in _BETWEEN
    ]
    code = _code(reward_function(task))
    if code is not None:
        own = [place for place in lines if place[0] == code.co_filename]
        lines = own or lines or [(code.co_filename, code.co_firstlineno)]
    return ":".join(map(str, lines[-1])) if lines else verifier_name(task)
