"""The log of a run: metrics and completions on disk, progress on the terminal."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxrl_surrogate import terminal
from jaxrl_surrogate.batch import Batch
from jaxrl_surrogate.storage.json_lines import append_row, keep_rows, read_rows, sealed
from jaxrl_surrogate.telemetry.environment import environment
from jaxrl_surrogate.telemetry.screen import Screen
from jaxrl_surrogate.telemetry.sinks import JSONLSink, MetricSink, OpenSink

# Files with a row per training step. `resume` drops rows of steps that run again.
_STEPS = (
    "metrics.jsonl",
    "completions.jsonl",
    "groups.jsonl",
    "evaluations.jsonl",
    "digests.jsonl",
)
_NOTES = 5  # verifier notes that are printed; there are many if they quote completions
_NAMED = 5  # damaged lines of a file that a message names


class RunLog:
    """Writes the logs in a run directory and shows progress on the terminal.

    metrics.jsonl      one object per step: {"step": 1, "reward": ..., ...}; values that
                       are not finite are null
    warm_start.jsonl   the same for supervised steps
    completions.jsonl  sampled completions with their rewards
    groups.jsonl       one object per step; each field is a list with one number per
                       group: "prompts" (ids), "correct" (number of correct samples),
                       "verified" (number of samples with a verdict), "correct_weight"
                       and "incorrect_weight" (mean weight that the update gave to
                       correct and incorrect samples; null if there are none)
    evaluations.jsonl  one object per evaluation: numbers of correct samples and of
                       samples with a verdict for each problem, and pass@k with its
                       interval for each k
    digests.jsonl      one object per step: a digest of every array of every phase
                       (`storage.digests`); step 0 is the state before step 1; "seal"
                       is a digest of the row
    events.jsonl       one object per started process, with its environment, and one per
                       phase: {"time", "process", "step", "event"}; rows are never
                       removed, so a phase that ran twice has two rows
    environment.json   versions, devices, flags, commit
    tensorboard/       the metrics again, if tensorboardX is installed
    """

    def __init__(
        self,
        directory: Path,
        total_steps: int,
        *,
        every: int = 1,
        sinks: Sequence[OpenSink] = (),
        console: Console | None = None,
        config_changes: Sequence[tuple[str, object, object]] = (),
        take_up: Callable[[], None] = lambda: None,
        user_code: Mapping[str, str] | None = None,
    ):
        """Open the log of a new or a resumed run.

        Args:
          directory: the run directory, which is made if it does not exist.
          total_steps: the number of steps, for the progress display.
          every: steps between printed lines.
          sinks: further sinks of the metrics; `resume` opens them.
          console: where to print; None means the terminal.
          config_changes: path, old and new value of each setting that changed since the
            run was last started. `resume` records them if there are steps left.
          take_up: called after these changes were recorded; it stores the new config.
          user_code: SHA-256 of each file of the user's own code, by path. It is
            recorded with the environment, and a resumed run warns if it changed.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._total = directory, total_steps
        self.console = console or terminal.console()
        self._screen = Screen(self.console, total_steps, every)
        self._metrics = JSONLSink(directory / "metrics.jsonl")
        self._warm_start = JSONLSink(directory / "warm_start.jsonl")
        self._to_open = sinks
        self._sinks: list[MetricSink] = []
        self._said: set[str] = set()  # subjects of `note_once`
        self._notes: set[str] = set()  # of verifiers
        self._config_changes, self._take_up = config_changes, take_up
        self._user_code = dict(user_code or {})
        (directory / "environment.json").write_text(
            json.dumps(environment(self._user_code), indent=2) + "\n"
        )

    def __enter__(self) -> "RunLog":
        """Start the live display if the console is a terminal."""
        self._screen.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the live display and close the sinks."""
        self._screen.close()
        for sink in list(self._sinks):
            with self._reported(sink):
                sink.close()

    def resume(self, step: int) -> None:
        """Drop rows of steps after `step`, which run again, and record the start.

        The call also opens the sinks, records changes of the config, and warns if the
        user's code has changed.

        Args:
          step: the newest stored step. With 0 the run begins at its start, with the
            evaluation before step 1, so all rows of steps are dropped.
        """
        faults = [
            self._keep(name, lambda row: row["step"] <= step > 0) for name in _STEPS
        ]
        for name in ("events.jsonl", "warm_start.jsonl"):
            faults.append(self._keep(name, lambda row: True))
        changed = self._changed_user_code()
        self.event(step, "start", environment=environment(self._user_code))
        self._open_sinks(step)
        for fault in filter(None, faults):
            self.damage(fault)
        # The changes are recorded before the config is stored, so that none is lost. A
        # finished run computes nothing and keeps the config it was computed with.
        if step < self._total:
            for name, old, new in self._config_changes:
                self.event(step, "config", name=name, old=old, new=new)
                self.note(f"from step {step + 1} on: {name} {old} -> {new}")
            self._take_up()
        for file in changed:
            self.note(
                f"warning: {file} has changed since this run used it; what is stored, "
                "rewards too, was computed with the file as it was"
            )
        if step:
            self.note(f"resumed after step {step}")

    def _changed_user_code(self) -> list[str]:
        """Return the user's files that changed since the last process of this run."""
        started = [row for row in read_events(self._directory) if "environment" in row]
        before = started[-1]["environment"].get("user_code", {}) if started else {}
        return [
            file
            for file, digest in self._user_code.items()
            if before.get(file, digest) != digest
        ]

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record the metrics of a step; values may be finite or not."""
        self._metrics.log(step, values)
        for sink in list(self._sinks):
            with self._reported(sink):
                sink.log(step, values)
        self._screen.log(step, values)

    def add_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add metrics to those that are already recorded for a step."""
        rows = [row for row in read_metrics(self._directory) if row["step"] == step]
        before = {name: row[name] for row in rows for name in row.keys() - {"step"}}
        self.metrics(step, before | values)
        old = iter(rows)  # old rows are removed last, so that a kill loses nothing
        self._keep("metrics.jsonl", lambda row: row["step"] != step or not next(old, 0))

    def supervised(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Record a supervised step; step 1 begins a new warm-start log."""
        if step == 1:
            self._keep("warm_start.jsonl", lambda row: False)
        self._warm_start.log(step, values)
        if step % max(1, total // 10) == 0 or step == total:
            self.note(f"warm start {step}/{total}  loss {values['loss']:.4f}")
        self._screen.at(f"warm start {step}/{total}")

    def completions(self, step: int, rows: list[dict]) -> None:
        """Record sampled completions and, on a terminal, show them."""
        for row in rows:
            self._append("completions.jsonl", {"step": step, **row})
        self._screen.completions(step, rows)

    def groups(self, step: int, batch: Batch, applied: np.ndarray) -> None:
        """Record the counts of correct samples of each group and their weights.

        Args:
          step: the training step.
          batch: the batch of the step; its prompts, rewards and mask are used.
          applied: (G, M) weights that samples were given (`losses.applied_weights`).
        """
        mask = np.asarray(batch.reward_mask)
        right = (np.asarray(batch.rewards) >= 0.5) & mask
        row = {
            "prompts": np.asarray(batch.prompts.ids).tolist(),
            "correct": right.sum(-1).tolist(),
            "verified": mask.sum(-1).tolist(),
            "correct_weight": _means(applied, right),
            "incorrect_weight": _means(applied, mask & ~right),
        }
        self._append("groups.jsonl", {"step": step, **row})

    def digests(self, step: int, row: Mapping[str, Mapping[str, str]]) -> None:
        """Record a step's digests by phase and array, with a digest of the row."""
        self._append("digests.jsonl", sealed({"step": step, **row}))

    def event(self, step: int, event: str, **details: object) -> None:
        """Record an event with its details and the time in seconds since the epoch."""
        row = {"time": time.time(), "process": os.getpid(), "step": step}
        self._append("events.jsonl", row | {"event": event} | details)

    def evaluation(self, step: int, row: Mapping[str, object]) -> None:
        """Record a whole evaluation; the caller passes its scores to `metrics` too."""
        self._append("evaluations.jsonl", {"step": step, **row})

    def evaluated(self) -> set[int]:
        """Return the steps whose evaluation is recorded."""
        return {row["step"] for row in read_rows(self._directory / "evaluations.jsonl")}

    def note(self, text: str) -> None:
        """Print a line."""
        self._screen.say(text)

    def verifier(self, step: int, notes: Mapping[str, int]) -> None:
        """Record the notes of verifiers, such as why a completion has no verdict.

        Args:
          step: the training step.
          notes: how often each note was given.
        """
        self.event(step, "verifier", notes=dict(notes))
        for note in notes:
            if note in self._notes:
                continue
            self._notes.add(note)
            if len(self._notes) <= _NOTES:
                self.note(f"verifier, from step {step} on: {note}")
            elif len(self._notes) == _NOTES + 1:
                self.note("verifier: further notes are in events.jsonl alone")

    def damage(self, what: str) -> None:
        """Print and record that stored data was damaged, and what is done now."""
        self.note(f"warning: {what}")
        self.event(-1, "damage", what=what)

    def note_once(self, text: str, subject: str) -> None:
        """Print a text unless this process has printed one of the same subject."""
        if subject not in self._said:
            self._said.add(subject)
            self.note(text)

    def _append(self, name: str, row: dict) -> None:
        append_row(self._directory / name, row)

    def _keep(self, name: str, keep: Callable[[dict], bool]) -> str | None:
        """Keep the selected rows of a file; return a message if lines were damaged."""
        path, aside = self._directory / name, self._directory / "damaged"
        lines = keep_rows(path, keep, aside)
        if not lines:
            return None
        numbers = ", ".join(map(str, lines[:_NAMED])) + ", ..." * (len(lines) > _NAMED)
        return f"{path}: damaged in line {numbers}; set aside in {aside / name}"

    def _open_sinks(self, step: int) -> None:
        for open_sink in self._to_open:
            with self._reported(open_sink):
                self._sinks.append(open_sink(self._directory, step))

    @contextlib.contextmanager
    def _reported(self, sink: MetricSink | OpenSink) -> Iterator[None]:
        """Report the error of a sink and stop using the sink; the run goes on."""
        try:
            yield
        except Exception as error:  # a sink may raise errors of any type
            self._sinks = [other for other in self._sinks if other is not sink]
            name = getattr(sink, "__name__", type(sink).__name__)
            what = f"{name} gets no metrics from here on: {error or repr(error)}"
            self.note(f"warning: {what}")
            self.event(-1, "note", what=what)


def read_metrics(directory: Path) -> list[dict]:
    """Return the rows of a run's metrics.jsonl; values that are null become NaN."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in read_rows(directory / "metrics.jsonl")
    ]


def read_warm_start(directory: Path) -> list[dict]:
    """Return the rows of a run's warm_start.jsonl; empty if it had no warm start."""
    return read_rows(directory / "warm_start.jsonl")


def read_digests(directory: Path) -> dict[int, dict[str, dict[str, str]]]:
    """Return the digests of a run by step, phase and array; empty if none exist."""
    return {row.pop("step"): row for row in read_rows(directory / "digests.jsonl")}


def read_events(directory: Path) -> list[dict]:
    """Return the rows of a run's events.jsonl, in order."""
    return read_rows(directory / "events.jsonl")


def read_environment(directory: Path, step: int) -> dict:
    """Return the environment of the process that computed a step.

    It is that of the last process that started before the step; {} if none is known.
    """
    started = [row for row in read_events(directory) if "environment" in row]
    before = [row for row in started if row["step"] < max(step, 1)]
    return before[-1]["environment"] if before else {}


def _means(values: np.ndarray, chosen: np.ndarray) -> list[float | None]:
    """Return the mean of the chosen (G, M) values of each group, with six digits.

    The mean is None for a group without chosen values.
    """
    return [
        float(f"{row[keep].mean():.6g}") if keep.any() else None
        for row, keep in zip(np.asarray(values), chosen, strict=True)
    ]
