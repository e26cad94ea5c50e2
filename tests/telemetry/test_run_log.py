"""What a run leaves on disk and on the terminal."""

import json
import math
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from jaxrl_surrogate.batch import Batch, Prompts
from jaxrl_surrogate.lab.groups import read_groups
from jaxrl_surrogate.loop.evaluation import Evaluation
from jaxrl_surrogate.objectives.pass_at_k import pass_at_k_curve
from jaxrl_surrogate.tasks import Problem
from jaxrl_surrogate.telemetry import environment
from jaxrl_surrogate.telemetry.run_log import (
    RunLog,
    read_digests,
    read_environment,
    read_events,
    read_metrics,
)
from jaxrl_surrogate.telemetry.sinks import TensorBoardSink
from jaxrl_surrogate.terminal import print_table, table


def _console(file, terminal=False):
    return Console(file=file, force_terminal=terminal, width=160, soft_wrap=True)


@pytest.fixture
def screen(tmp_path):
    with open(tmp_path / "screen", "w+") as file:
        yield file


def _printed(screen):
    screen.flush()
    screen.seek(0)
    return screen.read()


def _log(tmp_path, screen, *, terminal=False, every=1, sinks=()):
    console = _console(screen, terminal)
    return RunLog(tmp_path / "run", 10, every=every, sinks=sinks, console=console)


ROW = {
    "prompt": "[bold]1+1=", "completion": "[/red]2", "reward": 1.0, "verified": True,
}  # fmt: skip


def test_a_line_of_json_per_step(tmp_path, screen):
    with _log(tmp_path, screen) as log:
        log.resume(0)
        for step in range(3):
            log.metrics(step, {"reward": step / 4, "loss": -1e-7})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": step, "reward": step / 4, "loss": -1e-7} for step in range(3)
    ]


def test_groups_and_evaluations_are_kept_as_counts(tmp_path, screen):
    batch = Batch(
        prompts=Prompts(np.zeros((2, 3), np.int32), np.ones(2, np.int32), np.arange(2)),
        completions=None,
        rewards=np.array([[1.0, 0.0, 1.0], [0.2, 1.0, 1.0]], np.float32),
        reward_mask=np.array([[True, True, True], [True, False, True]]),
    )
    counts = np.array([0, 2, 3])
    problems = [Problem("1+1=", 2, id=7), Problem("2+1=", 3, id=8), Problem("", 0, 9)]
    rewards = np.arange(4) < counts[:, None]
    mask = rewards | (np.arange(4) < 3)
    notes = np.where(mask, "", "no idea").astype(object)
    curve = pass_at_k_curve(counts, 4)
    found = Evaluation(counts, 4, curve, 0.5, problems, [], rewards, mask, notes)
    with _log(tmp_path, screen) as log:
        log.groups(1, batch, np.array([[1.0, -2.0, 3.0], [-0.5, 9.0, 1 / 3]]))
        log.evaluation(1, found.row())
    (row,) = _rows(tmp_path, "groups.jsonl")
    assert row == {
        "step": 1, "prompts": [0, 1], "correct": [2, 1], "verified": [3, 2],
        "correct_weight": [2.0, 0.333333], "incorrect_weight": [-2.0, -0.5],
    }  # fmt: skip
    (row,) = _rows(tmp_path, "evaluations.jsonl")
    assert (row["problems"], row["correct"], row["samples"]) == (
        [7, 8, 9],
        [0, 2, 3],
        4,
    )
    assert row["pass@k"] == pytest.approx(
        [np.mean([1 - math.comb(4 - c, k) / math.comb(4, k) for c in counts])
         for k in range(1, 5)]
    )  # fmt: skip
    assert found.scores()["eval/pass@3"] == row["pass@k"][2]
    assert row["verified"] == [3, 3, 3] and found.note_counts == {"no idea": 3}
    assert "eval/pass@3" not in found.metrics() and "eval/pass@4" in found.metrics()


