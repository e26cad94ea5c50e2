"""What checkpointing costs: `python -m benchmarks.checkpoint [--rounds 3]`.

The quickstart's job by two policies, in processes of their own, one after the other in
turns: as it comes (every rollout and every tenth state are stored, with digests), and
storing nothing but the last state. A step's time is that between two rollouts beginning
(events.jsonl), so that everything in between counts; medians and means over steps.
Memory is the largest resident set of the process.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import print_environment

ROOT = Path(__file__).parents[1]
JOB = ["--eval.prompts=0", "--sft.steps=20", "--log.tensorboard=false"]
POLICIES = {
    "default": [],
    "states alone": ["--checkpoint.rollouts=false"],
    "nothing": ["--checkpoint.rollouts=false", "--checkpoint.every=100000"],
}
_WARM = 5  # steps in which programs are compiled


def measure(words: list[str], steps: int, directory: Path) -> tuple[list[float], float]:
    """Seconds of each step of one run, and the largest resident set in MiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxrl_surrogate", "train",
         str(ROOT / "configs" / "quickstart.yaml"), f"--run_dir={directory}",
         f"--train.steps={steps}", *JOB, *words],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"training ended with status {status}")
    lines = (directory / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    began = [event["time"] for event in events if event["event"] == "rollout"]
    times = [later - now for now, later in itertools.pairwise(began)]
    return times[_WARM:], usage.ru_maxrss / 1024


def main() -> None:
    """Print a line for each policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    print_environment([])
    times: dict[str, list[float]] = {name: [] for name in POLICIES}
    memory: dict[str, list[float]] = {name: [] for name in POLICIES}
    for turn in range(args.rounds):
        for name, words in POLICIES.items():
            with tempfile.TemporaryDirectory() as directory:
                seconds, peak = measure(words, args.steps, Path(directory) / "run")
            times[name] += seconds
            memory[name].append(peak)
            print(
                f"round {turn + 1}, {name}: {statistics.median(seconds):.3f} s a step"
            )
    base = times["nothing"]
    print(f"\n{'policy':14} {'median':>8} {'mean':>8} {'cost':>7} {'peak memory':>12}")
    for name, seconds in times.items():
        median, mean = statistics.median(seconds), statistics.fmean(seconds)
        cost = mean / statistics.fmean(base) - 1
        peak = statistics.median(memory[name])
        print(f"{name:14} {median:6.3f} s {mean:6.3f} s {cost:+7.1%} {peak:8.0f} MiB")


if __name__ == "__main__":
    main()
