"""Every estimator as its paper describes it, on one whole reward vector, in float64.

Means, deviations and explicit subsets, and closed forms of the slope: another route
than the tables of the code.
"""

import itertools
import math

import numpy as np


def _reinforce(rewards):
    return rewards


def _rloo(rewards):
    others = [np.delete(rewards, i).mean() for i in range(len(rewards))]
    return rewards - np.array(others)


def _dr_grpo(rewards):
    return rewards - rewards.mean()


def _grpo(rewards, std="population", epsilon=0.0, epsilon_inside=False):
    if np.ptp(rewards) == 0:
        return np.zeros_like(rewards)
    spread = np.std(rewards, ddof=0 if std == "population" else 1)
    scale = np.sqrt(spread**2 + epsilon) if epsilon_inside else spread + epsilon
    return (rewards - rewards.mean()) / scale


def _rejection_sampling(rewards):
    if not rewards.any():
        return np.zeros_like(rewards)
    return len(rewards) * rewards / rewards.sum()


def _maxrl(rewards):
    if not rewards.any():
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / rewards.mean()


def subsets(size, k):
    return list(itertools.combinations(range(size), k))


def best(rewards, subset):
    return max((rewards[i] for i in subset), default=0.0)


def _pass_at_k(rewards, k):
    """PKPO loo-1: the best of k minus the best without i, over k-subsets with i."""
    size = len(rewards)
    chosen = subsets(size, k)
    weights = np.zeros(size)
    for subset in chosen:
        for i in subset:
            rest = [j for j in subset if j != i]
            weights[i] += best(rewards, subset) - best(rewards, rest)
    return size * weights / len(chosen)


def _rloo_pass_at_k(rewards, k):
    """k times the share of (k-1)-subsets of the others, all incorrect, centred."""
    size = len(rewards)
    weights = np.zeros(size)
    for i in range(size):
        others = np.delete(rewards, i)
        chosen = subsets(size - 1, k - 1)
        all_wrong = np.mean([best(others, subset) == 0 for subset in chosen])
        weights[i] = k * all_wrong * (rewards[i] - others.mean())
    return weights


def _grpo_pass_at_k(rewards, k, epsilon=0.0):
    """GRPO over all k-subsets, each with its best reward; a sample gets their mean."""
    chosen = subsets(len(rewards), k)
    found = np.array([best(rewards, subset) for subset in chosen])
    if np.ptp(found) == 0:
        return np.zeros_like(rewards)
    advantages = (found - found.mean()) / (found.std() + epsilon)
    return np.array(
        [
            np.mean([a for a, s in zip(advantages, chosen, strict=True) if i in s])
            for i in range(len(rewards))
        ]
    )


def _asymmetric_grpo(rewards, delta=2.0):
    centred = rewards - rewards.mean()
    return np.where(centred < 0, centred / delta, centred)


def _variance_grpo(rewards):
    variance = rewards.var()
    return (rewards - rewards.mean()) / variance if variance else 0 * rewards


def _rejection_control(rewards):
    return _rejection_sampling(rewards) - 1


def _rejection_loo(rewards):
    others = (rewards.sum() - rewards) / (len(rewards) - 1)
    return len(rewards) / (rewards.sum() - rewards + 1) * (rewards - others)


def _best_of_n_sft(rewards):
    if not rewards.any():
        return np.ones_like(rewards)
    return len(rewards) * rewards / rewards.sum()


def _truncated_maxrl(rewards, order):
    """Incorrect samples: minus the chance of all-incorrect companies of 2 .. T."""
    size, wrong = len(rewards), int((1 - rewards).sum())
    against = sum(
        math.comb(wrong - 1, k - 1) / math.comb(size - 1, k - 1)
        for k in range(2, order + 1)
        if wrong
    )
    return np.where(rewards == 1, 1.0, -against)


def _two_sided_rejection(rewards):
    right, wrong = rewards.sum(), (1 - rewards).sum()
    size = len(rewards)
    out = np.zeros(size)
    out[rewards == 1] = size / max(right, 1)
    out[rewards == 0] = -size / max(wrong, 1)
    return out


def _loo(rewards, gap):
    """d_S (R - S / (M - 1)), the gap a function of S."""
    others = rewards.sum() - rewards
    gaps = np.array([gap(int(s)) for s in others])
    return gaps * (rewards - others / (len(rewards) - 1))


