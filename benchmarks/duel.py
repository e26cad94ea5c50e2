"""Ours against peers, one process each, asked in turn: one run, one machine, one table.

Each side of each config is a process of its own, so that the most memory it held is
that of this one piece of work; while one side computes, the others wait for a request.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks.timing import format_seconds, print_environment

_PEER = pathlib.Path(__file__).parent / "peers" / "tunix.py"


class Side:
    """A process that answers requests, as `peers/README.md` says."""

    def __init__(self, name: str, command: list[str]):
        self.name = name
        # Shown only where the process fails; `close` ends both.
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, request: str) -> dict:
        """One measurement; RuntimeError, with the process's log, where it fails."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            self.log.seek(0)
            log = "".join(self.log.readlines()[-20:])
            raise RuntimeError(f"{self.name}, {request}: {answer['error']}\n{log}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@dataclasses.dataclass
class Result:
    """What one side did on one config."""

    first: dict  # its first answer
    seconds: list[float]  # of the rounds that count
    peak_rss_gb: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        return self.first["tokens"] / self.median


def duel(
    request: str, commands: dict[str, list[str]], rounds: int
) -> dict[str, Result]:
    """Ask every side in turn, `rounds` times after a warm-up.

    Args:
      request: such as "rollout A".
      commands: the command of each side, by name.
      rounds: that count.
    """
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, command in commands.items():
            sides[name] = Side(name, command)
            stack.callback(sides[name].close)
        answers = {name: [side.ask(request)] for name, side in sides.items()}
        names = list(sides)
        for turn in range(rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                answers[name].append(sides[name].ask(request))
    return {
        name: Result(
            first=given[0],
            seconds=[answer["seconds"] for answer in given[1:]],
            # Of the first answer: ours compiles its parts, once, after that.
            peak_rss_gb=given[0]["peak_rss_gb"],
        )
        for name, given in answers.items()
    }


def add_arguments(parser: argparse.ArgumentParser, configs: str) -> None:
    """Arguments that both benchmarks have."""
    parser.add_argument("--configs", nargs="+", default=configs.split())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peer-python",
        help="interpreter of an environment with Tunix (benchmarks/peers/README.md)",
    )


def commands(args: argparse.Namespace, ours: dict[str, list[str]]) -> dict:
    """The commands of all sides: ours by name and their arguments, and the peer's."""
    out = {
        name: [sys.executable, "-m", "benchmarks.workload", *options]
        for name, options in ours.items()
    }
    if args.peer_python:
        out["tunix"] = [args.peer_python, str(_PEER)]
    return out


def print_results(title: str, gates: dict[str, float], results: dict) -> None:
    """One row a config and side, ratios to the peer where it was asked.

    Args:
      title: of the table.
      gates: ratio to the peer that each config must reach, by config.
      results: config -> side -> `Result`.
    """
    print_environment(["flax", "optax"])
    print(f"\n{title}; medians of interleaved rounds")
    widths = (7, 16, 9, 9, 8, 8, 9, 9, 9, 10)
    head = ("config", "side", "median", "best", "tokens/s", "x peer", "at least")
    head += ("compile", "1st call", "peak GiB")
    print(_row(head, widths), " parts")
    for config, sides in results.items():
        peer = sides.get("tunix")
        for name, result in sides.items():
            ratio = gate = "-"
            if peer is not None and result is not peer:
                ratio = f"{peer.median / result.median:.2f}"
                gate = f"{gates[config]:.2f}" if config in gates else "-"
            compile_seconds = result.first.get("compile_seconds")
            cells = (
                config,
                name,
                format_seconds(result.median),
                format_seconds(min(result.seconds)),
                f"{result.tokens_per_second:.0f}",
                ratio,
                gate,
                format_seconds(compile_seconds) if compile_seconds else "-",
                format_seconds(result.first["first_seconds"]),
                f"{result.peak_rss_gb:.2f}",
            )
            parts = ", ".join(
                f"{part} {format_seconds(seconds)}"
                for part, seconds in result.first.get("parts", {}).items()
            )
            print(_row(cells, widths), f" {parts}", flush=True)


def _row(cells, widths):
    return " ".join(
        f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
