"""Starts the program by fork, with everything imported: seconds less each time.

    python -m tests.zygote      reads requests, writes answers, a line of JSON each

    {"argv", "env", "stdout", "stderr", "limits"}  ->  {"pid"}
    {"poll": pid}                                  ->  {"status"}, null while it runs

No backend of JAX is started here, so a child is as one that was executed: it has its
own devices, is killed alone, and ends through the interpreter's own finalisation.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

# All that the program imports on its way, so that a child need not.
import tokenizers  # noqa: F401

from jaxrl_surrogate import assembly, cli  # noqa: F401
from jaxrl_surrogate.__main__ import program
from jaxrl_surrogate.commands import replay, reproduce, runs  # noqa: F401
from jaxrl_surrogate.loop import loop  # noqa: F401

ROOT = Path(__file__).parents[1]


class Zygote:
    """The other side: starts programs and learns how they ended."""

    def __init__(self, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv, stdout, stderr, env=None, file_bytes=None):
        """Start `jaxrl ARGV`; returns its process id."""
        request = {"argv": argv, "stdout": str(stdout), "stderr": str(stderr)}
        request |= {"env": env or {}, "file_bytes": file_bytes}
        return self._ask(request)["pid"]

    def poll(self, pid):
        """The exit status, negative for a signal; None while it runs."""
        return self._ask({"poll": pid})["status"]

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote is gone; standard error says why")
        return json.loads(answer)


def _serve():
    """Answer until the input ends; returns in the child, with its request."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if pid == 0:
                return request
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    return None


def _become(request):
    """Streams, limits and words of the program that was asked for."""
    for stream, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        if name == "closed":  # a pipe that nobody reads
            reading, file = os.pipe()
            os.close(reading)
        else:
            file = os.open(name, flags, 0o644)
        os.dup2(file, stream)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.environ.update(request["env"])
    if request["file_bytes"] is not None:
        limit = request["file_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["jaxrl", *request["argv"]]


if __name__ == "__main__":
    assert threading.active_count() == 1, threading.enumerate()
    request = _serve()
    if request is not None:
        _become(request)
        program()