def _tsallis(rewards, r=0.5):
    size, log = len(rewards), math.lgamma
    return _loo(
        rewards,
        lambda s: math.exp(log(size + r) + log(s + 1) - log(size) - log(s + 1 + r)),
    )


def _mmpo(rewards, order=None):
    size = len(rewards)
    if order is None:  # the closed sum
        return _loo(rewards, lambda s: size * (size + 1) / ((s + 1) * (s + 2)))
    return sum(_rloo_pass_at_k(rewards, k) for k in range(1, order + 1))


def _softmax_grpo(rewards, tau=1.0):
    exponentials = np.exp((rewards - rewards.max()) / tau)
    return len(rewards) * exponentials / exponentials.sum() - 1


def _rs_grpo(rewards, beta=2.0):
    exponentials = np.exp(beta * rewards)
    return (exponentials / exponentials.mean() - 1) / beta


def _one_sided_grpo(rewards, epsilon=0.0):
    if not rewards.any():
        return 0 * rewards
    return (rewards - rewards.mean()) / (np.sqrt(rewards.mean()) + epsilon)


def _group_max(rewards):
    return np.full(len(rewards), len(rewards) * rewards.max())


def _leave_one_out_max(rewards):
    others = [
        best(np.delete(rewards, i), range(len(rewards) - 1))
        for i in range(len(rewards))
    ]
    return len(rewards) * (rewards.max() - np.array(others))


def _pkpo(rewards, k):
    """k times the mean best over the k-subsets that hold the sample."""
    size = len(rewards)
    chosen = subsets(size, k)
    return np.array(
        [k * np.mean([best(rewards, s) for s in chosen if i in s]) for i in range(size)]
    )


def _pkpo_loo(rewards, k):
    size = len(rewards)
    baselines = []
    for i in range(size):
        others = np.delete(rewards, i)
        baselines.append(np.mean([best(others, s) for s in subsets(size - 1, k)]))
    return _pkpo(rewards, k) - size / (size - 1) * k * np.array(baselines)


def _dr_grpo_pass_at_k(rewards, k):
    """Centred best of k over all k-subsets; a sample gets the mean of its subsets."""
    size = len(rewards)
    chosen = subsets(size, k)
    found = np.array([best(rewards, s) for s in chosen])
    return (
        np.array(
            [
                np.mean([x for x, s in zip(found, chosen, strict=True) if i in s])
                for i in range(size)
            ]
        )
        - found.mean()
    )


def _centred_pass_at_k(rewards, k):
    size = len(rewards)
    return _dr_grpo_pass_at_k(rewards, k) * size * k / (size - k)


def _partitions(members, k):
    """All ways to cut `members` into blocks of k."""
    if not members:
        yield []
        return
    first, rest = members[0], members[1:]
    for mates in itertools.combinations(rest, k - 1):
        left = [x for x in rest if x not in mates]
        for blocks in _partitions(left, k):
            yield [(first, *mates), *blocks]


def _full_sampling_pass_at_k(rewards, k):
    """GRPO over disjoint blocks, averaged over all ways to cut the group."""
    size = len(rewards)
    total, number = np.zeros(size), 0
    for blocks in _partitions(list(range(size)), k):
        advantages = _grpo(np.array([best(rewards, block) for block in blocks]))
        for advantage, block in zip(advantages, blocks, strict=True):
            total[list(block)] += advantage
        number += 1
    return total / number


def _plugin_pass_at_k(rewards, k):
    mean, size = rewards.mean(), len(rewards)
    return k * (1 - mean) ** (k - 1) * (rewards - mean) * size / (size - 1)


def _plugin_loo_pass_at_k(rewards, k):
    size = len(rewards)
    return _loo(rewards, lambda s: k * (1 - s / (size - 1)) ** (k - 1))


def _combined_pass_at_k(rewards, k):
    mean = rewards.mean()
    return mean * _grpo_pass_at_k(rewards, k) + (1 - mean) * _grpo(rewards)


def _focal_grpo(rewards, gamma=1.0):
    return (1 - rewards.mean()) ** gamma * _grpo(rewards)


def _easy_grpo(rewards, gamma=1.0):
    return rewards.mean() ** gamma * _grpo(rewards)


def _regularized_grpo(rewards, weight=0.5):
    return (1 + weight * (0.5 - rewards.mean())) * _grpo(rewards)


