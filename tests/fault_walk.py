"""A random walk over faults: `python -m tests.faults --walk N`.

Each case takes a run as a kill at some moment left it, does two or three things to it
at once (`fault_kinds`), and starts it until it has finished. Where it refuses to start,
it must name the file and the way out, and the way out is taken. In the end every digest
on record and every array of the last state must be those of the run that nothing
happened to.

On another mesh sums are rounded otherwise, and a token may come out otherwise: of a run
that was on one for a while, it is asked that it finishes, that what was computed before
stays as it was, and that sampler and trainer agree to rounding in every step after.
"""

import collections
import dataclasses
import hashlib
import json
import os
import queue
import random
import re
import shutil
import signal
import threading
import time
import traceback
from pathlib import Path

from jaxrl_surrogate.storage.json_lines import read_rows
from tests import fault_kinds as kinds
from tests.faults import ROOT, SMALL, environment
from tests.zygote import Zygote

STEPS = 10
JOB = [
    "train", str(ROOT / "configs" / "quickstart.yaml"), *SMALL,
    "--checkpoint.every=3", f"--train.steps={STEPS}", "--task.tokenizer=bpe:260",
    "--eval.prompts=8", "--eval.samples=2", "--eval.every=4",
]  # fmt: skip
_SNAPSHOTS = 16
_ATTEMPTS = 10
_LIMIT_S = 400
_WAYS_OUT = re.compile(r"[Rr]emove (\S+?),? (?:to|and)\b")


@dataclasses.dataclass
class Case:
    """One walk: what was done, and what became of the run."""

    number: int
    kinds: tuple[str, ...]
    story: list[str] = dataclasses.field(default_factory=list)
    refusals: int = 0
    outcome: str = ""  # "same bits", "refused", "near" (another mesh) or what is wrong

    @property
    def good(self):
        return self.outcome in ("same bits", "refused", "near")


class Wrong(Exception):
    """What must not happen."""


class Pool:
    """The run that nothing happened to, and copies of its directory on the way."""

    def __init__(self, directory, zygote, dice):
        self.whole = directory / "whole"
        self.snapshots = []
        began = time.monotonic()
        _finish(zygote, self.whole)  # compiles
        source, began = directory / "source", time.monotonic()
        pid = zygote.start([*JOB, f"--run_dir={source}"], os.devnull, os.devnull)
        total = 1 + 2 * STEPS  # events: the start, a rollout and a verification a step
        for number in sorted(dice.sample(range(2, total + 1), _SNAPSHOTS)):
            while _count(source / "events.jsonl") < number:
                if zygote.poll(pid) is not None:
                    break
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.05))
            if zygote.poll(pid) is not None:
                break
            # As a SIGKILL would leave it: all threads stand still.
            os.kill(pid, signal.SIGSTOP)
            snapshot = directory / f"snapshot-{len(self.snapshots)}"
            shutil.copytree(source, snapshot)
            os.kill(pid, signal.SIGCONT)
            self.snapshots.append(snapshot)
        while zygote.poll(pid) is None:
            time.sleep(0.01)
        self.snapshots.append(self.whole)
        self.usual_s = 1.2 * (time.monotonic() - began)
        self.rows = _digests(self.whole)
        self.arrays = _last_arrays(self.whole)


def walk(number, seed, directory, workers=2, only=None, on_case=lambda case: None):
    """Walk `number` cases, or the one called `only`; returns them."""
    env = environment(directory / "compiled")
    zygote = Zygote(env)
    pool = Pool(directory, zygote, random.Random(seed))
    zygote.close()
    waiting, done = queue.Queue(), []
    for index in range(number) if only is None else [only]:
        waiting.put(index)

    def work():
        zygote = Zygote(env)
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                break
            case = _walk_one(index, seed, directory, pool, zygote)
            done.append(case)
            on_case(case)
        zygote.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(done, key=lambda case: case.number)


def _walk_one(index, seed, directory, pool, zygote):
    dice = random.Random(f"{seed} {index}")
    case = Case(index, tuple(dice.sample(kinds.KINDS, dice.choice((2, 2, 3)))))
    place = directory / f"case-{index}"
    run, disk = place / "run", None
    snapshot = dice.choice(pool.snapshots)
    case.story.append(f"a copy of {snapshot.name}")
    try:
        if "full disk" in case.kinds:
            disk = kinds.Disk(place)
        shutil.copytree(snapshot, run, dirs_exist_ok=True)
        _Walker(case, dice, run, pool, zygote, disk).go()
    except Wrong as error:
        case.outcome = str(error)
    except Exception:
        case.outcome = f"the walk itself: {traceback.format_exc()}"
    finally:
        if not case.good:
            kept = directory / "wrong" / f"case-{index}"
            kept.parent.mkdir(exist_ok=True)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept, ignore=shutil.ignore_patterns("filler"))
        if disk:
            disk.close()
        shutil.rmtree(place, ignore_errors=True)
    return case


