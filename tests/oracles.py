"""Float64 references for objectives, by another route than the code.

The code works on counts and tables. Here every estimator is a function of one whole
reward vector, as its paper describes it (means, deviations, explicit k-subsets),
expected updates are sums over all 2^M vectors, and closed forms are those of the
theory.
"""

import itertools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from estimator_oracles import ESTIMATORS, SLOPES, best, subsets

GRID = np.linspace(0.02, 0.98, 13)


def reward_vectors(group_size):
    """(2^M, M) float64: every reward vector of a group."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=group_size)))


def expected_update(weights, p):
    """E[g] for a one-parameter policy with P(correct) = p, by enumeration.

    The score of a correct sample is d log p / dp = 1 / p, of an incorrect one -1 / (1 -
    p), so the expected update is the slope of the objective at p.

    Args:
      weights: (2^M, M), the weights of each of `reward_vectors(M)`.
      p: float in (0, 1).
    """
    rewards = reward_vectors(weights.shape[1])
    probability = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    score = np.where(rewards == 1, 1 / p, -1 / (1 - p))
    return float(probability @ (weights * score).mean(axis=1))


def all_weights(name, group_size, **params):
    """(2^M, M): the estimator on every reward vector."""
    estimator = ESTIMATORS[name]
    return np.array([estimator(row, **params) for row in reward_vectors(group_size)])


def mean_update(weights_of, levels, size):
    """p (L,) to F(p): what a mean update is along each probability, by enumeration.

    Args:
      weights_of: (groups, M) rewards to weights.
      levels: (L,) rewards.
      size: M.
    """
    groups = np.array(list(itertools.product(range(len(levels)), repeat=size)))
    weights = np.asarray(weights_of(np.asarray(levels)[groups]))

    def at(p):
        """The mean update as a covector on probabilities, (L,)."""
        chance = jnp.prod(p[groups], axis=1)
        # Score of level l by its probability: 1 / p_l.
        per_level = jnp.stack(
            [
                ((groups == level) * weights).mean(1) / p[level]
                for level in range(len(levels))
            ],
            axis=1,
        )
        return chance @ per_level

    return at


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
    """The share of k-subsets of n samples, c of them right, with a correct one."""
    rewards = (np.arange(num_samples) < num_correct).astype(float)
    return np.mean([best(rewards, s) for s in subsets(num_samples, k)])
