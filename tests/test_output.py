"""A reader that closes standard output, as `| head` does; Ctrl-C while it imports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl_surrogate import output

ROOT = Path(__file__).parents[1]


def _start(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "jaxrl_surrogate", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "words",
    [
        ["objective", "rloo"],
        ["objective", "--help"],
        ["train", "--help"],
        ["runs", str(ROOT)],
        ["--version"],
        [],
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_report_without_a_reader_ends_quietly(words, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    process = _start(*words, stdout=writing)
    os.close(writing)
    said = process.communicate(timeout=120)[1]
    # Training would go on, and its help has been given.
    assert (process.returncode, said) == (0 if words[:1] == ["train"] else 141, "")


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("delay_s", [0.2, 0.5, 1.0, 2.0])
def test_ctrl_c_while_it_starts_prints_no_traceback(delay_s):
    process = _start("objective", "rloo", "--group-size=64", stdout=subprocess.PIPE)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""


def _closed(buffering=-1):
    """A text stream that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", buffering)


@pytest.mark.parametrize("buffering", [-1, 1])
def test_who_goes_on_goes_on(monkeypatch, buffering):
    with _closed(buffering) as out, _closed(buffering) as error:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", error)
        with output.closable(go_on=True):
            for _ in range(3):
                print("x" * 100_000)
                print("y" * 100_000, file=sys.stderr, flush=True)
        assert (sys.stdout, sys.stderr) == (out, error)


@pytest.mark.parametrize("buffering", [-1, 1])
def test_who_only_prints_ends(monkeypatch, buffering):
    with _closed(buffering) as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as ended, output.closable(go_on=False):
            print("x")
        assert ended.value.code == 141 and sys.stdout is out


def test_other_failures_of_a_report_are_said(monkeypatch):
    """A full disk, of which `/dev/full` is the smallest."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with output.closable(go_on=False):
            print("x")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with output.closable(go_on=True):
            print("x")
