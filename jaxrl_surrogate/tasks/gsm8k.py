"""GSM8K: grade-school word problems (Cobbe et al., arXiv 2110.14168), from files."""

import json
import re
from pathlib import Path
from typing import Annotated

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.tasks.answers import final_number
from jaxrl_surrogate.tasks.task import Problem, Verdict

_CALCULATOR = re.compile(r"<<[^<>]*>>")


class GSM8K:
    """The questions of `train.jsonl` and `test.jsonl`, verified by the final number.

    Reference completions are the dataset's solutions, which end in marks such as
    `#### 42`.
    """

    name = "gsm8k"

    def __init__(
        self,
        path: Annotated[str, "directory with train.jsonl and test.jsonl"] = (
            "data/gsm8k"
        ),
        last_number: Annotated[
            bool, "where no answer is marked, the last number of the text counts"
        ] = True,
        calculator_marks: Annotated[
            bool, "keep the <<1+2=3>> of the dataset in reference completions"
        ] = False,
        template: Annotated[str, "the prompt; {question} is replaced"] = (
            "Question: {question}\nAnswer: "
        ),
    ):
        """Read the files; each argument's annotation describes it.

        Raises:
          FieldError: a file is missing or empty, a line is not of the dataset's form,
            or the template lacks {question}.
        """
        if "{question}" not in template:
            raise FieldError("template", template, "it to hold {question}")
        self._last_number, self._marks = last_number, calculator_marks
        self._template = template
        self.train = self._load(Path(path), "train.jsonl")
        self.test = self._load(Path(path), "test.jsonl")

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Return reward 1 if the completion's final number is correct, 0 otherwise.

        `answers.final_number` finds that number.
        """
        found = final_number(completion, last_number=self._last_number)
        return Verdict(float(found is not None and found == problem.answer))

    def _load(self, directory: Path, name: str) -> tuple[Problem, ...]:
        path = directory / name
        if not path.is_file():
            raise FieldError(
                "path",
                str(directory),
                problem=f"has no {name}",
                expected="a directory with the files train.jsonl and test.jsonl of "
                "GSM8K",
                remedy="fetch them from grade_school_math/data of the GitHub "
                "repository openai/grade-school-math and put them there",
            )
        problems = []
        with path.open(encoding="utf-8") as lines:  # not splitlines: U+2028 is text
            for index, line in enumerate(lines):
                if line.strip():
                    problems.append(self._problem(line, index, path))
        if not problems:
            raise FieldError("path", str(directory), problem=f"{name} is empty")
        return tuple(problems)

    def _problem(self, line: str, index: int, path: Path) -> Problem:
        try:
            row = json.loads(line)
            question, solution = row["question"], row["answer"]
            answer = final_number(solution, last_number=False)
        except (ValueError, KeyError, TypeError):
            answer = None
        if answer is None:
            raise FieldError(
                "path",
                str(path.parent),
                problem=f"line {index + 1} of {path.name} is not of the form "
                '{"question": "...", "answer": "... #### 42"}',
            )
        return Problem(
            prompt=self._template.replace("{question}", question),
            answer=answer,
            id=index,
            completion=solution if self._marks else _CALCULATOR.sub("", solution),
        )
