"""The lock of a run directory, with real processes."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from jaxrl_surrogate.storage.lock import RunLock, holder
from jaxrl_surrogate.storage.stops import RunInUse

HOLDER = """
import sys, time
from pathlib import Path
from jaxrl_surrogate.storage.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    with process:
        yield process
        process.kill()


@pytest.mark.multiprocess
def test_another_process_is_refused_and_named(tmp_path, other):
    with pytest.raises(RunInUse) as refused, RunLock(tmp_path / "run"):
        pass
    who = f"process {other.pid} on {socket.gethostname()}"
    assert f"run_dir='{tmp_path / 'run'}': in use by {who}" in str(refused.value)
    assert holder(tmp_path / "run") == who


@pytest.mark.multiprocess
def test_kill_9_leaves_nothing_to_clean_up(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert holder(tmp_path / "run") is None
    with RunLock(tmp_path / "run"):
        assert holder(tmp_path / "run").startswith(f"process {os.getpid()} on ")
    assert holder(tmp_path / "run") is None
    assert holder(tmp_path / "no run") is None


def test_the_same_process_is_refused_too(tmp_path):
    with RunLock(tmp_path), pytest.raises(RunInUse), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):  # given back, though another was refused meanwhile
        pass