def _fade(rewards, alpha=2.0, delta=1.0):
    if np.ptp(rewards) == 0:
        return 0 * rewards
    shaped = (1 - rewards.mean()) ** (alpha - 1) * (rewards - rewards.mean())
    return np.where(shaped < 0, shaped / delta, shaped)


def _over_counts(group_size, p, term):
    """E[term(m)], m ~ Bin(M, p), over the mixed groups 0 < m < M."""
    return sum(
        math.comb(group_size, m) * p**m * (1 - p) ** (group_size - m) * term(m)
        for m in range(1, group_size)
    )


def _grpo_slope(size, p, std="population", epsilon=0.0, epsilon_inside=False):
    def term(m):
        share = m / size
        variance = share * (1 - share)
        shown = variance * (size / (size - 1) if std == "sample" else 1)
        scale = math.sqrt(shown + epsilon) if epsilon_inside else None
        return variance / (scale or math.sqrt(shown) + epsilon)

    return _over_counts(size, p, term) / (p * (1 - p))


def _grpo_pass_at_k_slope(size, p, k, epsilon=0.0):
    def term(m):
        rho = 1 - math.comb(size - m, k) / math.comb(size, k)
        if rho == 1:
            return 0.0
        return m * (1 - rho) / (math.sqrt(rho * (1 - rho)) + epsilon)

    return _over_counts(size, p, term) / (size * p * (1 - p))


def _pass_at_k_slope(size, p, k):
    return k * (1 - p) ** (k - 1)


def _centred_slope(size, p, factor):
    """E[t (1 - t) w(t)] / (p q) of weights (R - t) w(t), t = m / M (THEORY M4)."""

    def term(m):
        t = m / size
        return t * (1 - t) * factor(t)

    return _over_counts(size, p, term) / (p * (1 - p))


def _standardised(t):
    return 1 / math.sqrt(t * (1 - t))


def _two_sided(size, p, unmixed):
    q = 1 - p
    if unmixed:
        return (1 - q**size) / p + (1 - p**size) / q
    return (1 - p**size - q**size) / (p * q)


def _rejection_slope(order, p):
    return (1 - (1 - p) ** order) / p


def _tsallis_slope(size, p, r=0.5):
    rising = [math.prod((r + i) / (i + 1) for i in range(j)) for j in range(size)]
    return sum(x * (1 - p) ** j for j, x in enumerate(rising))


def _softmax_slope(size, p, tau=1.0):
    """The mean over the others of the published gap."""
    rise, total = math.exp(1 / tau) - 1, 0.0
    for s in range(size):
        chance = math.comb(size - 1, s) * p**s * (1 - p) ** (size - 1 - s)
        right, wrong = size + (s + 1) * rise, size + s * rise
        total += chance * size * ((rise + 1) / right - 1 / wrong)
    return total


def _bernstein_slope(size, p, slope):
    return sum(
        math.comb(size - 1, s)
        * p**s
        * (1 - p) ** (size - 1 - s)
        * slope(s / (size - 1))
        for s in range(size)
    )


def _combined_slope(size, p, k):
    def term(m):
        rho = 1 - math.comb(size - m, k) / math.comb(size, k)
        t = m / size
        at_k = math.sqrt((1 - rho) / rho)
        return t * (t * at_k + (1 - t) * math.sqrt((1 - t) / t))

    return _over_counts(size, p, term) / (p * (1 - p))


