"""Verify a batch of completions: order kept, failures masked, hangs killed."""

import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

import numpy as np

from jaxrl_surrogate.tasks.task import Problem, Task, Verdict


def verify_all(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    *,
    workers: int = 0,
    timeout_s: float = 10.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Verify M completions of each of G problems.

    Args:
      task: has the verifier.
      problems: G problems.
      completions: G lists of M texts.
      workers: processes; 0 verifies in this one, without a time limit.
      timeout_s: seconds a completion may take in a worker before it is killed.

    Returns:
      Rewards (G, M) float32, a mask (G, M) bool that is False where there is no verdict
      (exception, time-out, dead process, reward that is not finite), and how often each
      note was given.
    """
    jobs = [
        (problem, text)
        for problem, texts in zip(problems, completions, strict=True)
        for text in texts
    ]
    if workers:
        verdicts = _verify_in_processes(task, jobs, workers, timeout_s)
    else:
        verdicts = [judge(task, *job) for job in jobs]
    shape = (len(problems), len(completions[0]) if completions else 0)
    mask = np.array([verdict.ok for verdict in verdicts], bool).reshape(shape)
    rewards = np.array([verdict.reward for verdict in verdicts], np.float32)
    notes = Counter(verdict.note for verdict in verdicts if verdict.note)
    return np.where(mask, rewards.reshape(shape), np.float32(0)), mask, dict(notes)


def judge(task: Task, problem: Problem, completion: str) -> Verdict:
    """One verdict; a verifier that fails gives none, never a silent zero."""
    try:
        verdict = task.verify(problem, completion)
    except Exception as error:  # whatever a user's verifier raises is a note
        return Verdict(0.0, False, f"{type(error).__name__}: {error}"[:200])
    if not math.isfinite(verdict.reward):
        return Verdict(0.0, False, f"reward {verdict.reward} is not finite")
    return verdict


def _serve(task: Task, pipe: Connection) -> None:
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(judge(task, *job))


class _Worker:
    """A process with one job at a time, replaced when it dies or takes too long."""

    # Forking a process that runs JAX's threads can deadlock the child.
    _context = multiprocessing.get_context("spawn")

    def __init__(self, task: Task):
        self.pipe, remote = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(task, remote), daemon=True
        )
        self._process.start()
        remote.close()
        self.index: int | None = None
        self.deadline = math.inf

    def give(self, index: int, job: tuple, seconds: float) -> None:
        self.index, self.deadline = index, time.monotonic() + seconds
        self.pipe.send(job)

    def kill(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _verify_in_processes(task, jobs, count, timeout_s):
    verdicts: list[Verdict | None] = [None] * len(jobs)
    waiting = list(range(len(jobs)))[::-1]
    # Starting a process imports this package: the first job of each gets time for it.
    startup_s = 60.0
    pool = [_Worker(task) for _ in range(min(count, len(jobs)))]
    fresh = set(map(id, pool))
    try:
        while waiting or any(worker.index is not None for worker in pool):
            for worker in pool:
                if worker.index is None and waiting:
                    index = waiting.pop()
                    extra = startup_s if id(worker) in fresh else 0.0
                    worker.give(index, jobs[index], timeout_s + extra)
            busy = [worker for worker in pool if worker.index is not None]
            soonest = min(worker.deadline for worker in busy)
            ready = wait(
                [worker.pipe for worker in busy], max(0.0, soonest - time.monotonic())
            )
            for position, worker in enumerate(pool):
                if worker.index is None:
                    continue
                note = None
                if worker.pipe in ready:
                    try:
                        verdicts[worker.index] = worker.pipe.recv()
                        worker.index, worker.deadline = None, math.inf
                        fresh.discard(id(worker))
                    except (EOFError, OSError):
                        note = "the verifier's process died"
                elif time.monotonic() >= worker.deadline:
                    note = f"no verdict within {timeout_s} s"
                if note:
                    verdicts[worker.index] = Verdict(0.0, False, note)
                    worker.kill()
                    pool[position] = _Worker(task)
                    fresh.add(id(pool[position]))
    finally:
        for worker in pool:
            worker.kill()
    return verdicts
