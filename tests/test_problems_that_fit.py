"""Problems that are too long: how many are left out is said, and of how many."""

import dataclasses
import json
import shutil

import pytest

from jaxrl_surrogate import assembly, cli
from jaxrl_surrogate.losses import LossConfig, term_metrics
from jaxrl_surrogate.telemetry import metric_names

# Every term that a loss can have, so that one without a name for its metric is found.
COEFFICIENTS = [
    field.name
    for field in dataclasses.fields(LossConfig)
    if field.name.endswith("_coef")
]
CONFIG = f"""
model: {{preset: nano}}
task: {{name: gsm8k, tokenizer: byte}}
rollout: {{prompts_per_step: 8, group_size: 2, max_completion_length: 4}}
train: {{steps: 1}}
eval: {{prompts: 8, samples: 3}}
loss: {json.dumps(dict.fromkeys(COEFFICIENTS, 0.1))}
log: {{tensorboard: false}}
"""


def _write(folder, lengths):
    """Files in the form of GSM8K, prompts of so many bytes."""
    around = len("Question: \nAnswer: ")
    for name in ("train", "test"):
        rows = (
            {"question": "x" * (length - around), "answer": "so\n#### 4"}
            for length in lengths[name]
        )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)


@pytest.fixture
def path(tmp_path):
    lengths = {"train": [*range(21, 41), 500], "test": [30, 30, 200, 30, *[300] * 16]}
    _write(tmp_path, lengths)
    file = tmp_path / "words.yaml"
    file.write_text(f"run_dir: {tmp_path}/run\n{CONFIG}")
    return file


def _words(path, *more):
    return [str(path), f"--task.options.path={path.parent}", *more]


def test_what_is_left_out_is_counted_and_measured(path):
    """One in 21 is a note; 17 in 20 are a warning; all are refused."""
    words = _words(path, "--rollout.max_prompt_length=40")
    run = assembly.build_run(cli.load_config(path, words[1:]))
    assert len(run.eval_problems) == 3
    assert run.notes == (
        "rollout.max_prompt_length=40: too short for some of 21 training problems, "
        "whose prompts have 21 to 500 tokens, half of them more than 30; 1 are left "
        "out, 20 are used",
        "warning: rollout.max_prompt_length=40: too short for some of 20 test "
        "problems, whose prompts have 30 to 300 tokens, half of them more than 299; "
        "17 are left out, 3 are used",
        "eval.prompts=8: evaluating on 3, all the test problems that there are and fit",
    )
    assert run.prompts.state()["size"] == 20
    words = _words(path, "--rollout.max_prompt_length=500", "--eval.prompts=20")
    assert assembly.build_run(cli.load_config(path, words[1:])).notes == ()


def test_references_are_measured_apart(path):
    words = _words(path, "--rollout.max_prompt_length=40", "--sft.steps=1")
    words += ["--sft.batch_size=8", "--rollout.max_completion_length=9"]
    with pytest.raises(ValueError) as caught:
        assembly.build_run(cli.load_config(path, words[1:]))
    message = str(caught.value)
    assert "rollout.max_completion_length=9: too short for each of 21" in message
    assert "whose references have 10 to 10 tokens" in message


def test_the_run_says_it_and_shows_n(path, tmp_path, capsys):
    words = _words(path, "--rollout.max_prompt_length=40")
    assert cli.main(["train", *words]) == 0
    printed = capsys.readouterr().out
    assert "17 are left out, 3 are used" in printed
    assert "eval.prompts=8: evaluating on 3" in printed
    assert "3 test problems" in printed
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    before, step = map(json.loads, rows)
    assert before["eval/problems"] == step["eval/problems"] == 3
    events = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    notes = [row["what"] for row in map(json.loads, events) if row["event"] == "note"]
    assert len(notes) == 3 and notes[1].startswith("warning: ")
    # The names that `checkpoint.best_metric` may have are those that there are.
    terms = term_metrics(LossConfig(**dict.fromkeys(COEFFICIENTS, 0.1)))
    scores = metric_names.of_an_evaluation(metric_names.evaluated_ks(3))
    names = {"step", *scores}
    assert set(before) == names
    assert set(step) == names | set(metric_names.of_a_step(2, terms))
    assert cli.main(["eval", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "eval.prompts=8: evaluating on 3" in printed and "3 test problems" in printed


def test_a_tokenizer_that_cannot_spell_a_prompt_is_refused_by_name(path, capsys):
    shutil.copy(path.parent / "train.jsonl", path.parent / "plain.jsonl")
    row = {"question": "caffè " * 3, "answer": "#### 4"}
    (path.parent / "train.jsonl").write_text(json.dumps(row) + "\n")
    words = _words(path, "--rollout.max_prompt_length=99", "--task.tokenizer=ascii")
    assert cli.main(["train", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxrl: task.tokenizer='ascii': cannot encode 'è'")
    words = _words(path, "--task.tokenizer=ascii", '--rollout.stop=["è"]')
    shutil.copy(path.parent / "plain.jsonl", path.parent / "train.jsonl")
    assert cli.main(["train", *words]) == 2
    assert "jaxrl: task.tokenizer='ascii'" in capsys.readouterr().err
    assert not (path.parent / "run").exists()