# Name to the weights of a reward vector, and to the slope (size, p, parameters).
_RULES = {
    "reinforce": (
        _reinforce,
        lambda size, p: 1.0,
    ),
    "nsr": (
        lambda rewards: rewards - 1,
        lambda size, p: 1.0,
    ),
    "w_reinforce": (
        lambda rewards, weight=0.1: np.where(rewards == 1, weight, -1.0),
        lambda size, p, weight=0.1: 1 + weight,
    ),
    "rloo": (
        _rloo,
        lambda size, p: 1.0,
    ),
    "dr_grpo": (
        _dr_grpo,
        lambda size, p: (size - 1) / size,
    ),
    "asymmetric_grpo": (
        _asymmetric_grpo,
        lambda size, p, delta=2.0: (size - 1) / size * (1 - p + p / delta),
    ),
    "grpo": (
        _grpo,
        _grpo_slope,
    ),
    "variance_grpo": (
        _variance_grpo,
        lambda size, p: _two_sided(size, p, False),
    ),
    "rejection_sampling": (
        _rejection_sampling,
        _rejection_slope,
    ),
    "rejection_control": (
        _rejection_control,
        _rejection_slope,
    ),
    "rejection_loo": (
        _rejection_loo,
        _rejection_slope,
    ),
    "best_of_n_sft": (
        _best_of_n_sft,
        lambda size, p: _rejection_slope(size - 1, p),
    ),
    "maxrl": (
        _maxrl,
        lambda size, p: _rejection_slope(size - 1, p),
    ),
    "truncated_maxrl": (
        _truncated_maxrl,
        lambda size, p, order: _rejection_slope(order, p),
    ),
    "two_sided_rejection": (
        _two_sided_rejection,
        lambda size, p: _two_sided(size, p, True),
    ),
    "tsallis": (
        _tsallis,
        _tsallis_slope,
    ),
    "mmpo": (
        _mmpo,
        lambda size, p, order=None: sum(
            k * (1 - p) ** (k - 1) for k in range(1, (order or size) + 1)
        ),
    ),
    "softmax_grpo": (
        _softmax_grpo,
        _softmax_slope,
    ),
    "rs_grpo": (
        _rs_grpo,
        lambda size, p, beta=2.0: _softmax_slope(size, p, 1 / beta) / beta,
    ),
    "one_sided_grpo": (
        _one_sided_grpo,
        lambda size, p, epsilon=0.0: _centred_slope(
            size, p, lambda t: 1 / (math.sqrt(t) + epsilon)
        ),
    ),
    "group_max": (
        _group_max,
        lambda size, p: size * (1 - p) ** (size - 1),
    ),
    "leave_one_out_max": (
        _leave_one_out_max,
        lambda size, p: size * (1 - p) ** (size - 1),
    ),
    "pkpo": (
        _pkpo,
        _pass_at_k_slope,
    ),
    "pkpo_loo": (
        _pkpo_loo,
        _pass_at_k_slope,
    ),
    "pass_at_k": (
        _pass_at_k,
        _pass_at_k_slope,
    ),
    "rloo_pass_at_k": (
        _rloo_pass_at_k,
        _pass_at_k_slope,
    ),
    "centred_pass_at_k": (
        _centred_pass_at_k,
        _pass_at_k_slope,
    ),
    "dr_grpo_pass_at_k": (
        _dr_grpo_pass_at_k,
        lambda size, p, k: (size - k) / size * (1 - p) ** (k - 1),
    ),
    "grpo_pass_at_k": (
        _grpo_pass_at_k,
        _grpo_pass_at_k_slope,
    ),
    "full_sampling_pass_at_k": (
        _full_sampling_pass_at_k,
        lambda size, p, k: (
            (1 - p) ** (k - 1) * _grpo_slope(size // k, 1 - (1 - p) ** k)
        ),
    ),
    "plugin_pass_at_k": (
        _plugin_pass_at_k,
        lambda size, p, k: (
            size
            / (size - 1)
            * _centred_slope(size, p, lambda t: k * (1 - t) ** (k - 1))
        ),
    ),
    "plugin_loo_pass_at_k": (
        _plugin_loo_pass_at_k,
        lambda size, p, k: _bernstein_slope(size, p, lambda t: k * (1 - t) ** (k - 1)),
    ),
    "combined_pass_at_k": (
        _combined_pass_at_k,
        _combined_slope,
    ),
    "focal_grpo": (
        _focal_grpo,
        lambda size, p, gamma=1.0: _centred_slope(
            size, p, lambda t: (1 - t) ** gamma * _standardised(t)
        ),
    ),
    "easy_grpo": (
        _easy_grpo,
        lambda size, p, gamma=1.0: _centred_slope(
            size, p, lambda t: t**gamma * _standardised(t)
        ),
    ),
    "regularized_grpo": (
        _regularized_grpo,
        lambda size, p, weight=0.5: _centred_slope(
            size, p, lambda t: (1 + weight * (1 - 2 * t) / 2) * _standardised(t)
        ),
    ),
    "fade": (
        _fade,
        lambda size, p, alpha=2.0, delta=1.0: (
            (1 - p + p / delta)
            * _centred_slope(size, p, lambda t: (1 - t) ** (alpha - 1))
        ),
    ),
}
ESTIMATORS = {name: rule[0] for name, rule in _RULES.items()}
SLOPES = {name: rule[1] for name, rule in _RULES.items()}
