"""Checks that stop a run if the rewards of a batch cannot be used."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from jaxrl_surrogate.objectives.graded import RewardMode
from jaxrl_surrogate.storage.stops import VerifierError
from jaxrl_surrogate.tasks import Task
from jaxrl_surrogate.tasks.judging import verifier_name

# Returns prompt and completion of sample m of group g as text; called with (g, m).
Sample = Callable[[int, int], tuple[str, str]]

_SHOWN = 300  # characters of a prompt or completion in a message


def check_verdicts(
    task: Task,
    max_failures: float,
    reward_mode: RewardMode,
    rewards: np.ndarray,
    mask: np.ndarray,
    counted: np.ndarray,
    notes: np.ndarray,
    sample: Sample,
    where: str,
) -> None:
    """Check that enough completions have a verdict and that the rewards are possible.

    Args:
      task: the task whose verifier gave the verdicts.
      max_failures: the largest fraction of the counted completions that may have no
        verdict. It is below 1, so a batch without any verdict is always refused.
      reward_mode: how the objective takes rewards; "binary" and "mean" need rewards in
        [0, 1].
      rewards: (G, M) float.
      mask: (G, M) bool, False where there is no verdict.
      counted: (G, M) bool, False on completions whose verdict does not matter.
      notes: (G, M) array of str, the notes of the verifier (`tasks.verify_all`).
      sample: returns the texts of one completion and its prompt, for the message.
      where: what the batch belongs to, such as "step 3".

    Raises:
      VerifierError: a check fails; the message names the verifier with its file and
        line, and shows a completion.
    """
    failed = counted & ~mask
    if failed.sum() > max_failures * counted.sum():
        said = Counter(notes[failed & (notes != "")])
        reasons = [f"{note} ({count} times)" for note, count in said.most_common(3)]
        # Show a completion with the most frequent note, if this host has a note.
        first = failed & (notes == said.most_common(1)[0][0]) if said else failed
        remedy = "mend the verifier"
        if (counted & mask).any():
            remedy += ", or raise the setting"
        raise VerifierError(
            f"{where}: no verdict on {failed.sum()} of {counted.sum()} completions, "
            f"more than task.verify_max_failures={max_failures:g} allows: "
            f"{'; '.join(reasons) or 'the verifier gives no reason'}\n"
            f"{_facts(task, sample, first)}\n"
            f"{remedy}, and start again: the run goes on where it stopped"
        )
    outside = mask & ((rewards < 0) | (rewards > 1))
    if reward_mode != "layer_cake" and outside.any():
        raise VerifierError(
            f"{where}: {outside.sum()} of {mask.sum()} rewards are not in [0, 1], "
            f"such as {rewards[outside][0]:g}: objective.rewards={reward_mode} "
            f"cannot take them\n{_facts(task, sample, outside)}\n"
            "set objective.rewards=layer_cake for rewards of any size, or have the "
            "verifier give 0 to 1, and start again: the run goes on where it stopped"
        )


def graded_warning(
    task: Task, rewards: np.ndarray, mask: np.ndarray, sample: Sample
) -> str | None:
    """Return a warning if binary rewards are expected and some are not 0 or 1.

    Args:
      task: the task whose verifier gave the rewards.
      rewards: (G, M) float.
      mask: (G, M) bool, False where there is no verdict.
      sample: returns the texts of one completion and its prompt, for the message.

    Returns:
      The warning, or None if all rewards are 0 or 1.
    """
    graded = mask & (rewards != 0) & (rewards != 1)
    if not graded.any():
        return None
    value = rewards[graded][0]
    return (
        f"warning: {graded.sum()} of {mask.sum()} rewards are neither 0 nor 1, and "
        f"objective.rewards=binary takes 0.5 and more as correct, less as incorrect: "
        f"{value:g} as {'correct' if value >= 0.5 else 'incorrect'}; set "
        "objective.rewards to layer_cake or mean to train on their values\n"
        f"{_facts(task, sample, graded)}"
    )


def _facts(task: Task, sample: Sample, chosen: np.ndarray) -> str:
    """Return text that names the verifier and shows the first chosen completion."""
    prompt, completion = sample(*np.argwhere(chosen)[0])
    return (
        f"  verifier: {verifier_name(task)}\n"
        f"  prompt: {_cut(prompt)}\n"
        f"  completion: {_cut(completion)}"
    )


def _cut(text: str) -> str:
    left = len(text) - _SHOWN
    shown = repr(text[:_SHOWN])
    return f"{shown} and {left} characters more" if left > 0 else shown
