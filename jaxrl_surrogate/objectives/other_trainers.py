"""The advantages of other trainers, reproduced weight for weight.

Each rule is a trainer's formula for the rewards of one group, with its standard
deviation, its epsilon, its convention for groups of one and its special cases of graded
rewards. On binary rewards it is a table, which `advantages.get("verl:grpo")` returns,
so its objective can be analysed and trained. Rules that depend on more than one group
(whitening over a batch) or on lengths are not tables and are not included. Published
code computes in float32, where an all-equal group can get rounding noise divided by
epsilon. In the float64 of this module the deviation of equal rewards is exactly 0.

The rules were read from the 2026 releases of verl, TRL, OpenRLHF, oat, AReaL, slime,
NeMo-RL, open-instruct, prime-rl, tinker, torchforge, SkyRL, MaxRL and RUCAIBox's Pass@k
training.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.tabulation import tabulate
from jaxrl_surrogate.objectives.weight_table import WeightTable

Rule = Callable[[np.ndarray], np.ndarray]


def _deviation(rewards: np.ndarray, ddof: int) -> float:
    """Return the standard deviation, exactly 0 where all rewards are equal."""
    if rewards.min() == rewards.max():
        return 0.0
    return float(rewards.std(ddof=ddof))


def _standardised(
    rewards: np.ndarray, epsilon: float, ddof: int = 1, single: str = "zero"
) -> np.ndarray:
    """Return (r - mean) / (std + epsilon).

    A group of one gets 0, or with `single="raw"` its reward over 1 + epsilon.
    """
    if len(rewards) == 1:
        return rewards / (1 + epsilon) if single == "raw" else 0 * rewards
    return _centred(rewards) / (_deviation(rewards, ddof) + epsilon)


def _centred(rewards: np.ndarray, single: str = "zero") -> np.ndarray:
    """Return r - mean; with `single="raw"` a group of one keeps its reward."""
    if len(rewards) == 1 and single == "raw":
        return rewards
    if rewards.min() == rewards.max():
        return 0 * rewards
    return rewards - rewards.mean()


def _leave_one_out(rewards: np.ndarray, single: str = "zero") -> np.ndarray:
    """Return r minus the mean of the others; groups of one are as in `_centred`."""
    if len(rewards) == 1:
        return rewards if single == "raw" else 0 * rewards
    return _centred(rewards) * len(rewards) / (len(rewards) - 1)


def _over_positive_mean(rewards: np.ndarray) -> np.ndarray:
    """Return prime-rl's (r - mean) / mean, and 0 where the mean is 0 or negative."""
    mean = rewards.mean()
    return _centred(rewards) / mean if mean > 0 else 0 * rewards


def _over_any_mean(
    rewards: np.ndarray, epsilon: float = 1e-6, single: str = "raw"
) -> np.ndarray:
    """Return (r - mean) / (mean + epsilon) for a mean of any sign.

    Rewards of both signs whose mean is 0 are divided by epsilon alone.
    """
    if len(rewards) > 1:
        return _centred(rewards) / (rewards.mean() + epsilon)
    if single == "refused":
        raise FieldError(
            "group_size",
            1,
            problem="the MaxRL release takes the mean of one sample as 0 and divides "
            f"its reward by {epsilon:g}",
            remedy="take groups of 2 or more",
        )
    return rewards


