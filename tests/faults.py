"""A training run killed at random moments, again and again: `python -m tests.faults`.

    python -m tests.faults --kills 50 [--steps 40] [--seed 1]
    python -m tests.faults --walk 200 [--seed 1]     two or three faults at once

Two runs of the small job of the tests. One is left alone. The other is killed with
SIGKILL, while it starts, at a random moment or while a checkpoint is being written,
and started again until it has been killed often enough and is then let finish.
Checked: every digest of every step is the same; no rollout is sampled after it was on
disk. The compiled programs are cached on disk, so that starting again is quick.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = [
    "--model.preset=nano",
    "--task.options={min_digits: 1, max_digits: 1}",
    "--sft.steps=40",
    "--sft.optimizer.warmup_steps=0",
    "--sft.optimizer.learning_rate=0.01",
    "--sft.batch_size=32",
    "--rollout.prompts_per_step=8",
    "--rollout.group_size=4",
    "--eval.prompts=0",
    "--checkpoint.every=2",
    "--log.tensorboard=false",
]
_IN_FLIGHT = "*.orbax-checkpoint-tmp*"  # how Orbax names what it is writing


@dataclasses.dataclass
class Report:
    """What the kills did."""

    kills: int = 0
    inside_writes: int = 0  # while a checkpoint was in flight
    at_start: int = 0  # before the first step of a process
    lost_rollouts: int = 0  # sampled again, as they were not on disk yet
    repeated_rollouts: int = 0  # sampled again though they were: must be 0
    different: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing durable was lost and no bit differs."""
        return not self.different and not self.repeated_rollouts


def survive(kills: int, steps: int, seed: int, directory: Path) -> Report:
    """Run the job undisturbed and killed `kills` times; compare the two."""
    began, report, dice = time.monotonic(), Report(), random.Random(seed)
    cache = directory / "compiled"
    whole, killed = directory / "whole", directory / "killed"
    _finish(whole, steps, cache)
    while report.kills < kills and not _finished(killed, steps):
        durable = _durable(killed)
        seen = len(_lines(killed / "events.jsonl"))
        process = _start(killed, steps, cache)
        _wait(process, killed, seen, dice)
        report.inside_writes += bool(list(killed.glob(f"checkpoints/*/{_IN_FLIGHT}")))
        if process.poll() is None:
            process.kill()
            report.kills += 1
        process.wait()
        _count(report, _lines(killed / "events.jsonl")[seen:], durable)
    durable = _durable(killed)
    seen = len(_lines(killed / "events.jsonl"))
    _finish(killed, steps, cache)
    _count(report, _lines(killed / "events.jsonl")[seen:], durable, last=True)
    report.different = _differences(whole, killed)
    report.seconds = time.monotonic() - began
    return report


def _count(report, events, durable, last=False):
    """Rollouts that one process sampled, against what was on disk when it started."""
    phases = [event for event in events if event["event"] == "rollout"]
    if not phases and not last:
        report.at_start += 1
    for event in phases:
        report.repeated_rollouts += event["step"] in durable["steps"]
        report.lost_rollouts += event["step"] in durable["begun"]


def _durable(directory):
    """Steps whose rollout need not be sampled again, and steps that were begun."""
    stores = directory / "checkpoints"
    updates = _numbers(stores / "update")
    done = set(range(max(updates, default=0) + 1)) | set(_numbers(stores / "rollout"))
    begun = {e["step"] for e in _lines(directory / "events.jsonl") if e["step"] > 0}
    return {"steps": done, "begun": begun - done}


def _wait(process, directory, seen, dice):
    """Until the moment to kill: while starting, after some phases, inside a write."""
    if dice.random() < 0.2:
        limit = time.monotonic() + dice.uniform(0.1, 4.0)
        while process.poll() is None and time.monotonic() < limit:
            time.sleep(0.001)
        return
    phases = dice.randint(1, 9)
    while process.poll() is None:
        if len(_lines(directory / "events.jsonl")) - seen >= phases:
            break
        time.sleep(0.002)
    if dice.random() < 0.5:
        time.sleep(dice.uniform(0.0, 0.1))
        return
    while process.poll() is None:
        if any(directory.glob(f"checkpoints/*/{_IN_FLIGHT}")):
            return


def _differences(whole, killed):
    """Steps whose digests differ, and what of them."""
    out = []
    one, other = (
        {row["step"]: row for row in _lines(run / "digests.jsonl")}
        for run in (whole, killed)
    )
    for step in sorted(one.keys() | other.keys()):
        if one.get(step) != other.get(step):
            out.append(f"step {step}")
    return out


def _command(directory, steps):
    return [
        sys.executable, "-m", "jaxrl_surrogate", "train",
        str(ROOT / "configs" / "quickstart.yaml"), f"--run_dir={directory}",
        *SMALL, f"--train.steps={steps}",
    ]  # fmt: skip


def environment(cache):
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _start(directory, steps, cache):
    return subprocess.Popen(
        _command(directory, steps),
        env=environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _finish(directory, steps, cache):
    done = subprocess.run(
        _command(directory, steps),
        env=environment(cache),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"training ended with {done.returncode}:\n{done.stderr}")


def _finished(directory, steps):
    return steps in _numbers(directory / "checkpoints" / "update")


def _numbers(directory):
    return [int(p.name) for p in directory.glob("*") if p.name.isdecimal()]


def _lines(path):
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # cut by a kill
    return rows


def _walk(args, seed):
    """Walk, print the table and every case that went wrong."""
    from tests import fault_walk

    def say(case):
        told = f"case {case.number}: {' + '.join(case.kinds)}: {case.outcome}"
        if not case.good:
            told += "".join(f"\n    {line}" for line in case.story)
            told += (
                f"\n    again: --walk {args.walk} --seed {seed} --only {case.number}"
            )
        print(told, flush=True)

    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = args.keep
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(exist_ok=True)
        cases = fault_walk.walk(
            args.walk, seed, directory, args.workers, args.only, say
        )
    print("\n".join(fault_walk.table(cases)))
    wrong = [case.number for case in cases if not case.good]
    print(f"{len(cases)} cases in {time.monotonic() - began:.0f} s; wrong: {wrong}")
    return 1 if wrong else 0


def main() -> int:
    """Print the report; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=0, help="default 4 a kill")
    parser.add_argument("--walk", type=int, metavar="N", help="cases; see fault_walk")
    parser.add_argument("--only", type=int, metavar="I", help="this case of the walk")
    parser.add_argument("--workers", type=int, default=2, help="cases at once")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, help="a new folder that is left")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    if args.walk:
        return _walk(args, seed)
    with tempfile.TemporaryDirectory() as directory:
        steps = args.steps or 4 * args.kills + 4
        report = survive(args.kills, steps, seed, Path(directory))
    print(
        f"{report.kills} kills in {report.seconds:.0f} s: {report.inside_writes} while "
        f"a checkpoint was written, {report.at_start} before a process had sampled\n"
        f"rollouts sampled again, not yet on disk: {report.lost_rollouts}\n"
        f"rollouts sampled again after they were on disk: {report.repeated_rollouts}\n"
        f"digests that differ: {', '.join(report.different) or 'none'}"
    )
    if report.kills < args.kills:
        print(f"the run ended after {report.kills} kills; take more --steps")
        return 1
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
