"""Verifier processes: they are killed at a time limit, and replaced when they die.

A verifier is arbitrary code that runs on a policy's text. Threads cannot be stopped,
and Python's signal handlers do not interrupt a loop in C. Each completion is therefore
judged in a process that can be killed together with everything that it started, and
whose memory is limited (see `confinement`).
"""

import atexit
import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.confinement import confine, sweep
from jaxrl_surrogate.tasks.environment import Environment, environment_of
from jaxrl_surrogate.tasks.judging import judge, no_verdict
from jaxrl_surrogate.tasks.task import Problem, Task, Verdict

Job = tuple[Problem, str]

# Signals that are sent to the whole process group, and that only the trainer handles.
_FOR_THE_TRAINER = (signal.SIGINT, signal.SIGTERM)
_FIELD = "task.verify_workers"
_START_S = 300.0  # limit for a process to start and import the task
_KEPT = 4  # most pools of processes at a time; training and evaluation share one


class VerifierProcesses:
    """Processes that judge completions of one task, kept between batches."""

    def __init__(
        self, task: Task | Environment, count: int, memory_mb: int | None = None
    ):
        """Pickle the task; processes start when a batch needs them.

        Args:
          task: the task or environment that judges.
          count: most processes.
          memory_mb: MiB that a process may use beyond what it starts with; None sets no
            limit.

        Raises:
          FieldError: the task does not pickle.
        """
        try:
            self._task = pickle.dumps(task)
        except Exception as error:
            raise unpicklable(count, error) from error
        self._count, self._memory_mb = count, memory_mb
        self._pool: list[_Process] = []
        self._lock = threading.Lock()

    def judge_all(
        self, jobs: Sequence[Job], timeout_s: float | None = None
    ) -> list[Verdict]:
        """Judge completions and return the verdicts in the order of the jobs.

        A job whose process dies is tried once more in a new process, because the death
        may have another cause, such as a lack of memory on the host. A job that exceeds
        the time limit is not tried again.

        Args:
          jobs: pairs of a problem and a completion.
          timeout_s: seconds for one completion, after which its process is killed; None
            sets no limit.

        Raises:
          FieldError: a process dies before it is ready.
        """
        with self._lock:
            try:
                return self._judge_all(jobs, timeout_s)
            except BaseException:
                self._kill()  # the processes may still be judging parts of this batch
                raise

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._kill()

    def _kill(self) -> None:
        for process in self._pool:
            process.kill()
        self._pool = []

    def _judge_all(self, jobs, timeout_s):
        verdicts: list[Verdict | None] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))
        deaths = [0] * len(jobs)
        while len(self._pool) < min(self._count, len(jobs)):
            self._pool.append(_Process(self._task, self._memory_mb))
        left = len(jobs)
        while left:
            for process in self._pool:
                if process.idle and waiting:
                    index = waiting.popleft()
                    process.give(index, jobs[index], timeout_s)
            for place, event in self._events():
                process = self._pool[place]
                index = process.index
                if isinstance(event, Verdict):
                    process.index = None
                    verdicts[index] = event
                    left -= 1
                    continue
                process.kill()
                if index is None:
                    raise FieldError(
                        _FIELD,
                        self._count,
                        problem=f"a verifier process {event} before it was ready; "
                        "standard error has its traceback",
                        remedy="mend the import of the task there, or use 0 workers",
                    )
                self._pool[place] = _Process(self._task, self._memory_mb)
                deaths[index] += 1
                if event != _LATE and deaths[index] < 2:
                    waiting.appendleft(index)
                    continue
                limit = f" of {timeout_s:g} s" if event == _LATE else ""
                verdicts[index] = no_verdict(f"the verifier {event}{limit}")
                left -= 1
        return verdicts

    def _events(self):
        """Wait for events and yield pairs of a process's place and its event.

        An event is a verdict, or a text that says how the process ended.
        """
        active = [p for p in self._pool if not p.idle]
        soonest = min(process.deadline for process in active)
        limit = None if soonest == math.inf else max(0, soonest - time.monotonic())
        ready = wait([process.pipe for process in active], limit)
        now = time.monotonic()
        for place, process in enumerate(self._pool):
            if process.idle:
                continue
            if process.pipe in ready:
                event = process.read()
                if event is not None:
                    yield place, event
            elif now >= process.deadline:
                yield place, _LATE