class _Walker:
    """Does to a run what a case says, and sees it to its end."""

    def __init__(self, case, dice, run, pool, zygote, disk):
        self.case, self.dice, self.run, self.pool = case, dice, run, pool
        self.zygote, self.disk = zygote, disk
        self.computed_elsewhere = False

    def go(self):
        for target in kinds.TARGETS:
            if target in self.case.kinds:
                self.case.story += kinds.damage(self.run, target, self.dice)
        if "reader" in self.case.kinds:
            self.read()
        self.before = _digests(self.run)
        strikes = [kind for kind in ("kill", "signal") if kind in self.case.kinds]
        self.dice.shuffle(strikes)
        disturbed = set(self.case.kinds) & {
            "full disk", "settings", "mesh", "closed output"
        }  # fmt: skip
        for attempt in range(_ATTEMPTS):
            strike = strikes.pop() if strikes else None
            status, said = self.attempt(attempt, strike, disturbed)
            disturbed = set()
            if status == 0:
                return self.compare()
            if status in (2, 3):
                self.case.refusals += 1
                if not self.way_out(said):
                    self.case.outcome = "refused"
                    return None
            elif not (strike and status in (130, -2, -9, -15)):
                raise Wrong(f"it ended with {status}: {_last_line(said)}")
        raise Wrong(f"not finished after {_ATTEMPTS} starts")

    def attempt(self, number, strike, disturbed):
        """Start the run once; returns its exit status and what it said."""
        words, env, limit = [*JOB, f"--run_dir={self.run}"], {}, None
        error = self.run.parent / f"said-{number}"
        out = self.run.parent / f"shown-{number}"
        if "settings" in disturbed:
            chosen = self.dice.sample(kinds.OPERATIONAL, self.dice.randint(1, 3))
            words += " ".join(chosen).split()
        if "mesh" in disturbed:
            devices, more = self.dice.choice(kinds.MESHES)
            flag = f"--xla_force_host_platform_device_count={devices}"
            words += more
            env = {"XLA_FLAGS": flag}
            self.computed_elsewhere = True
        if "closed output" in disturbed:
            out = "closed"
        fills = _never
        if "full disk" in disturbed:
            left = int(self.dice.choice((0, 5e3, 5e4, 1e6, 5e6, 7e6)))
            if self.disk.mounted and self.dice.random() < 0.8:
                fills = kinds.moment(self.dice, self.run, 0.7 * self.pool.usual_s)
            else:
                limit = self.dice.choice((3000, 10_000, 30_000, 100_000, 300_000))
        given = words[len(JOB) + 1 :]
        self.case.story.append(f"started {' '.join(given)} {env} {limit or ''}")
        strikes = kinds.moment(self.dice, self.run, self.pool.usual_s)
        pid = self.zygote.start(words, out, error, env, limit)
        end = time.monotonic() + _LIMIT_S
        while (status := self.zygote.poll(pid)) is None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                while self.zygote.poll(pid) is None:
                    time.sleep(0.01)
                raise Wrong(f"it hangs: {_last_line(_text(error))}")
            if strike and strikes():
                done = kinds.strike(self.dice, strike, pid)
                self.case.story.append(done)
                strikes = _never
            if fills():
                self.disk.fill(left)
                self.case.story.append(f"the disk is filled but for {left}")
                fills = _never
            time.sleep(0.003)
        said = _text(error)
        self.case.story.append(f"ended with {status}")
        _check_no_traceback(said)
        return status, said

    def way_out(self, said):
        """Do what a refusal says, where that is a command; whether there was one."""
        lines = [line for line in said.splitlines() if line.startswith("jaxrl: ")]
        text = "\n".join(lines)
        self.case.story.append(f"refused: {text}")
        if str(self.run) not in text and str(self.run.parent) not in text:
            raise Wrong(f"a refusal that names no file: {text or _last_line(said)}")
        if self.disk and "Make room" in text:
            self.disk.make_room()
            return True
        found = _WAYS_OUT.findall(text)
        for path in map(Path, found):
            if self.run not in path.parents:
                raise Wrong(f"it would have me remove {path}")
            if not path.exists():
                raise Wrong(f"it would have me remove {path}, which is not there")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not found:
            raise Wrong(f"a refusal without a way out: {text}")
        return True

    def read(self):
        """A reader neither changes a file nor ends in a traceback."""
        words = [w.format(run=self.run) for w in self.dice.choice(kinds.READERS)]
        before = _tree(self.run)
        said = self.run.parent / "read"
        pid = self.zygote.start(words, said, said)
        while (status := self.zygote.poll(pid)) is None:
            time.sleep(0.005)
        self.case.story.append(f"{words[0]} ended with {status}")
        _check_no_traceback(_text(said))
        if status not in (0, 1, 2, 3):
            raise Wrong(f"jaxrl {words[0]} ended with {status}")
        if status == 1 and words[0] != "verify":
            raise Wrong(f"jaxrl {words[0]} ended with {status}")
        if _tree(self.run) != before:
            raise Wrong(f"jaxrl {words[0]} changed the run")

    def compare(self):
        """Digests and the last state against the run that nothing happened to."""
        rows, expected = _digests(self.run), self.pool.rows
        lost = any(" digests.jsonl" in told for told in self.case.story)
        if not lost and rows.keys() != expected.keys():
            raise Wrong(f"digests of steps {sorted(expected.keys() ^ rows.keys())}")
        if self.computed_elsewhere:
            return self.compare_elsewhere(rows)
        for step, row in sorted(rows.items()):
            for phase in row.keys() & expected[step].keys():
                if row[phase] != expected[step][phase]:
                    raise Wrong(f"other bits: {phase} of step {step}")
        if _last_arrays(self.run) != self.pool.arrays:
            raise Wrong("other bits: the last state")
        if "log" not in self.case.kinds:
            for name in ("metrics", "groups", "evaluations"):
                if _recorded(self.run, name) != _recorded(self.pool.whole, name):
                    raise Wrong(f"another {name}.jsonl")
        self.case.outcome = "same bits"

    def compare_elsewhere(self, rows):
        """What was computed before stays; what was sampled after is nearly the same."""
        for step in rows.keys() & self.before.keys():
            old, new = self.before[step], rows[step]
            same = all(new[p] == old[p] for p in old.keys() & new.keys())
            resumed = min((s for s in rows if rows[s] != self.before.get(s)), default=0)
            if not same and step < resumed:
                raise Wrong(f"other bits on another mesh: step {step}, done before")
        metrics = [row for row in read_rows(self.run / "metrics.jsonl") if row["step"]]
        if not all(row["sampler_trainer_logprob_diff_max"] < 1e-4 for row in metrics):
            raise Wrong("sampler and trainer differ on another mesh")
        if max(rows, default=0) != STEPS:
            raise Wrong("it did not finish on another mesh")
        self.case.outcome = "near"


