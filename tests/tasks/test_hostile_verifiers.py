"""Verifiers that mean harm have stated outcomes, and honest ones do not notice."""

import dataclasses
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxrl_surrogate.tasks import Problem, Verdict, processes, verify_all

MARKS = "hostile-verifier-child"
LIMIT = 6  # seconds: honest ones take none, but the machine may be busy


def _sleep_in_a_child(nested=False):
    """A process that would outlive everything, told by its command line."""
    if os.fork() == 0:
        if nested:
            os.fork()
        os.execv(
            sys.executable,
            [sys.executable, "-c", f"'{MARKS}'; import time; time.sleep(300)"],
        )


@dataclasses.dataclass(frozen=True)
class Hostile:
    """Does what the completion says; a number is an honest one."""

    name: str = "hostile"
    train: tuple = ()
    test: tuple = ()

    def verify(self, problem, completion):
        if completion == "memory":
            return Verdict(float(len(bytearray(10 << 30))))
        if completion == "memory bit by bit":
            kept = []
            while True:
                kept.append(bytearray(64 << 20))
        if completion == "power":
            return Verdict(float(9**9**9 > 0))
        if completion == "loop":
            while True:
                pass
        if completion == "deep":
            return self.verify(problem, completion)
        if completion == "deep in C":
            value = []
            for _ in range(10**6):
                value = [value]
            return Verdict(float(len(repr(value))))
        if completion == "forks":
            for _ in range(20):
                _sleep_in_a_child()
            while True:
                time.sleep(1)
        if completion == "forks and leaves":
            for _ in range(5):
                _sleep_in_a_child(nested=True)
            return Verdict(1.0)
        if completion == "binary":
            for _ in range(100):
                os.write(1, os.urandom(1 << 16))
                os.write(2, os.urandom(1 << 16))
            raise ValueError("\x00\x1b[2J\xff")
        if completion == "file":
            path = Path(os.environ["HOSTILE_FILE"])
            path.write_bytes(bytes(100 << 20))
        if completion == "raise":
            raise RuntimeError("no such luck")
        return Verdict(float(completion))


HOSTILE = [
    "memory", "memory bit by bit", "power", "loop", "deep", "deep in C", "forks",
    "forks and leaves", "binary", "file", "raise",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_processes_left(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTILE_FILE", str(tmp_path / "large"))
    yield
    processes.close_shared()


def _alive(patience=10.0):
    """Children of hostile verifiers that run, and have not ended when patience has.

    A process that was killed is gone when the kernel comes to it; those of these tests
    never end by themselves.
    """
    deadline = time.monotonic() + patience
    while (found := _running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _running():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if MARKS.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.multiprocess
@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_the_whole_suite_beside_honest_completions(capfd, tmp_path):
    texts = [t for i, hostile in enumerate(HOSTILE) for t in (str(i / 16), hostile)]
    outcomes = []
    for _ in range(2):
        rewards, mask, notes = verify_all(
            Hostile(),
            [Problem("", 0)],
            [texts],
            workers=2,
            timeout_s=LIMIT,
            memory_mb=256,
        )
        np.testing.assert_array_equal(rewards[0, ::2], np.arange(len(HOSTILE)) / 16)
        assert mask[0, ::2].all()
        by_name = dict(zip(HOSTILE, mask[0, 1::2].tolist(), strict=True))
        # It left processes behind, which were ended, and gave a verdict of its own.
        assert by_name.pop("forks and leaves")
        assert not any(by_name.values()), by_name
        assert not _alive()
        said = Counter(notes[notes != ""])
        outcomes.append((rewards.tobytes(), mask.tobytes(), said))
        processes.close_shared()
    assert outcomes[0] == outcomes[1]
    said = outcomes[0][2]
    assert (
        said.pop(f"the verifier exceeded its limit of {LIMIT} s") >= 2
    )  # loop, forks, power
    reasons = "\n".join(said)
    for reason in ("MemoryError", "RecursionError", "OSError", "RuntimeError: no such"):
        assert reason in reasons, said
    # Nothing that it printed reached the terminal.
    out, err = capfd.readouterr()
    assert len(out) + len(err) < 10_000
    assert not (tmp_path / "large").exists() or (
        (tmp_path / "large").stat().st_size <= 64 << 20
    )
