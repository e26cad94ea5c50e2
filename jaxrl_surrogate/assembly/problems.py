"""Selects the problems that fit a run's token limits, and reports the others."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.tasks import Problem, Tokenizer
from jaxrl_surrogate.tasks.prompts import Subset

# Sources of up to this many problems are searched completely.
_SEARCHED = 200_000
# About this many problems of a larger source are checked before the run.
_PROBED = 256
# The note is a warning if more than this share of the problems is left out.
_MANY = 0.1
_REMEDY = "raise the length, or set task.options to shorter problems"


@dataclasses.dataclass(frozen=True)
class _Limit:
    field: str
    most: int
    texts: str  # what is measured
    text: str  # one of them, before its problem's prompt
    length: Callable[[Problem], int]

    def fits(self, problem: Problem) -> bool:
        return 1 <= self.length(problem) <= self.most


class Fitting:
    """Selects problems that fit token limits; `notes` tells which it left out."""

    def __init__(self, tokenizer: Tokenizer, max_prompt: int, max_completion: int):
        """Store the tokenizer and the limits in tokens.

        A reference completion counts with its end token.
        """

        def reference(problem):
            if problem.completion is None:
                raise FieldError(
                    "sft.steps",
                    problem="the task has no reference completion for "
                    f"{problem.prompt[:60]!r}",
                    expected="0, no warm start",
                )
            return len(tokenizer.encode(problem.completion)) + 1  # the end token

        self._prompt = _Limit(
            "rollout.max_prompt_length",
            max_prompt,
            "prompts",
            "the prompt",
            lambda problem: len(tokenizer.encode(problem.prompt)),
        )
        self._reference = _Limit(
            "rollout.max_completion_length",
            max_completion,
            "references",
            "the reference completion, with its end token, of",
            reference,
        )
        self.notes: list[str] = []

    def prompts(self, source: Sequence[Problem], what: str) -> Sequence[Problem]:
        """Return the problems whose prompt fits.

        Args:
          source: problems to choose from.
          what: name of the source in notes, such as "training problems".

        Raises:
          FieldErrors: no problem fits, or one of the problems that are checked in a
            source too large to search does not.
        """
        return self._those_within(source, what, [self._prompt])

    def references(self, source: Sequence[Problem], what: str) -> Sequence[Problem]:
        """Return the problems whose prompt and reference completion fit.

        Args:
          source: problems to choose from.
          what: name of the source in notes.

        Raises:
          FieldErrors: as `prompts`, or a problem has no reference completion.
        """
        return self._those_within(source, what, [self._prompt, self._reference])

    def _those_within(self, source, what, limits):
        """Return the problems within all limits.

        A source too large to search is returned whole after about `_PROBED` of its
        problems were checked, so that most misfits are reported before the run.
        """
        if len(source) > _SEARCHED:
            for index in range(0, len(source), len(source) // _PROBED):
                for limit in limits:
                    if not limit.fits(source[index]):
                        raise FieldError(
                            limit.field,
                            limit.most,
                            problem=f"too short for {limit.text} "
                            f"{source[index].prompt[:60]!r}, which needs "
                            f"{limit.length(source[index])} tokens",
                            remedy=_REMEDY,
                        )
            return source
        lengths = [
            [limit.length(source[index]) for index in range(len(source))]
            for limit in limits
        ]
        kept = [
            index
            for index, found in enumerate(zip(*lengths, strict=True))
            if all(1 <= n <= x.most for n, x in zip(found, limits, strict=True))
        ]
        if len(kept) == len(source):
            return source
        which = f"{'some' if kept else 'each'} of {len(source):,}"
        errors = [
            FieldError(
                limit.field,
                limit.most,
                problem=f"too short for {which} {what}, whose {limit.texts} have "
                f"{min(found)} to {max(found)} tokens, half of them more than "
                f"{statistics.median_low(found) - 1}",
                remedy="" if kept else _REMEDY,
            )
            for limit, found in zip(limits, lengths, strict=True)
            if not all(1 <= length <= limit.most for length in found)
        ]
        if not kept:
            raise FieldErrors(errors)
        left_out = len(source) - len(kept)
        loud = "warning: " * (left_out > _MANY * len(source))
        self.notes.append(
            f"{loud}{'; '.join(map(str, errors))}; {left_out:,} are left out, "
            f"{len(kept):,} are used"
        )
        return Subset(source, kept)


def few_problems(wanted: int, found: int) -> tuple[str, ...]:
    """Return a note if an evaluation has fewer problems than `wanted`, else nothing."""
    if found >= wanted:
        return ()
    return (
        f"eval.prompts={wanted}: evaluating on {found}, all the test problems that "
        "there are and fit",
    )
