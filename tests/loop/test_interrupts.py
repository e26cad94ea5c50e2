"""A request to stop, and who cannot wait."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrl_surrogate.loop.interrupts import StopRequest

ROOT = Path(__file__).parents[2]
# The main thread computes where no Python handler can run, as in a wait for a device.
BUSY = """
import hashlib, sys
from jaxrl_surrogate.loop.interrupts import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha512", b"", b"", int(sys.argv[1]))
    print(stop.agreed(), flush=True)
"""


def _busy(rounds):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(rounds)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGTERM),
    ],
)
def test_a_second_signal_ends_a_main_thread_that_is_busy(numbers):
    process = _busy(10**9)
    process.send_signal(numbers[0])
    said = process.stderr.readline() + process.stderr.readline()
    assert said == f"\n{numbers[0].name}: saving at the end of this phase; once more " \
        "stops now\n"  # fmt: skip
    process.send_signal(numbers[1])
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


@pytest.mark.multiprocess
def test_one_signal_lets_it_come_to_an_end():
    process = _busy(10**5)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=60)
    assert out == "True\n" and said.startswith("\nSIGTERM: ")
    assert process.returncode == 0


def test_handlers_are_put_back(capsys):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert not stop.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed() and stop.received == "SIGTERM"
        deadline = time.monotonic() + 30
        while not capsys.readouterr().err and time.monotonic() < deadline:
            time.sleep(0.001)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