def _rows(tmp_path, name):
    text = (tmp_path / "run" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_numbers_that_are_not_finite_stay_json(tmp_path, screen):
    with _log(tmp_path, screen) as log:
        log.metrics(1, {"loss": math.nan, "norm": math.inf, "reward": 1.0})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=pytest.fail)
    assert row == {"step": 1, "loss": None, "norm": None, "reward": 1.0}
    (row,) = read_metrics(tmp_path / "run")
    assert math.isnan(row["loss"]) and row["reward"] == 1.0


@pytest.mark.parametrize(("stored", "kept"), [(0, []), (1, [0, 1]), (2, [0, 1, 2])])
def test_resuming_drops_what_is_done_again(tmp_path, screen, stored, kept):
    with _log(tmp_path, screen) as log:
        for step in range(4):
            log.metrics(step, {"reward": 0.0})
            log.completions(step, [ROW])
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "rew')  # killed while writing
    with _log(tmp_path, screen) as log:
        log.resume(stored)
        assert [row["step"] for row in read_metrics(tmp_path / "run")] == kept
        log.metrics(stored + 1, {"reward": 1.0})
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [*kept, stored + 1]
    samples = (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in samples] == kept
    assert not list((tmp_path / "run").glob("*.tmp"))


WHOLE = ("events", "warm_start")  # logs that are not cut back to a step
LOGS = ("metrics", "completions", "groups", "evaluations", "digests", *WHOLE)


