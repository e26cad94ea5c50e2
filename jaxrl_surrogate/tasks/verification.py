"""Verify a batch of completions: order kept, failures masked, hangs killed."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

_LARGEST = float(np.finfo(np.float32).max)


def verify_all(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    *,
    workers: int = 0,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
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
      how often each note was given, in the order of the first of each.

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
    notes = Counter(verdict.note for verdict in verdicts if verdict.note)
    return rewards.reshape(shape), mask.reshape(shape), dict(notes)


def judge(task: Task, problem: Problem, completion: str) -> Verdict:
    """One verdict; a verifier that fails gives none, never a silent zero.

    What it raises, `sys.exit` included, becomes the note of a verdict that is not `ok`;
    so does a reward that float32 cannot hold. A keyboard interrupt passes through.
    """
    try:
        verdict = task.verify(problem, completion)
        reward, ok, note = float(verdict.reward), bool(verdict.ok), str(verdict.note)
    except (Exception, SystemExit) as error:
        return no_verdict(f"{type(error).__name__}: {error}")
    if not ok:
        return no_verdict(note or "the verifier gave no verdict")
    if not abs(reward) <= _LARGEST:
        return no_verdict(f"reward {reward} is not finite in float32")
    return Verdict(reward, True, note[:200])


def no_verdict(note: str) -> Verdict:
    """The outcome of a completion that could not be judged."""
    return Verdict(0.0, False, note[:200])
