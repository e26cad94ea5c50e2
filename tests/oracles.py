"""Float64 references for objectives, by another route than the code.

The code works on counts and tables. Here every estimator is a function of one whole
reward vector, as its paper describes it (means, deviations, explicit k-subsets),
expected updates are sums over all 2^M vectors, and closed forms are those of the
theory.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

GRID = np.linspace(0.02, 0.98, 13)


def reward_vectors(group_size):
    """(2^M, M) float64: every reward vector of a group."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=group_size)))


def expected_update(weights, p):
    """E[g] for a one-parameter policy with P(right) = p, by enumeration.

    The score of a right sample is d log p / dp = 1 / p, of a wrong one -1 / (1 - p), so
    the expected update is the slope of the objective at p.

    Args:
      weights: (2^M, M), the weights of each of `reward_vectors(M)`.
      p: float in (0, 1).
    """
    rewards = reward_vectors(weights.shape[1])
    probability = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    score = np.where(rewards == 1, 1 / p, -1 / (1 - p))
    return float(probability @ (weights * score).mean(axis=1))


def _spread(rewards, ddof):
    return 0.0 if np.ptp(rewards) == 0 else np.std(rewards, ddof=ddof)


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


def _subsets(size, k):
    return list(itertools.combinations(range(size), k))


def _best(rewards, subset):
    return max((rewards[i] for i in subset), default=0.0)


def _pass_at_k(rewards, k):
    """PKPO loo-1: the best of k minus the best without i, over k-subsets with i."""
    size = len(rewards)
    subsets = _subsets(size, k)
    weights = np.zeros(size)
    for subset in subsets:
        for i in subset:
            rest = [j for j in subset if j != i]
            weights[i] += _best(rewards, subset) - _best(rewards, rest)
    return size * weights / len(subsets)


def _rloo_pass_at_k(rewards, k):
    """k times the share of (k-1)-subsets of the others that are all wrong, centred."""
    size = len(rewards)
    weights = np.zeros(size)
    for i in range(size):
        others = np.delete(rewards, i)
        subsets = _subsets(size - 1, k - 1)
        all_wrong = np.mean([_best(others, subset) == 0 for subset in subsets])
        weights[i] = k * all_wrong * (rewards[i] - others.mean())
    return weights


def _grpo_pass_at_k(rewards, k, epsilon=0.0):
    """GRPO over all k-subsets, each with its best reward; a sample gets their mean."""
    subsets = _subsets(len(rewards), k)
    best = np.array([_best(rewards, subset) for subset in subsets])
    if np.ptp(best) == 0:
        return np.zeros_like(rewards)
    advantages = (best - best.mean()) / (best.std() + epsilon)
    return np.array(
        [
            np.mean([a for a, s in zip(advantages, subsets, strict=True) if i in s])
            for i in range(len(rewards))
        ]
    )


ESTIMATORS = {
    "reinforce": _reinforce,
    "rloo": _rloo,
    "dr_grpo": _dr_grpo,
    "grpo": _grpo,
    "rejection_sampling": _rejection_sampling,
    "maxrl": _maxrl,
    "pass_at_k": _pass_at_k,
    "rloo_pass_at_k": _rloo_pass_at_k,
    "grpo_pass_at_k": _grpo_pass_at_k,
}


def all_weights(name, group_size, **params):
    """(2^M, M): the estimator on every reward vector."""
    estimator = ESTIMATORS[name]
    return np.array([estimator(row, **params) for row in reward_vectors(group_size)])


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


SLOPES = {
    "reinforce": lambda size, p: 1.0,
    "rloo": lambda size, p: 1.0,
    "dr_grpo": lambda size, p: (size - 1) / size,
    "grpo": _grpo_slope,
    "rejection_sampling": lambda size, p: (1 - (1 - p) ** size) / p,
    "maxrl": lambda size, p: (1 - (1 - p) ** (size - 1)) / p,
    "pass_at_k": _pass_at_k_slope,
    "rloo_pass_at_k": _pass_at_k_slope,
    "grpo_pass_at_k": _grpo_pass_at_k_slope,
}


def slope(name, group_size, p, **params):
    """h_M'(p) in the closed form of the theory, p float or array."""
    closed = SLOPES[name]
    return np.vectorize(lambda t: closed(group_size, float(t), **params))(p)


def value(name, group_size, p, **params):
    """h_M(p) = int_0^p h_M', by Gauss-Legendre nodes, exact for these polynomials."""
    nodes, quadrature = np.polynomial.legendre.leggauss(group_size)
    total = [
        t / 2 * quadrature @ slope(name, group_size, t * (nodes + 1) / 2, **params)
        for t in np.atleast_1d(p)
    ]
    return np.array(total).reshape(np.shape(p))


def exact_bernstein(coefficients, t):
    """A polynomial in Bernstein form at one point, in rational arithmetic."""
    n = len(coefficients) - 1
    t = Fraction(float(t))
    total = sum(
        Fraction(float(c)) * math.comb(n, m) * t**m * (1 - t) ** (n - m)
        for m, c in enumerate(coefficients)
    )
    return float(total)


def pass_at_k(num_samples, num_correct, k):
    """The share of k-subsets of n samples, c of them right, with a right one."""
    rewards = (np.arange(num_samples) < num_correct).astype(float)
    return np.mean([_best(rewards, s) for s in _subsets(num_samples, k)])
