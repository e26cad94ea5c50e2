"""Tasks from datasets of the library reasoning-gym, named `reasoning_gym:DATASET`.

The library makes problem i of a dataset from `seed + i`. The training problems come
first and the test problems follow, so their ranges do not overlap.
"""

import dataclasses
import functools
import math
import random
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from jaxrl_surrogate.errors import FieldError, nearest
from jaxrl_surrogate.tasks import signatures
from jaxrl_surrogate.tasks.answers import answer_text
from jaxrl_surrogate.tasks.task import Problem, Verdict

PREFIX = "reasoning_gym:"


class ReasoningGym:
    """A generated dataset with the library's own scorer.

    The scorer gets the answer that `answers.answer_text` finds in a completion: the
    last `<answer>...</answer>` or `\\boxed{...}`, or the whole completion without outer
    white space if there is neither.

    A question of a test problem may occur in `train` by chance, as in a dataset with
    few questions; this is not checked.
    """

    def __init__(
        self,
        dataset: str,
        size: Annotated[int, "training problems"] = 10_000,
        num_test: Annotated[int, "test problems, made after those"] = 512,
        seed: Annotated[int, "of the first training problem"] = 0,
        threshold: Annotated[float, "scores from here on are reward 1, others 0"] = 1.0,
        graded: Annotated[bool, "the score itself is the reward"] = False,
        template: Annotated[str, "the prompt; {question} is replaced"] = (
            "{question}\nAnswer: "
        ),
        **config: Any,
    ):
        """Set up a dataset; problems are made on demand.

        Args:
          dataset: one of `dataset_names()`.
          size: number of training problems.
          num_test: number of test problems.
          seed: seed of the first training problem.
          threshold: scores of at least this give reward 1, lower scores 0.
          graded: whether the score itself is the reward.
          template: the prompt, in which {question} is replaced.
          **config: settings of the dataset itself; see `dataset_options`.

        Raises:
          FieldError: the library is missing, or refuses the name or a setting.
        """
        library = _library()
        for name, value in (("size", size), ("num_test", num_test)):
            if value < 1:
                raise FieldError(name, value, "at least 1")
        if "{question}" not in template:
            raise FieldError("template", template, "it to hold {question}")
        try:
            made = library.create_dataset(
                dataset, seed=seed, size=size + num_test, **config
            )
        except (ValueError, TypeError, AssertionError) as error:
            name = next((key for key in config if key in str(error)), "config")
            raise FieldError(
                name, config.get(name), problem=f"{PREFIX}{dataset} refuses it: {error}"
            ) from error
        self.name = PREFIX + dataset
        # Some datasets hold functions that do not pickle, so the arguments are pickled.
        self._arguments = (dataset, size, num_test, seed, threshold, graded, template)
        self._config = config
        self._made, self._threshold, self._graded = made, threshold, graded
        self.train = _Entries(made, range(size), template)
        self.test = _Entries(made, range(size, size + num_test), template)

    def __reduce__(self):
        return functools.partial(ReasoningGym, **self._config), self._arguments

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Return the reward from the library's score of the stated answer.

        Scores are from 0 to 1; some datasets give a part of that for the form alone. If
        the scorer raises an exception, there is no verdict.
        """
        answer = answer_text(completion)
        try:
            score = float(self._made.score_answer(answer, problem.info["entry"]))
        except Exception as error:  # scorers parse any text of the policy
            return Verdict(0.0, False, f"scorer: {type(error).__name__}: {error}"[:200])
        if self._graded or not math.isfinite(score):
            return Verdict(score)
        return Verdict(float(score >= self._threshold))


def dataset_names() -> tuple[str, ...]:
    """Return the names of the installed library's datasets.

    Raises:
      ValueError: the library is missing.
    """
    _library()
    from reasoning_gym.factory import DATASETS

    return tuple(sorted(DATASETS))


def dataset_options(dataset: str) -> dict[str, signatures.Option]:
    """Return the options of a dataset: those of `ReasoningGym`, then its config fields.

    Raises:
      FieldError: the library is missing or has no such dataset.
    """
    names = dataset_names()
    if dataset not in names:
        raise FieldError(
            "name",
            PREFIX + dataset,
            problem="reasoning-gym has no such dataset",
            expected=f"one of its {len(names)}",
            remedy=nearest(dataset, names),
        )
    from reasoning_gym.factory import DATASETS

    known = signatures.read(ReasoningGym)
    config = DATASETS[dataset][1]
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name not in known:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            kind = hints[field.name]
            if typing.get_origin(kind) in (typing.Union, types.UnionType):
                kind = Any
            known[field.name] = signatures.Option(kind, default, f"of {dataset}")
    return known


@dataclasses.dataclass(frozen=True)
class _Entries(Sequence):
    """A range of a dataset's entries as problems."""

    made: Any
    indices: range
    template: str

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self.indices):
            raise IndexError(index)
        entry = _seeded_entry(self.made, self.indices[index])
        answer = None if entry["answer"] is None else str(entry["answer"])
        return Problem(
            prompt=self.template.replace("{question}", entry["question"]),
            answer=answer,
            id=index,
            completion=answer,
            info={"entry": entry},
        )


def _seeded_entry(made: Any, index: int) -> Mapping[str, Any]:
    """Return an entry, with Python's global generator seeded, which a few datasets use.

    The generator's state is restored afterwards.
    """
    before = random.getstate()
    random.seed(made.seed + index)
    try:
        return made[index]
    finally:
        random.setstate(before)


def _library():
    try:
        import reasoning_gym
    except ImportError:
        raise FieldError(
            "name",
            f"{PREFIX}...",
            problem="needs the library reasoning-gym",
            remedy="in the checkout: pip install -e '.[tasks]'",
        ) from None
    return reasoning_gym
