"""Problems whose texts fit the lengths of a run."""

from collections.abc import Sequence

from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.tasks import Problem, Tokenizer
from jaxrl_surrogate.tasks.prompts import Subset

# Sources up to this size are searched for problems that are too long.
_SEARCHED = 200_000
# So many problems of larger ones are looked at before the run.
_PROBED = 256


def that_fit(
    source: Sequence[Problem],
    tokenizer: Tokenizer,
    max_prompt: int,
    max_completion: int | None = None,
) -> Sequence[Problem]:
    """The problems whose prompt, and reference if asked for, fit their lengths.

    Endless sources are left as they are, but looked into: what does not fit is said
    now and not hours later.
    """

    def fits(problem):
        if not 1 <= len(tokenizer.encode(problem.prompt)) <= max_prompt:
            return False
        if max_completion is None:
            return True
        if problem.completion is None:
            raise SettingsError(
                "sft.steps: the task has no reference completion for "
                f"{problem.prompt[:60]!r}; expected 0, no warm start"
            )
        return len(tokenizer.encode(problem.completion)) < max_completion

    limits = f"rollout.max_prompt_length={max_prompt}"
    if max_completion is not None:
        limits += f" and rollout.max_completion_length={max_completion}"
    remedy = "raise the length, or set task.options to shorter problems"
    if len(source) > _SEARCHED:
        for index in range(0, len(source), len(source) // _PROBED):
            if not fits(source[index]):
                shown = source[index].prompt[:60]
                raise SettingsError(f"{limits}: too short for {shown!r}; {remedy}")
        return source
    kept = [index for index in range(len(source)) if fits(source[index])]
    if not kept:
        raise SettingsError(
            f"{limits}: too short for each of {len(source)} problems; {remedy}"
        )
    return source if len(kept) == len(source) else Subset(source, kept)
