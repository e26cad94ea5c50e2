"""Metrics of a batch: rewards, groups, lengths and entropy."""

import numpy as np

from jaxrl_surrogate.batch import Batch


def is_mixed(batch: Batch) -> np.ndarray:
    """Return (G,) bool, True for groups whose verified rewards are not all equal.

    The other groups have no gradient under a centred objective. An uncentred objective
    may give them nonzero weights (`objectives.mixed_groups`).
    """
    highest = np.where(batch.reward_mask, batch.rewards, -np.inf).max(-1)
    lowest = np.where(batch.reward_mask, batch.rewards, np.inf).min(-1)
    return highest > lowest


def group_metrics(batch: Batch, share: float, rounds: int) -> dict[str, float]:
    """Return metrics about mixed groups and refilling.

    Args:
      batch: the batch after refilling.
      share: the fraction of mixed groups among all groups that were sampled.
      rounds: rounds of refilling that were done.
    """
    return {
        "mixed_group_fraction": share,
        "mixed_group_fraction_kept": float(is_mixed(batch).mean()),
        "refill_rounds": rounds,
    }


def batch_metrics(batch: Batch, step: int) -> dict[str, float]:
    """Return the metrics of a step's batch: rewards, groups, lengths, pass@1, pass@M.

    "length" counts all tokens of a completion. "loss_tokens" counts the tokens that the
    policy sampled, and "entropy" is the mean of -log p over them. "policy_lag" is the
    number of steps by which the parameters that sampled the batch are older than those
    at the beginning of the step.
    """
    mask, rewards = batch.reward_mask, batch.rewards
    sizes = mask.sum(-1)
    verified = sizes > 0
    correct = (rewards >= 0.5) & mask
    right = correct.sum(-1)
    lengths = batch.completions.lengths
    counted = batch.completions.loss_mask
    per_token = np.where(counted, batch.completions.sampler_logprobs, 0).sum()

    def share(of):
        return float(of[verified].mean()) if verified.any() else float("nan")

    return {
        "graded": float(((rewards != 0) & (rewards != 1))[mask].mean())
        if mask.any()
        else 0.0,
        "reward": float(rewards[mask].mean()) if mask.any() else float("nan"),
        "pass@1": share(right / np.maximum(sizes, 1)),
        f"pass@{rewards.shape[1]}": share(right > 0),
        "groups_all_correct": share(right == sizes),
        "groups_all_incorrect": share(right == 0),
        "unverified": float(1 - mask.mean()),
        "truncated": float(batch.completions.truncated.mean()),
        "length": float(lengths.mean()),
        "length_max": float(lengths.max()),
        "loss_tokens": float(counted.sum(-1).mean()),
        "entropy": float(-per_token / max(counted.sum(), 1)),
        "completion_tokens": float(lengths.sum()),
        "policy_lag": float((step - 1 - batch.completions.policy_step).mean()),
    }
