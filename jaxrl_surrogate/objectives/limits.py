"""Limits of slopes at 0 and 1, where a formula gives inf - inf or inf * 0.

At a distance x from an end, a slope is a sum of terms w x^e (-log x)^l and of terms
that vanish at the end. This module represents the sum as the tuple of its (w, e, l)
with e <= 0 and l of 0 or 1. The limit is that of the steepest terms that do not cancel.
"""

import math
from collections.abc import Iterable

import numpy as np

Terms = tuple[tuple[float, float, int], ...]
Ends = tuple[Terms, Terms]  # near 0, in t; near 1, in 1 - t

# The rounding left where weights cancel, as a fraction of their sizes.
_ROUNDING = 1e-12


def limit(terms: Terms) -> float:
    """Return the limit of a sum of terms at its end; 0 where all terms cancel.

    >>> limit(((1.0, -0.5, 0), (-1.0, -0.5, 0), (3.0, 0.0, 0)))
    3.0
    >>> limit(((1.0, 0.0, 1), (-0.25, -1.0, 0)))
    -inf
    """
    weights, sizes = {}, {}
    for weight, power, logs in terms:
        key = (round(power, 9), -logs)
        weights[key] = weights.get(key, 0.0) + weight
        sizes[key] = sizes.get(key, 0.0) + abs(weight)
    left = {key for key in weights if abs(weights[key]) > _ROUNDING * sizes[key]}
    if not left:
        return 0.0
    steepest = min(left)
    if steepest == (0.0, 0):
        return weights[steepest]
    return math.copysign(math.inf, weights[steepest])


def of_powers(powers: Iterable[tuple[float, float, float]]) -> Ends:
    """Return the terms at both ends of a sum of w t^a (1-t)^b, given as (w, a, b).

    They come from the binomial series of the other factor.
    """
    near_zero, near_one = [], []
    for weight, a, b in powers:
        for terms, steep, other in ((near_zero, a, b), (near_one, b, a)):
            series = _binomial(other, _orders(steep))
            terms += [(weight * c, steep + j, 0) for j, c in enumerate(series)]
    return tuple(near_zero), tuple(near_one)


def constants(at_zero: float, at_one: float) -> Ends:
    """Return the terms of a slope with finite values at 0 and at 1."""
    return ((at_zero, 0.0, 0),), ((at_one, 0.0, 0),)


def scaled(ends: Ends, factor: float) -> Ends:
    """Return the terms of a multiple of a slope."""
    return tuple(
        tuple((factor * weight, *rest) for weight, *rest in terms) for terms in ends
    )


def added(one: Ends, other: Ends) -> Ends:
    """Return the terms of the sum of two slopes."""
    return one[0] + other[0], one[1] + other[1]


def at_k(ends: Ends, k: int) -> Ends:
    """Return the terms of k q^(k-1) f'(1 - q^k), q = 1 - t, from the terms of f'.

    Near t = 1, f' is at the distance q^k from its end 1. Near t = 0 it is at the
    distance u = 1 - q^k = k t s(t) from its end 0. Here s is a series with s(0) = 1,
    so its powers and its logarithm are series too.
    """
    near_zero = []
    for weight, power, logs in ends[0]:
        size = _orders(power)
        s = [c / -k for c in _binomial(k, size + 1)[1:]]
        series = _product(_series_power(s, power), _binomial(k - 1, size))
        series = [weight * k ** (power + 1) * c for c in series]
        near_zero += [(c, power + j, logs) for j, c in enumerate(series)]
        if logs:
            log = _series_log(s)
            log[0] = math.log(k)
            rest = _product(series, log)
            near_zero += [(-c, power + j, 0) for j, c in enumerate(rest)]
    near_one = (
        (weight * k ** (logs + 1), k * power + k - 1, logs)
        for weight, power, logs in ends[1]
    )
    return tuple(near_zero), tuple(term for term in near_one if term[1] <= 0)


def _orders(power):
    """Return how many terms of x^power times a power series do not vanish at 0."""
    return max(math.floor(-power) + 1, 0)


def _binomial(exponent, size):
    """Return the first `size` coefficients of (1 - x)^exponent."""
    out = [1.0] * min(size, 1)
    for j in range(1, size):
        out.append(out[-1] * (j - 1 - exponent) / j)
    return out


def _product(one, other):
    """Return the product of two series, cut to the length of the first."""
    return np.convolve(one, other)[: len(one)].tolist() if one else []


def _series_power(s, exponent):
    """Return the series s^exponent for s(0) = 1, by J. C. P. Miller's recurrence."""
    out = [1.0] * min(len(s), 1)
    for n in range(1, len(s)):
        parts = ((i * exponent - (n - i)) * s[i] * out[n - i] for i in range(1, n + 1))
        out.append(sum(parts) / n)
    return out


def _series_log(s):
    """Return the series log s for s(0) = 1."""
    out = [0.0] * min(len(s), 1)
    for n in range(1, len(s)):
        parts = (i * out[i] * s[n - i] for i in range(1, n))
        out.append(s[n] - sum(parts) / n)
    return out
