"""What can happen to a run: files damaged, processes disturbed, other settings."""

import contextlib
import os
import shutil
import signal
import time

# Files of a run directory by what they hold.
TARGETS = {
    "state": ("checkpoints/update/[0-9]*/**/*", "checkpoints/start/update/0/**/*"),
    "rollout": ("checkpoints/rollout/[0-9]*/**/*",),
    "manifest": ("checkpoints/**/*.files.json",),
    "journal": ("checkpoints/rewards/*.jsonl",),
    "log": ("*.jsonl",),
    "config": ("config.yaml",),
    "tokenizer": ("tokenizer.json*",),
}
DISTURBANCES = ("kill", "signal", "full disk", "settings", "mesh", "closed output")
KINDS = (*TARGETS, *DISTURBANCES, "reader")

# Settings that decide how a run is computed and stored, and none of its bits.
OPERATIONAL = (
    "--task.verify_workers=1",
    "--task.verify_timeout_s=5",
    "--log.every=1",
    "--log.completions_every=1",
    "--log.digests_every=4",
    "--log.tensorboard=true",
    "--checkpoint.every=1",
    "--checkpoint.every=2",
    "--checkpoint.every=7",
    "--checkpoint.every_minutes=0.0005",
    "--checkpoint.keep_last=1",
    "--checkpoint.keep_every=2",
    "--checkpoint.keep_best=1 --checkpoint.best_metric=reward",
    "--checkpoint.rollouts=false",
    "--train.nonfinite_limit=3",
)
MESHES = (
    (2, ["--mesh.data=2"]),
    (2, ["--mesh.data=1", "--mesh.fsdp=2"]),
    (4, ["--mesh.data=2", "--mesh.fsdp=2"]),
)
READERS = (
    ["runs", "{run}"],
    ["objective", "--replay={run}"],
    ["verify", "{run}"],
    ["eval", "{run}", "--eval.prompts=8", "--eval.samples=4"],
    ["sample", "{run}", "--eval.prompts=8", "--eval.samples=4"],
)


def damage(directory, target, dice):
    """Damage up to three files; returns each with what was done to it."""
    files = sorted(
        path
        for pattern in TARGETS[target]
        for path in directory.glob(pattern)
        if path.is_file()
    )
    done = []
    for path in dice.sample(files, min(len(files), dice.randint(1, 3))):
        how = dice.choice((_delete, _truncate, _flip, _empty, _overwrite))
        how(path, dice)
        done.append(f"{how.__name__[1:]} {path.relative_to(directory)}")
    return done


def _delete(path, dice):
    path.unlink()


def _truncate(path, dice):
    os.truncate(path, dice.randrange(path.stat().st_size + 1))


def _flip(path, dice):
    content = bytearray(path.read_bytes())
    if content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)


def _empty(path, dice):
    os.truncate(path, 0)


def _overwrite(path, dice):
    """A stretch of other bytes, as a block of a medium that was lost."""
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content) + 1)
    length = dice.randint(1, 64)
    content[start : start + length] = dice.randbytes(len(content[start:][:length]))
    path.write_bytes(content)


class Disk:
    """A directory that is a small file system of its own, where that is allowed."""

    def __init__(self, place):
        place.mkdir(parents=True)
        self.place = place
        self.mounted = not os.system(
            f"mount -t tmpfs -o size=64m tmpfs {place} 2>/dev/null"
        )

    def fill(self, left):
        """Leave so many bytes free."""
        free = shutil.disk_usage(self.place).free
        # Who writes at the same time may take the rest.
        with (
            contextlib.suppress(OSError),
            (self.place / "filler").open("ab") as file,
        ):
            file.write(bytes(max(0, free - left)))

    def make_room(self):
        """Take away what filled it."""
        (self.place / "filler").unlink(missing_ok=True)

    def close(self):
        if self.mounted:
            os.system(f"umount -l {self.place}")
            self.mounted = False


def moment(dice, directory, usual_s):
    """Whether the time has come, asked again and again: any time, or inside a write."""
    if dice.random() < 0.4:
        pause = dice.choice((0.0, 0.0, dice.uniform(0, 0.05)))
        skip = dice.randrange(12)  # as many writes are left alone
        seen = set()

        def inside():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                seen.update(directory.glob("checkpoints/**/*.orbax-checkpoint-tmp*"))
            if len(seen) > skip:
                time.sleep(pause)
            return len(seen) > skip

        return inside
    end = time.monotonic() + dice.uniform(0, usual_s)
    return lambda: time.monotonic() > end


def strike(dice, kind, pid):
    """Kill a process, or ask it to stop once or twice; returns what was done."""
    if kind == "kill":
        os.kill(pid, signal.SIGKILL)
        return "SIGKILL"
    numbers = dice.choice(
        ([signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGINT],
         [signal.SIGINT, signal.SIGTERM], [signal.SIGINT, signal.SIGINT])
    )  # fmt: skip
    for place, number in enumerate(numbers):
        if place:
            time.sleep(dice.choice((0.0, dice.uniform(0, 0.3))))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return " then ".join(number.name for number in numbers)