def _best_less_second(rewards: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """Return verl's grpo_passk.

    The best sample gets its lead over the second best, divided by std + epsilon, and
    every other sample 0.
    """
    if len(rewards) < 2:
        raise FieldError(
            "group_size", 1, problem="verl's grpo_passk takes 2 samples or more"
        )
    lead = np.sort(rewards)[-1] - np.sort(rewards)[-2]
    out = np.zeros(len(rewards))
    out[np.argmax(rewards)] = lead / (_deviation(rewards, 1) + epsilon)
    return out


def _of_the_others(rewards: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """Return NeMo-RL's (r - mean) / std, with mean and std of the other samples.

    Where that std is 0, the difference is not divided. The others of a single correct
    sample are all incorrect, so its advantage stays 1, while each of two correct ones
    is divided by a small std. Hard prompts therefore get smaller weights.
    """
    if len(rewards) == 1:
        return 0 * rewards
    out = _leave_one_out(rewards)
    for value in np.unique(rewards):  # samples of one reward have the same others
        same = rewards == value
        others = np.delete(rewards, np.argmax(same))
        # One other has no deviation: it is left out of the division.
        std = _deviation(others, 1) if len(others) > 1 else 0.0
        if std > 0:
            out[same] /= std + epsilon
    return out


def _pass_at_k_training(rewards: np.ndarray, k: int, epsilon: float) -> np.ndarray:
    """Return the advantages of Chen et al., arXiv 2508.10751, eqs. 11-15.

    Epsilon is that of their release. The release counts rewards of exactly 1 as correct
    and replaces rewards of exactly 1 or 0 by advantages. Any other reward remains as
    the weight of its sample.
    """
    size, right = len(rewards), int((rewards == 1).sum())
    if not 1 <= k <= size:
        raise FieldError("k", k, f"1 to the group size {size}")
    miss = _share_without(size, right, k)
    scale = np.sqrt(miss * (1 - miss)) + epsilon
    wrong = miss - _share_without(size - 1, right, k - 1)
    advantages = np.where(rewards == 1, miss / scale, wrong / scale)
    return np.where((rewards == 0) | (rewards == 1), advantages, rewards)


def _fake_leave_one_out(rewards: np.ndarray, k: int) -> np.ndarray:
    """Return the "pkpo" of the MaxRL release.

    Its baseline is not leave-one-out: the others' transformed rewards depend on the
    sample's own reward. Rewards are first rounded, halves to the even integer, and
    their sum is taken as the number of correct samples: a reward of 2 counts as two.
    """
    size = len(rewards)
    if not 1 <= k <= size:
        raise FieldError("k", k, f"1 to the group size {size}")
    rounded = np.round(rewards)
    wrong = size - int(rounded.sum())
    missing = math.comb(max(wrong, 0), k - 1) / math.comb(size - 1, k - 1)
    shaped = rounded * missing
    return shaped if size == 1 else (size * shaped - shaped.sum()) / (size - 1)


def _share_without(size: int, right: int, k: int) -> float:
    """Return C(size - right, k) / C(size, k)."""
    i = np.arange(k)
    return float(np.prod(np.maximum(size - right - i, 0) / (size - i)))


_GRPO = functools.partial(_standardised, epsilon=1e-6, single="raw")
_RULES: dict[str, Callable[..., np.ndarray]] = {
    "verl:grpo": _GRPO,
    "verl:dr_grpo": functools.partial(_centred, single="raw"),
    "verl:grpo_passk": _best_less_second,
    "verl:rloo": functools.partial(_leave_one_out, single="raw"),
    "verl:rloo_vectorized": _leave_one_out,
    "trl:grpo": functools.partial(_standardised, epsilon=1e-4),
    "trl:rloo": _leave_one_out,
    "openrlhf:rloo": _leave_one_out,
    "openrlhf:dr_grpo": _centred,
    "openrlhf:group_norm": functools.partial(_standardised, epsilon=1e-9),
    "oat:grpo": functools.partial(_standardised, epsilon=1e-8),
    "oat:drgrpo": _centred,
    "areal:grpo": functools.partial(_standardised, epsilon=1e-5),
    "slime:grpo": functools.partial(_standardised, epsilon=1e-6),
    "nemo:grpo": _of_the_others,
    "open_instruct:centered": _centred,
    "open_instruct:standard": functools.partial(_standardised, epsilon=1e-8, ddof=0),
    "prime_rl:grpo": _centred,
    "prime_rl:max_rl": _over_positive_mean,
    "tinker:grpo": _centred,
    "forge:grpo": functools.partial(_standardised, epsilon=1e-4),
    "skyrl:grpo": _GRPO,
    "skyrl:rloo": _leave_one_out,
    "skyrl:maxrl": _over_any_mean,
    "maxrl:maxrl": functools.partial(_over_any_mean, single="refused"),
    "maxrl:pkpo": _fake_leave_one_out,
    "passk_training:analytic": functools.partial(_pass_at_k_training, epsilon=1e-6),
}


def names() -> tuple[str, ...]:
    """Return the names of the registered rules, each `trainer:rule`."""
    return tuple(_RULES)


def rule(name: str, **params) -> Rule:
    """Return a trainer's rule, a function of (M,) rewards to (M,) weights.

    It also reproduces what the trainer does with graded rewards. When it is called, it
    raises ValueError for a group size or k that it does not support.
    """
    return functools.partial(_RULES[name], **params)


def table(name: str, group_size: int, **params) -> WeightTable:
    """Return the float64 weight table of a trainer's rule.

    Args:
      name: one of `names()`.
      group_size: M.
      params: the parameters of the rule, such as k.

    Raises:
      ValueError: for a group size or a parameter that the rule does not support.

    >>> print(table("nemo:grpo", 8).gap.round(2))
    [1.   2.65 2.05 1.87 1.87 2.05 2.65 1.  ]
    """
    of = rule(name, **params)
    return tabulate(lambda rewards: of(np.asarray(rewards, np.float64)), group_size)


def parameters(name: str) -> tuple[str, ...]:
    """Return the names of the parameters that a rule requires from the user."""
    return ("k",) if name in ("maxrl:pkpo", "passk_training:analytic") else ()
