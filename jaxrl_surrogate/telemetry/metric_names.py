"""The names of the metrics in metrics.jsonl, known before a run begins."""

from collections.abc import Iterable

_OF_A_STEP = """
    graded reward pass@1 groups_all_correct groups_all_incorrect unverified
    truncated length length_max loss_tokens entropy completion_tokens policy_lag
    mixed_group_fraction mixed_group_fraction_kept refill_rounds loss grad_norm skipped
    ratio_kl clip_fraction excluded_fraction sampler_trainer_logprob_diff_max
    advantage_abs compiles seconds seconds_update tokens_per_second
"""


def evaluated_ks(samples: int) -> list[int]:
    """Return the k whose pass@k is logged: powers of two, and the number of samples."""
    return [k for k in range(1, samples + 1) if k & (k - 1) == 0 or k == samples]


def of_a_step(group_size: int, terms: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the metrics of a training step.

    "entropy" is always the rollout's estimate, the mean of -log p over sampled tokens;
    "entropy_exact" is the mean of the exact entropies that the loss computes.

    Args:
      group_size: M, samples of each prompt.
      terms: names that loss terms add (`losses.term_metrics`).
    """
    return (*_OF_A_STEP.split(), f"pass@{group_size}", *terms)


def of_an_evaluation(ks: Iterable[int]) -> tuple[str, ...]:
    """Return the names of the metrics of an evaluation, interval ends included."""
    ends = ("", "_low", "_high")
    scores = (f"eval/pass@{k}{end}" for k in ks for end in ends)
    return (*scores, "eval/greedy", "eval/problems")