def _damages(line):
    """What may have become of a line that is none of the last."""
    yield line.replace(b"step", b"st\xffp")  # no UTF-8
    yield line.replace(b"step", b"stop")  # JSON, and no row
    yield line[: len(line) // 2]
    yield bytes(len(line))
    yield b"[" * 100_000


def _logged(tmp_path, screen):
    """Four steps in every log."""
    batch = Batch(
        prompts=Prompts(np.zeros((1, 1)), np.ones(1), np.arange(1, dtype=np.uint32)),
        completions=None,
        rewards=np.array([[1.0, 0.0, 1.0]], np.float32),
        reward_mask=np.ones((1, 3), bool),
    )
    counts = np.array([0, 2, 3])
    problems = [Problem("1+1=", 2, id=i) for i in range(3)]
    rewards = np.arange(4) < counts[:, None]
    notes = np.full(rewards.shape, "", object)
    curve = pass_at_k_curve(counts, 4)
    found = Evaluation(
        counts, 4, curve, 0.5, problems, [], rewards, rewards | True, notes
    )
    with _log(tmp_path, screen) as log:
        for step in range(1, 5):
            log.event(step, "rollout")
            log.supervised(step, 4, {"loss": 1.0})
            log.metrics(step, {"reward": 0.5})
            log.completions(step, [ROW])
            log.groups(step, batch, np.ones((1, 3)))
            log.evaluation(step, found.row())
            log.digests(step, {"update": {"weights": "0123"}})


@pytest.mark.parametrize("name", LOGS)
def test_a_damaged_line_is_set_aside_and_named(tmp_path, screen, name):
    _logged(tmp_path, screen)
    path = tmp_path / "run" / f"{name}.jsonl"
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    for number, damaged in enumerate(_damages(second[:-1])):
        path.write_bytes(b"".join([first, damaged + b"\n", *rest]))
        if name == "groups":  # readers pass it over
            assert read_groups(tmp_path / "run", 3).step.tolist() == [1, 3, 4]
        with _log(tmp_path, screen) as log:
            log.resume(3)
        kept = [first, *(rest if name in WHOLE else rest[:1])]
        found = path.read_bytes().splitlines(keepends=True)
        assert found[: len(kept)] == kept
        assert name == "events" or len(found) == len(kept)
        aside = tmp_path / "run" / "damaged" / f"{name}.jsonl"
        assert aside.read_bytes().split(b"\n")[number] == damaged
        (event,) = read_events(tmp_path / "run")[-1:]
        said = f"{path}: damaged in line 2; set aside in {aside}"
        assert (event["event"], event["what"]) == ("damage", said)
        assert _printed(screen).count(said) == number + 1
    # What was set aside is not said again.
    with _log(tmp_path, screen) as log:
        log.resume(3)
    assert read_events(tmp_path / "run")[-1]["event"] == "start"


def test_other_digits_in_a_digest_are_damage(tmp_path, screen):
    _logged(tmp_path, screen)
    path = tmp_path / "run" / "digests.jsonl"
    before = read_digests(tmp_path / "run")
    assert before[2] == {"update": {"weights": "0123"}}
    path.write_text(path.read_text().replace('"0123"', '"0133"', 1))
    assert read_digests(tmp_path / "run") == {s: before[s] for s in (2, 3, 4)}


def test_metrics_are_added_to_those_of_their_step(tmp_path, screen):
    with _log(tmp_path, screen) as log:
        for step in (1, 2, 3):
            log.metrics(step, {"reward": 0.5, "loss": math.nan})
        log.add_metrics(3, {"eval/pass@1": 0.25})
        log.add_metrics(4, {"eval/pass@1": 1.0})
    rows = _rows(tmp_path, "metrics.jsonl")
    assert rows[1:] == [
        {"step": 2, "reward": 0.5, "loss": None},
        {"step": 3, "reward": 0.5, "loss": None, "eval/pass@1": 0.25},
        {"step": 4, "eval/pass@1": 1.0},
    ]


def test_a_line_that_a_kill_cut_is_no_damage(tmp_path, screen):
    _logged(tmp_path, screen)
    for name in LOGS:
        path = tmp_path / "run" / f"{name}.jsonl"
        path.write_bytes(path.read_bytes()[:-5])
    with _log(tmp_path, screen) as log:
        log.resume(4)
    events = read_events(tmp_path / "run")
    assert [row["event"] for row in events] == ["rollout"] * 3 + ["start"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert not (tmp_path / "run" / "damaged").exists()


def test_a_warm_start_begun_again_is_logged_once(tmp_path, screen):
    for last in (3, 5):
        with _log(tmp_path, screen) as log:
            for step in range(1, last + 1):
                log.supervised(step, 5, {"loss": 1.0})
    lines = (tmp_path / "run" / "warm_start.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_completions_are_kept_as_they_are(tmp_path, screen):
    text = "\u2028 [/b] \x00 é \ud800"
    with _log(tmp_path, screen) as log:
        log.completions(2, [ROW | {"completion": text}])
    (line,) = (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 2, **ROW, "completion": text}


def test_plain_lines_where_there_is_no_terminal(tmp_path, screen):
    with _log(tmp_path, screen, every=5) as log:
        for step in range(11):
            log.metrics(
                step,
                {
                    "reward": 0.25,
                    "pass@1": 0.25,
                    "pass@8": 0.5,
                    "loss": -3.21e-5,
                    "tokens_per_second": 1234.0,
                    "seconds": 0.5,
                    "obscure": 1.0,
                },
            )
        log.completions(10, [ROW])
    lines = _printed(screen).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        f"step {step}/10" for step in (0, 1, 5, 10)
    ]
    assert lines[1] == (
        "step 1/10  reward 0.250  pass@1 0.250  pass@8 0.500  loss -3.21e-05  "
        "1234 tok/s  0.50 s"
    )


def test_a_terminal_shows_progress_and_samples_that_look_like_markup(tmp_path, screen):
    with _log(tmp_path, screen, terminal=True) as log:
        log.supervised(1, 2, {"loss": 1.0})
        log.metrics(1, {"reward": 0.5})
        log.completions(1, [ROW, ROW | {"verified": False}])
        log.note("[/] a note")
    printed = _printed(screen)
    for shown in ("1/10", "reward 0.500", "'[/red]2'", "'[bold]1+1='", "none"):
        assert shown in printed
    assert "[/] a note" in printed


def test_the_environment_is_written(tmp_path, screen, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a_flag")
    _log(tmp_path, screen)
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert found["versions"]["jax"] and found["device_count"] == 8
    assert found["flags"]["XLA_FLAGS"] == "--a_flag"
    assert found["commit"] is None or len(found["commit"].split("-")[0]) == 40


def _events(directory):
    """Events of all files in the order they were written (TFRecord framing)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_hides_steps_that_are_done_again(tmp_path, screen):
    pytest.importorskip("tensorboardX")
    for start in (0, 2):
        with _log(tmp_path, screen, sinks=(TensorBoardSink,)) as log:
            log.resume(start)
            for step in range(start + 1, start + 4):
                log.metrics(step, {"reward": 0.5})
    shown = []
    for event in _events(tmp_path / "run" / "tensorboard"):
        if event.HasField("session_log"):  # a start at a step hides it and later ones
            shown = [step for step in shown if step < event.step]
        for value in event.summary.value:
            assert (value.tag, value.simple_value) == ("reward", 0.5)
            shown.append(event.step)
    assert shown == [1, 2, 3, 4, 5]


def test_a_missing_tensorboard_is_said_once(tmp_path, screen, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with _log(tmp_path, screen, sinks=(TensorBoardSink,)) as log:
        log.resume(0)
        log.metrics(1, {"reward": 0.5})
    assert _printed(screen).count("pip install -e '.[tensorboard]'") == 1
    assert not (tmp_path / "run" / "tensorboard").exists()
    with _log(tmp_path, screen) as log:
        log.resume(0)
    assert _printed(screen).count("tensorboardX") == 1


class _Sink:
    """Keeps what it is given, and fails where it is told to."""

    def __init__(self, fails, directory, step):
        self.fails, self.start, self.rows = fails, step, []
        self._call("open")

    def _call(self, name):
        if self.fails == name:
            raise OSError(f"no place for {name}")

    def log(self, step, values):
        if step == 2:
            self._call("log")
        self.rows.append((step, values["reward"]))

    def close(self):
        self._call("close")


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_sink_that_fails_is_said_once_and_stops_nothing(tmp_path, screen, fails):
    opened = []

    def sound(directory, step):
        opened.append(_Sink(None, directory, step))
        return opened[-1]

    def failing(directory, step):
        return _Sink(fails, directory, step)

    with _log(tmp_path, screen, sinks=(failing, sound)) as log:
        log.resume(0)
        for step in range(1, 5):
            log.metrics(step, {"reward": step / 4})
    assert _printed(screen).count(f"no place for {fails}") == 1
    assert len(read_metrics(tmp_path / "run")) == 4
    (other,) = opened
    assert other.rows == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    events = [row.get("what", "") for row in read_events(tmp_path / "run")]
    assert sum(f"no place for {fails}" in what for what in events) == 1


def test_a_sink_is_told_which_step_a_run_goes_on_after(tmp_path, screen):
    starts = []
    for start in (0, 3):
        with _log(tmp_path, screen, sinks=(lambda d, s: starts.append((d, s)),)) as log:
            log.resume(start)
    assert starts == [(tmp_path / "run", 0), (tmp_path / "run", 3)]


def test_the_commit_is_none_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert environment.environment()["commit"] is None


def test_environments_are_compared_name_by_name():
    now = environment.environment()
    assert environment.environment_difference(now, now | {"command": ["x"]}) == []
    then = now | {"device_count": 99, "versions": now["versions"] | {"jax": "0.1"}}
    assert environment.environment_difference(then, now) == [
        ("versions.jax", "0.1", now["versions"]["jax"]),
        ("device_count", 99, now["device_count"]),
    ]


def test_events_say_in_which_environment_a_step_was_made(tmp_path, screen):
    def begin(step):
        log = RunLog(tmp_path, 10, console=_console(screen))
        with log:
            log.resume(step)
            log.event(step + 1, "rollout")

    begin(0)
    begin(4)
    rows = (tmp_path / "events.jsonl").read_text()
    (tmp_path / "events.jsonl").write_text(rows + '{"cut": ')  # by a kill
    events = read_events(tmp_path)
    assert [(row["step"], row["event"]) for row in events] == [
        (0, "start"), (1, "rollout"), (4, "start"), (5, "rollout")
    ]  # fmt: skip
    events[0]["environment"]["python"] = "2.7"
    text = "\n".join(json.dumps(row) for row in events)
    (tmp_path / "events.jsonl").write_text(text)
    assert read_environment(tmp_path, 4)["python"] == "2.7"
    assert read_environment(tmp_path, 5)["python"] != "2.7"
    assert read_environment(tmp_path / "none", 1) == {}


def test_a_line_that_was_said_is_not_said_again(tmp_path, screen):
    log = RunLog(tmp_path / "run", 10, console=_console(screen))
    for step in range(3):
        log.note_once(f"step {step}: some are graded", "graded rewards")
    assert _printed(screen).count("graded") == 1


def test_notes_of_verifiers_are_printed_once_whatever_the_step(tmp_path, screen):
    log = RunLog(tmp_path / "run", 10, console=_console(screen))
    for step in range(1, 4):
        # One that comes again, and one that quotes the completion and so never does.
        log.verifier(step, {"out of time": 3, f"no number in '{step}'": 1})
    lines = _printed(screen).splitlines()
    assert [line for line in lines if "out of time" in line] == [
        "verifier, from step 1 on: out of time"
    ]
    for step in range(4, 9):
        log.verifier(step, {f"no number in '{step}'": 1})
    lines = _printed(screen).splitlines()
    assert len(lines) == 6 and "events.jsonl" in lines[-1]
    rows = [row for row in read_events(tmp_path / "run") if row["event"] == "verifier"]
    assert [len(row["notes"]) for row in rows] == [2, 2, 2, 1, 1, 1, 1, 1]


def test_tensorboard_is_given_finite_numbers_and_warns_of_nothing(
    tmp_path, screen, caplog
):
    pytest.importorskip("tensorboardX")
    with _log(tmp_path, screen, sinks=(TensorBoardSink,)) as log:
        log.resume(0)
        for step in range(1, 4):
            values = {"loss": math.nan, "gap": math.inf, "reward": step / 4}
            log.metrics(step, values)
    assert not caplog.records
    shown = [
        (value.tag, value.simple_value)
        for event in _events(tmp_path / "run" / "tensorboard")
        for value in event.summary.value
    ]
    assert shown == [("reward", 0.25), ("reward", 0.5), ("reward", 0.75)]


LONG = "a_name_of_forty_characters_" + "x" * 13


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_table_cuts_a_name(screen, width, terminal):
    console = Console(file=screen, force_terminal=terminal, width=width, soft_wrap=True)
    made = table("run", f"[b]{LONG}", "reward")
    made.add_row(f"[i]{LONG}", LONG, "0.5")
    print_table(console, made)
    assert console.width == width
    lines = re.sub("\x1b\\[[0-9;]*m", "", _printed(screen)).rstrip().splitlines()
    (rule,) = [i for i, line in enumerate(lines) if line.startswith("──")]
    starts = [found.start() for found in re.finditer(r"\S+", lines[rule - 1])]
    # Column by column, whatever line each piece is in.
    for rows, expected in (
        (lines[:rule], ["run", f"[b]{LONG}", "reward"]),
        (lines[rule + 1 :], [f"[i]{LONG}", LONG, "0.5"]),
    ):
        pieces = [
            [row[i:j].strip() for row in rows]
            for i, j in zip(starts, [*starts[1:], None], strict=True)
        ]
        assert ["".join(column) for column in pieces] == expected
        assert terminal or len(rows) == 1
    assert not terminal or max(map(len, lines)) <= width