def table(cases):
    """Lines that say what became of the cases, by kind of fault."""
    counts = collections.defaultdict(collections.Counter)
    for case in cases:
        for kind in case.kinds:
            outcome = case.outcome if case.good else "WRONG"
            counts[kind].update([outcome, "runs"])
            counts[kind]["refusals"] += case.refusals
    heads = ("runs", "same bits", "near", "refusals", "refused", "WRONG")
    lines = [f"{'fault':<14}" + "".join(f"{head:>11}" for head in heads)]
    for kind in kinds.KINDS:
        numbers = "".join(f"{counts[kind][head]:>11}" for head in heads)
        lines.append(f"{kind:<14}{numbers}")
    return lines


def _finish(zygote, directory):
    said = directory.with_suffix(".said")
    pid = zygote.start([*JOB, f"--run_dir={directory}"], said, said)
    while (status := zygote.poll(pid)) is None:
        time.sleep(0.01)
    if status:
        raise RuntimeError(f"training ended with {status}:\n{_text(said)}")


def _check_no_traceback(said):
    for word in ("Traceback", "Exception ignored", "Fatal Python error"):
        if word in said:
            raise Wrong(f"{word}: {_last_line(said)}")


def _digests(run):
    """Rows that are whole, by step; the seal decides, as for the program's readers."""
    return {row["step"]: row for row in read_rows(run / "digests.jsonl")}


def _recorded(run, name):
    """The rows of a log without what measures time or the process."""
    clock = {"seconds", "seconds_update", "tokens_per_second", "compiles"}
    rows = read_rows(run / f"{name}.jsonl")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def _last_arrays(run):
    path = run / "checkpoints" / "update" / str(STEPS) / "meta" / "metadata"
    return json.loads(path.read_text())["arrays"]


def _tree(directory):
    """Every file with a digest; a reader may lock nothing and leave nothing."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _never():
    return False


def _count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _text(path):
    path = Path(path)
    return path.read_text(errors="replace") if path.exists() else ""


def _last_line(text):
    return (text.strip().splitlines() or [""])[-1][:300]
