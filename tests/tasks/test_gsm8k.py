"""GSM8K: the loader, and on the real files every solution against its verifier."""

import json
import os
import re
from pathlib import Path

import pytest

from jaxrl_surrogate import tasks

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def real():
    beside = _ROOT.parent / "shared" / "data" / "gsm8k"
    path = Path(os.environ.get("JAXRL_GSM8K", beside))
    if not (path / "test.jsonl").is_file():
        pytest.skip(
            "needs the GSM8K files: set JAXRL_GSM8K to the directory that holds "
            "train.jsonl and test.jsonl"
        )
    return path


def _write(directory, *solutions):
    for name in ("train", "test"):
        with open(directory / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for number, solution in enumerate(solutions):
                row = {"question": f"Question {number}?", "answer": solution}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return str(directory)


def test_all_solutions_are_right_and_none_with_another_number(real):
    task = tasks.get("gsm8k", path=str(real))
    assert len(task.test) == 1319 and len(task.train) == 7473
    rows = [json.loads(line) for line in (real / "test.jsonl").open(encoding="utf-8")]
    right, wrong, gold = [], [], []
    for problem, row in zip(task.test, rows, strict=True):
        head, _, number = row["answer"].rpartition("#### ")
        right.append([row["answer"], problem.completion])
        changed = str(int(number.replace(",", "")) + 1)
        wrong.append([f"{head}#### {changed}", f"{head}#### -{number}9"])
        gold.append(int(number.replace(",", "")))
    assert [problem.answer for problem in task.test] == gold
    rewards, mask, notes = tasks.verify_all(task, task.test, right)
    assert mask.all() and not notes.any() and rewards.sum() == 2 * 1319
    rewards, mask, _ = tasks.verify_all(task, task.test, wrong)
    assert mask.all() and rewards.sum() == 0


def test_real_solutions_in_other_dress(real, random):
    task = tasks.get("gsm8k", path=str(real))
    strict = tasks.get("gsm8k", path=str(real), last_number=False)
    for index in random.integers(len(task.train), size=300).tolist():
        problem = task.train[index]
        value = int(problem.answer)
        head = problem.completion.rpartition("####")[0]
        for end in (
            f"#### {value}.0",
            f"#### ${value:,}",
            f"#### {value:,} dollars.",
            f"so \\boxed{{{value}}}",
            f"\\boxed{{\\${value:,} \\text{{ in all}}}}.",
        ):
            assert task.verify(problem, head + end).reward == 1, end
            assert strict.verify(problem, head + end).reward == 1, end
        bare = f"{head}The answer is {value}."
        assert task.verify(problem, bare).reward == 1
        assert strict.verify(problem, bare).reward == 0


def test_loader(tmp_path):
    text = "<<6*7=42>>42 eggs\u2028in all\n#### 1,042"
    path = _write(tmp_path, text, "#### -3")
    task = tasks.get("gsm8k", path=path)
    problem = task.train[0]
    assert problem.prompt == "Question: Question 0?\nAnswer: "
    assert problem.completion == "42 eggs\u2028in all\n#### 1,042"
    assert problem.answer == 1042 and task.train[1].answer == -3
    marked = tasks.get("gsm8k", path=path, calculator_marks=True, template="{question}")
    assert marked.test[0].completion == text
    assert marked.test[0].prompt == "Question 0?"


def test_what_is_wrong_with_the_files_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"options\.path=.*has no train\.jsonl.*fetch"):
        tasks.get("gsm8k", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"line 2 of train\.jsonl"):
        tasks.get("gsm8k", path=_write(tmp_path, "#### 1", "no mark 2"))
    (tmp_path / "train.jsonl").write_text("{]\n")
    with pytest.raises(ValueError, match=r"line 1 of train\.jsonl"):
        tasks.get("gsm8k", path=str(tmp_path))
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"train\.jsonl is empty"):
        tasks.get("gsm8k", path=str(tmp_path))
    with pytest.raises(ValueError, match=re.escape("template='Q'")):
        tasks.get("gsm8k", template="Q")


def test_trained_tokenizer_spells_the_questions(real, tmp_path):
    pytest.importorskip("tokenizers")
    task = tasks.get("gsm8k", path=str(real))
    texts = [p.prompt + p.completion for p in task.train[:500]]
    tokenizer = tasks.tokenizers.train_bpe(texts, 1024, tmp_path / "tokenizer.json")
    assert tokenizer.vocab_size == 1024
    tokens = size = 0
    for problem in task.test[:200]:
        ids = tokenizer.encode(problem.prompt)
        assert tokenizer.decode(ids) == problem.prompt
        tokens, size = tokens + len(ids), size + len(problem.prompt.encode())
    assert tokens < size / 2
