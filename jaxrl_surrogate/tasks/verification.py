"""Verification of a batch of completions, with failures masked and hangs killed."""

import math
from collections.abc import Sequence

import numpy as np

from jaxrl_surrogate.tasks.environment import Environment
from jaxrl_surrogate.tasks.processes import judge_all
from jaxrl_surrogate.tasks.task import Problem, Task


def verify_all(
    task: Task | Environment,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    *,
    workers: int = 0,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verify M completions of each of G problems.

    Args:
      task: a task, or an environment of one turn.
      problems: G problems.
      completions: G lists of M texts.
      workers: most verifier processes; with 0 this process verifies the completions one
        after the other. Processes are kept for the next call with the same task, and
        are replaced if they hang or die.
      timeout_s: seconds for one completion, after which its process is killed; None
        sets no limit. It has no effect if `workers` is 0.
      memory_mb: MiB that a process may use beyond what it starts with; None sets no
        limit. It has no effect if `workers` is 0.

    Returns:
      Rewards (G, M) float32, 0 where there is no verdict. A mask (G, M) bool, False
      where there is no verdict because of an exception, a time-out, a dead process or a
      reward that is not finite. Notes (G, M) of dtype object: texts that say why there
      is no verdict, or the verifier's own note, "" if there is none.

    Raises:
      ValueError: the completions are not G lists of one length, or a setting is out of
        range.
      FieldError: a process does not start because the task does not pickle or cannot be
        imported.
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
    verdicts = judge_all(task, jobs, workers, timeout_s, memory_mb)
    shape = (len(problems), lengths.pop() if lengths else 0)
    rewards = np.array([verdict.reward for verdict in verdicts], np.float32)
    mask = np.array([verdict.ok for verdict in verdicts], bool)
    notes = np.array([verdict.note for verdict in verdicts], object)
    return rewards.reshape(shape), mask.reshape(shape), notes.reshape(shape)
