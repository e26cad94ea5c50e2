"""Signals that reach the whole group of processes, as Ctrl-C on a terminal does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The trainer notes signals and goes on to the end of its phase; so must the workers
# that are still importing what they judge with.
TRAINER = """
import os, signal, sys, threading
from jaxrl_surrogate import tasks
from jaxrl_surrogate.tasks.processes import VerifierProcesses

def send():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(0, number)

if __name__ == "__main__":
    noted = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: noted.append(number))
    task = tasks.get("arithmetic")
    processes = VerifierProcesses(task, 2)
    timer = threading.Timer(float(sys.argv[1]), send)
    timer.start()
    problem = task.train[0]
    jobs = [(problem, problem.completion), (problem, "no")] * 4
    verdicts = processes.judge_all(jobs, 60)
    timer.join()
    print([v.reward for v in verdicts], sorted(noted))
    processes.close()
"""


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.3])
def test_workers_that_start_leave_signals_to_the_trainer(tmp_path, delay_s):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    done = subprocess.run(
        [sys.executable, str(script), str(delay_s)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=200,
    )
    assert done.stderr == ""
    assert done.stdout == f"{[1.0, 0.0] * 4} [2, 15]\n"
