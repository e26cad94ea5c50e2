"""Makes tasks from the user's files and modules, and checks them before a run."""

import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.resolve import line_that_raised, resolve, source_file
from jaxrl_surrogate.tasks import signatures
from jaxrl_surrogate.tasks.processes import unpicklable
from jaxrl_surrogate.tasks.signatures import Option
from jaxrl_surrogate.tasks.task import Problem

_SEARCHED = 200_000  # most problems of a set that are compared with the other set
_FORM = "train and test, sequences of Problem, and verify(problem, completion)"


def options(spec: str) -> dict[str, Option]:
    """Return the options of a user's task, the arguments of its class or function.

    A task that is an object has no options.

    Raises:
      FieldError: see `resolve`; the field is `name`.
    """
    made = resolve(spec, "name")
    return signatures.of_any(made) if _makes_tasks(made) else {}


def make(spec: str, given: dict[str, Any]) -> Any:
    """Check options and make a user's task with them.

    Args:
      spec: where the task is, such as `my.py:MyTask`.
      given: options by name.

    Raises:
      FieldErrors: the spec names nothing (see `resolve`); an option is unknown, missing
        or of another type; or the class raises an error, whose file and line are named.
    """
    made = resolve(spec, "name")
    if not _makes_tasks(made):
        signatures.check(spec, {}, given)
        return made
    known = signatures.of_any(made)
    free = (
        {}
        if not signatures.takes_any(made)
        else {name: value for name, value in given.items() if name not in known}
    )
    named = {name: value for name, value in given.items() if name not in free}
    named = signatures.check(spec, known, named)

    def construct() -> Any:
        try:
            return made(**named, **free)
        except FieldErrors as error:  # raised by the task about its own options
            raise error.inside("options") from error

    return _attempt(spec, f"{spec.rpartition(':')[2]}(...)", construct)


def check(task: Any, spec: str, *, needs_verifier: bool = True) -> None:
    """Check that a user's task has what a run needs.

    Args:
      task: the user's task.
      spec: its name in the config, for error messages.
      needs_verifier: False if rewards come from another function.

    Raises:
      FieldErrors: `train`, `test` or `verify` is missing, empty or of another form (one
        error for each), or some test problems are training problems too. The field is
        `name`.
    """
    found = [_problems_fault(task, spec, part) for part in ("train", "test")]
    if needs_verifier:
        found.append(_verifier_fault(task, spec))
    errors = list(filter(None, found)) or list(filter(None, [_shared(task, spec)]))
    if errors:
        raise FieldErrors(errors)


def check_travels(task: Any, workers: int) -> None:
    """Check that a task can be sent to verifier processes.

    Raises:
      FieldError: the task does not pickle; the field is `verify_workers`.
    """
    try:
        pickle.dumps(task)
    except Exception as error:
        raise unpicklable(workers, error).at("verify_workers") from error


def _makes_tasks(made: Any) -> bool:
    """Return whether `made` is a class or function that makes a task, not a task."""
    return isinstance(made, type) or (callable(made) and not hasattr(made, "train"))


def _attempt(spec: str, what: str, call: Callable[[], Any]) -> Any:
    """Call user code; raise its exceptions as errors of the field `name`."""
    try:
        return call()
    except FieldErrors:
        raise
    except (Exception, SystemExit) as error:
        file = source_file(spec)
        line = line_that_raised(error, "" if file is None else str(file))
        raise FieldError(
            "name",
            spec,
            problem=f"{what} raised {type(error).__name__}: {error} ({line})",
        ) from error


def _problems_fault(task: Any, spec: str, part: str) -> FieldError | None:
    source = getattr(task, part, None)
    if source is None:
        return FieldError("name", spec, _FORM, problem=f"the task has no {part}")
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        return FieldError(
            "name",
            spec,
            f"a sequence: len({part}) and {part}[i]",
            problem=f"{part} is of type {type(source).__name__}",
        )
    count = _attempt(spec, f"len({part})", lambda: len(source))
    if not count and part == "train":
        return FieldError("name", spec, "at least 1 problem", problem="train is empty")
    for index in {0, count - 1} if count else ():
        name = f"{part}[{index}]"
        problem = _attempt(spec, name, lambda index=index: source[index])
        if not isinstance(problem, Problem):
            return FieldError(
                "name",
                spec,
                "a jaxrl_surrogate.tasks.Problem(prompt, answer)",
                problem=f"{name} is of type {type(problem).__name__}",
            )
        if not isinstance(problem.prompt, str):
            return FieldError(
                "name",
                spec,
                "text",
                problem=f"{name}.prompt is of type {type(problem.prompt).__name__}",
            )
    return None


def _verifier_fault(task: Any, spec: str) -> FieldError | None:
    if callable(getattr(task, "reset", None)) and callable(getattr(task, "step", None)):
        return None  # an environment
    if not hasattr(task, "verify"):
        return FieldError("name", spec, _FORM, problem="the task has no verify")
    if not callable(task.verify):
        kind = type(task.verify).__name__
        return FieldError(
            "name",
            spec,
            "a function (problem, completion)",
            problem=f"verify cannot be called: it is of type {kind}",
        )
    try:
        inspect.signature(task.verify).bind(None, "")
    except ValueError:  # some functions written in C have no signature
        return None
    except TypeError as error:
        return FieldError(
            "name",
            spec,
            problem=f"verify cannot be called with (problem, completion): {error}",
        )
    return None


def _shared(task: Any, spec: str) -> FieldError | None:
    """Return an error if test problems are training problems too.

    Only a part of a large source is read.
    """
    test = {_asked(problem) for problem in _each(task.test, spec, "test")}
    both = {_asked(problem) for problem in _each(task.train, spec, "train")} & test
    if not both:
        return None
    return FieldError(
        "name",
        spec,
        "none: a score on what was trained on says little",
        problem=f"{len(both)} of {len(test)} test problems are in train as well, such "
        f"as {min(both)[0][:60]!r}",
    )


def _each(source: Sequence[Problem], spec: str, part: str):
    step = -(-max(1, len(source)) // _SEARCHED)
    for index in range(0, len(source), step):
        yield _attempt(spec, f"{part}[{index}]", lambda index=index: source[index])


def _asked(problem: Problem) -> tuple[str, str]:
    return problem.prompt, repr(problem.answer)
