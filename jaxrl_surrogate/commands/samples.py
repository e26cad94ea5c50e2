"""Formats the output of `jaxrl sample`: completions and statistics of their rewards."""

from collections.abc import Iterator

from jaxrl_surrogate.loop.evaluation import Evaluation

_PROMPTS = 8  # shown


def lines(found: Evaluation) -> Iterator[str]:
    """Yield lines: the first prompts with completions, then statistics of all."""
    size, total = found.num_samples, len(found.problems)
    for row, problem in enumerate(found.problems[:_PROMPTS]):
        yield f"{problem.prompt!r}: {_group(found, row)}"
        for reward, judged, note, text in zip(
            found.rewards[row],
            found.mask[row],
            found.notes[row],
            found.texts[row],
            strict=True,
        ):
            shown = f"{reward:g}" if judged else "none"
            yield f"  {shown:<4}  {text!r}{f'  ({note})' if note else ''}"
    yield (
        f"{min(_PROMPTS, total)} of {total} prompts shown; all of them, with {size} "
        "completions each:"
    )
    judged = found.mask.sum(-1)
    correct = found.num_correct
    groups = {
        "all correct": int(((correct == judged) & (judged > 0)).sum()),
        "mixed": int(((correct > 0) & (correct < judged)).sum()),
        "all incorrect": int(((correct == 0) & (judged > 0)).sum()),
        "without a verdict": int((judged == 0).sum()),
    }
    yield f"  groups   {', '.join(f'{n} {name}' for name, n in groups.items() if n)}"
    rewards = found.rewards[found.mask]
    yield (
        f"  rewards  mean {rewards.mean():.3f}, standard deviation "
        f"{rewards.std():.3f}, from {rewards.min():g} to {rewards.max():g}"
    )
    yield f"  correct  {correct.sum()} of {judged.sum()} completions with a verdict"
    yield from without_verdict(found)


def without_verdict(found: Evaluation) -> Iterator[str]:
    """Yield lines on completions that have no reward, and the verifier's notes."""
    failed = int((~found.mask).sum())
    if failed:
        yield (
            f"{failed} of {found.mask.size} completions have no verdict and count as "
            "incorrect"
        )
    for note, count in found.note_counts.items():
        yield f"verifier: {note} ({count} times)"


def _group(found: Evaluation, row: int) -> str:
    mask = found.mask[row]
    if not mask.any():
        return "no verdict"
    mean = found.rewards[row][mask].mean()
    return f"{found.num_correct[row]} of {mask.sum()} correct, mean reward {mean:.3g}"