_LATE = "exceeded its limit"


def unpicklable(count: int, error: Exception) -> FieldError:
    """Return the error for a task that cannot be sent to `count` processes."""
    return FieldError(
        _FIELD,
        count,
        problem="the task or its reward does not pickle, so it cannot be sent to a "
        f"process: {type(error).__name__}: {error}",
        remedy="define functions and classes with def and class at the top of a file, "
        "or use 0 workers",
    )


class _Process:
    """A process and its current job."""

    def __init__(self, task: bytes, memory_mb: int | None):
        # Forking a process that runs JAX's threads can deadlock the child.
        context = multiprocessing.get_context("spawn")
        self.pipe, remote = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(task, remote, memory_mb), daemon=True
        )
        # A Ctrl-C reaches all processes of the group, and would end one that is still
        # importing. The signals are therefore blocked while the process starts. The
        # resource tracker unblocks them when it starts, so it is started first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        remote.close()
        self.index: int | None = None
        self.deadline = time.monotonic() + _START_S
        self._ready = False

    @property
    def idle(self) -> bool:
        return self._ready and self.index is None

    def give(self, index: int, job: Job, timeout_s: float | None) -> None:
        self.index = index
        self.deadline = math.inf
        if timeout_s is not None:
            self.deadline = time.monotonic() + timeout_s
        # If the process died while it was idle, the next read reports it.
        with contextlib.suppress(OSError):
            self.pipe.send((job, timeout_s))

    def read(self) -> Verdict | str | None:
        """Return a verdict, a text on how the process ended, or None if it is ready."""
        try:
            message = self.pipe.recv()
        except Exception:  # the pipe was closed, or a message is incomplete
            self._process.join(1.0)
            return f"died (exit code {self._process.exitcode})"
        if self._ready:
            return message
        self._ready = True
        return None

    def kill(self) -> None:
        self.pipe.close()
        if self._ready:  # by now it leads its own process group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def _serve(task: bytes, pipe: Connection, memory_mb: int | None) -> None:
    """Judge the jobs that arrive on the pipe until its other end is closed."""
    for number in _FOR_THE_TRAINER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
    environment = environment_of(pickle.loads(task))
    confine(None if memory_mb is None else memory_mb << 20)
    # The process has its own session now, so a verifier may use SIGTERM to end
    # processes that it started.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipe.send("ready")
    while True:
        try:
            job, timeout_s = pipe.recv()
        except EOFError:
            return
        # The trainer kills a process that exceeds the limit. If the trainer is gone, an
        # alarm does; its default action also ends a loop in C.
        _alarm(0 if timeout_s is None else timeout_s + 5)
        verdict = judge(environment, *job)
        _alarm(0)
        sweep()
        pipe.send(verdict)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


_pools: OrderedDict[tuple[int, int, int | None], tuple[Task, VerifierProcesses]] = (
    OrderedDict()
)


def judge_all(
    task: Task | Environment,
    jobs: Sequence[Job],
    workers: int,
    timeout_s: float | None,
    memory_mb: int | None,
) -> list[Verdict]:
    """Judge completions in shared processes, or in this process with 0 workers.

    Args:
      task: the task or environment that judges.
      jobs: pairs of a problem and a completion.
      workers: most processes.
      timeout_s: see `verification.verify_all`.
      memory_mb: see `verification.verify_all`.

    Returns:
      Verdicts in the order of the jobs.

    Raises:
      FieldError: see `VerifierProcesses`.
    """
    if workers and jobs:
        return _shared(task, workers, memory_mb).judge_all(jobs, timeout_s)
    environment = environment_of(task)
    return [judge(environment, *job) for job in jobs]


def _shared(
    task: Task | Environment, count: int, memory_mb: int | None
) -> VerifierProcesses:
    """Return the processes of a task, which are shared between calls."""
    key = (id(task), count, memory_mb)
    if key not in _pools:
        # The task is kept alive with its processes, so that no other gets its id.
        _pools[key] = (task, VerifierProcesses(task, count, memory_mb))
        while len(_pools) > _KEPT:
            _pools.popitem(last=False)[1][1].close()
    _pools.move_to_end(key)
    return _pools[key][1]


@atexit.register
def close_shared() -> None:
    """End all shared processes."""
    while _pools:
        _pools.popitem()[1][1].close()
