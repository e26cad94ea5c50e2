"""Verify a batch of completions: order kept, failures masked, hangs killed."""

import functools
import inspect
import math
import numbers
import traceback
from collections.abc import Sequence

import numpy as np

from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

_LARGEST = float(np.finfo(np.float32).max)
_NOTE_LENGTH = 200  # characters of what a verifier says


def verify_all(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    *,
    workers: int = 0,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verify M completions of each of G problems.

    Args:
      task: has the verifier.
      problems: G problems.
      completions: G lists of M texts.
      workers: processes; 0 verifies in this one, one after the other. Processes are
        kept for the next call with the same task; those that hang or die are replaced.
      timeout_s: seconds of one completion in a process, after which the process is
        killed; None waits for ever. Nothing can be killed where `workers` is 0: there
        it has no effect.
      memory_mb: MiB that a process may use beyond what it starts with; None sets no
        limit.

    Returns:
      Rewards (G, M) float32, 0 where there is no verdict; a mask (G, M) bool, False
      there (an exception, a time-out, a dead process, a reward that is not finite); and
      notes (G, M) of text, why there is no verdict or what else the verifier says, ""
      where it says nothing.

    Raises:
      ValueError: the completions are not G lists of one length, or a setting is out of
        range.
      RuntimeError: a process does not start: the task does not pickle, or what it is
        made of cannot be imported.
    """
    if workers < 0:
        raise ValueError(f"workers={workers}: expected 0 (in this process) or more")
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout_s={timeout_s}: expected a positive number or None")
    lengths = {len(texts) for texts in completions}
    if len(completions) != len(problems) or len(lengths) > 1:
        raise ValueError(
            f"completions: have {len(completions)} groups of {sorted(lengths)}; "
            f"expected {len(problems)} groups of one length"
        )
    jobs = [
        (problem, text)
        for problem, texts in zip(problems, completions, strict=True)
        for text in texts
    ]
    if workers and jobs:
        from jaxrl_surrogate.tasks import processes  # it imports this module

        verdicts = processes.shared(task, workers, memory_mb).judge_all(jobs, timeout_s)
    else:
        verdicts = [judge(task, *job) for job in jobs]
    shape = (len(problems), lengths.pop() if lengths else 0)
    rewards = np.array([verdict.reward for verdict in verdicts], np.float32)
    mask = np.array([verdict.ok for verdict in verdicts], bool)
    notes = np.array([verdict.note for verdict in verdicts], object)
    return rewards.reshape(shape), mask.reshape(shape), notes.reshape(shape)


def judge(task: Task, problem: Problem, completion: str) -> Verdict:
    """One verdict; a verifier that fails gives none, never a silent zero.

    A plain number (int, float, bool, NumPy's) is a reward. What the verifier raises,
    `sys.exit` included, becomes the note of a verdict that is not `ok`, with the file
    and line; so does anything else that it returns, and a reward that float32 cannot
    hold. A keyboard interrupt passes through.
    """
    try:
        verdict = task.verify(problem, completion)
        if isinstance(verdict, (numbers.Real, np.bool_)):
            verdict = Verdict(float(verdict))
        if not all(hasattr(verdict, name) for name in ("reward", "ok", "note")):
            return no_verdict(
                f"verify returned {type(verdict).__name__}; expected a Verdict or a "
                "number"
            )
        reward, ok, note = float(verdict.reward), bool(verdict.ok), str(verdict.note)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"[:_NOTE_LENGTH]
        return Verdict(0.0, False, f"{said} ({_line_that_raised(task, error)})")
    if not ok:
        return no_verdict(note or "the verifier gave no verdict")
    if not abs(reward) <= _LARGEST:
        return no_verdict(f"reward {reward} is not finite in float32")
    return Verdict(reward, True, note[:_NOTE_LENGTH])


def no_verdict(note: str) -> Verdict:
    """The outcome of a completion that could not be judged."""
    return Verdict(0.0, False, note[:_NOTE_LENGTH])


def verifier_name(task: Task) -> str:
    """The verifier of a task as "Class.verify, file:line", as far as it has them."""
    code = _code(task)
    verify = task.verify
    name = getattr(verify, "__qualname__", f"{type(task).__qualname__}.verify")
    return f"{name}, {code.co_filename}:{code.co_firstlineno}" if code else name


def _code(task: Task):
    """The code object of a task's verifier, or None where it is not Python's."""
    verify = inspect.unwrap(task.verify)
    while isinstance(verify, functools.partial):
        verify = verify.func
    return getattr(verify, "__code__", None)


def _line_that_raised(task: Task, error: BaseException) -> str:
    """file:line, the innermost in the verifier's own file: that is where to mend it."""
    lines = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ][1:]  # the first is `judge`
    code = _code(task)
    if code is not None:
        own = [place for place in lines if place[0] == code.co_filename]
        lines = own or lines or [(code.co_filename, code.co_firstlineno)]
    return ":".join(map(str, lines[-1])) if lines else verifier_name(task)
