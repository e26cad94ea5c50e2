"""GSM8K, grade-school word problems (Cobbe et al., arXiv 2110.14168), from files."""

import json
import re
from pathlib import Path
from typing import Annotated

from jaxrl_surrogate.tasks.answers import final_number
from jaxrl_surrogate.tasks.task import Problem, Verdict


class GSM8K:
    """Questions of `train.jsonl` and `test.jsonl`; the final number is verified."""

    name = "gsm8k"

    def __init__(
        self,
        path: Annotated[
            str, "directory with train.jsonl and test.jsonl"
        ] = "data/gsm8k",
        last_number: Annotated[bool, "without a mark, the last number counts"] = True,
        calculator_marks: Annotated[bool, "keep <<...>> in references"] = False,
    ):
        self._last_number, self._marks = last_number, calculator_marks
        self.train = self._load(Path(path) / "train.jsonl")
        self.test = self._load(Path(path) / "test.jsonl")

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """1 where the final number equals the reference's, 0 otherwise."""
        found = final_number(completion, last_number=self._last_number)
        return Verdict(float(found is not None and found == problem.answer))

    def _load(self, path: Path) -> list[Problem]:
        if not path.is_file():
            raise ValueError(
                f"path={str(path.parent)!r}: has no {path.name}; expected the GSM8K "
                "files train.jsonl and test.jsonl (openai/grade-school-math, MIT)"
            )
        problems = []
        for index, line in enumerate(path.read_text("utf-8").splitlines()):
            row = json.loads(line)
            text = row["answer"]
            if not self._marks:
                text = re.sub(r"<<[^<>]*>>", "", text)
            prompt = f"Question: {row['question']}\nAnswer: "
            answer = final_number(row["answer"], last_number=False)
            problems.append(Problem(prompt, answer, index, text))
        return problems
