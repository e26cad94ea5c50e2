"""The record of a run: metrics and completions on disk, progress on the terminal."""

import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

_PACKAGES = ("jaxrl_surrogate", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
_SHOWN = ("reward", "pass@1", "loss", "grad_norm", "signal_share", "entropy", "length")


class RunLog:
    """Writes into a run directory and to the terminal.

    metrics.jsonl      one object a step: {"step": 1, "reward": ..., ...}
    warm_start.jsonl   the same for supervised steps
    completions.jsonl  sampled completions with their rewards
    environment.json   versions, devices, flags
    tensorboard/       the metrics again, where tensorboardX is installed
    """

    def __init__(
        self,
        directory: Path,
        total_steps: int,
        *,
        every: int = 1,
        tensorboard: bool = True,
        console: Console | None = None,
    ):
        """Open the log of a run, new or old.

        Args:
          directory: the run directory; made if it is not there.
          total_steps: for the progress display.
          every: print every so many steps.
          tensorboard: also write TensorBoard events, if the library is there.
          console: default the terminal.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._every, self._total = directory, every, total_steps
        self.console = console or Console(soft_wrap=True)
        self._progress: Progress | None = None
        self._writer = _tensorboard(directory) if tensorboard else None
        (directory / "environment.json").write_text(
            json.dumps(environment(), indent=2) + "\n"
        )

    def __enter__(self) -> "RunLog":
        """Start the live display when on a terminal."""
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[latest]}"),
                console=self.console,
            )
            self._progress.start()
            self._bar = self._progress.add_task(
                "train", total=self._total, latest="starting"
            )
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the display and close files."""
        if self._progress is not None:
            self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def resume(self, step: int) -> None:
        """Drop what was logged after `step`: those steps are run again."""
        for name in ("metrics.jsonl", "completions.jsonl"):
            path = self._directory / name
            if not path.exists():
                continue
            kept = [line for line in _rows(path) if line["step"] <= step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
            temporary.replace(path)
        if step:
            self.note(f"resumed after step {step}")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record the metrics of a step. Values are finite floats or NaN."""
        self._append("metrics.jsonl", {"step": step, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        line = _line(step, self._total, values)
        if self._progress is not None:
            self._progress.update(self._bar, completed=step, latest=line)
        elif step % self._every == 0 or step in (1, self._total):
            self.console.print(line, highlight=False)

    def supervised(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Record a supervised step of the warm start."""
        self._append("warm_start.jsonl", {"step": step, **values})
        if step % max(1, total // 10) == 0 or step == total:
            self.note(f"warm start {step}/{total}  loss {values['loss']:.4f}")

    def completions(self, step: int, rows: list[dict]) -> None:
        """Record sampled completions and, on a terminal, show them."""
        for row in rows:
            self._append("completions.jsonl", {"step": step, **row})
        if self._progress is not None:
            table = Table("prompt", "completion", "reward", title=f"step {step}")
            for row in rows:
                shown = f"{row['reward']:g}" if row["verified"] else "none"
                table.add_row(repr(row["prompt"]), repr(row["completion"]), shown)
            self.console.print(table)

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def _append(self, name: str, row: dict) -> None:
        # One write of one line: a reader never sees half of it unless we are killed,
        # and `resume` drops such a half line.
        with open(self._directory / name, "a") as file:
            file.write(json.dumps(row) + "\n")


def read_metrics(directory: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl."""
    return _rows(directory / "metrics.jsonl")


def environment() -> dict:
    """What a run depends on besides its config."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "command": sys.argv,
    }


def _rows(path: Path) -> list[dict]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the line that a kill cut short
    return rows


def _line(step: int, total: int, values: Mapping[str, float]) -> str:
    parts = [f"step {step}/{total}"]
    parts += [f"{name} {values[name]:.3f}" for name in _SHOWN if name in values]
    parts += [
        f"{name} {value:.3f}"
        for name, value in values.items()
        if name.startswith("eval/") and not name.endswith(("_low", "_high"))
    ]
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:.0f} tok/s")
    if "seconds" in values:
        parts.append(f"{values['seconds']:.2f} s")
    return "  ".join(parts)


def _tensorboard(directory: Path):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory / "tensorboard"))
