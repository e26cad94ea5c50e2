"""Limits of slopes at 0 and 1, where terms that are infinite meet: inf - inf, inf * 0.

Near an end, at the distance x from it, a slope is a sum of terms w x^e (-log x)^l and
of others that vanish there. Here such a sum is the tuple of its (w, e, l) with e <= 0,
l 0 or 1, exactly known; the steepest that is left after adding up is the limit.
"""

import math
from collections.abc import Iterable

import numpy as np

Terms = tuple[tuple[float, float, int], ...]
Ends = tuple[Terms, Terms]  # near 0, in t; near 1, in 1 - t

# What rounding may leave of weights that cancel, as a share of them.
_ROUNDING = 1e-12


def limit(terms: Terms) -> float:
    """The value at the end: of the steepest terms that do not cancel, else 0.

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
    """Of terms (w, a, b) of w t^a (1-t)^b, by the binomial series at either end."""
    near_zero, near_one = [], []
    for weight, a, b in powers:
        for terms, steep, other in ((near_zero, a, b), (near_one, b, a)):
            series = _binomial(other, _orders(steep))
            terms += [(weight * c, steep + j, 0) for j, c in enumerate(series)]
    return tuple(near_zero), tuple(near_one)


def constants(at_zero: float, at_one: float) -> Ends:
    """Of a slope that is finite at both ends."""
    return ((at_zero, 0.0, 0),), ((at_one, 0.0, 0),)


def scaled(ends: Ends, factor: float) -> Ends:
    """Of a multiple."""
    return tuple(
        tuple((factor * weight, *rest) for weight, *rest in terms) for terms in ends
    )


def added(one: Ends, other: Ends) -> Ends:
    """Of a sum."""
    return one[0] + other[0], one[1] + other[1]


def at_k(ends: Ends, k: int) -> Ends:
    """Of k q^(k-1) f'(1 - q^k), q = 1 - t, from the terms of f'.

    Near 1 the distance is q^k. Near 0 it is u = 1 - q^k = k t s(t), s a series with
    s(0) = 1, whose powers and logarithm are series too.
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
    """How many terms of a series of whole powers, times x^power, do not vanish."""
    return max(math.floor(-power) + 1, 0)


def _binomial(exponent, size):
    """`size` coefficients of (1 - x)^exponent."""
    out = [1.0] * min(size, 1)
    for j in range(1, size):
        out.append(out[-1] * (j - 1 - exponent) / j)
    return out


def _product(one, other):
    """The product of two series, as long as they are."""
    return np.convolve(one, other)[: len(one)].tolist() if one else []


def _series_power(s, exponent):
    """s^exponent, s(0) = 1 (J. C. P. Miller's recurrence)."""
    out = [1.0] * min(len(s), 1)
    for n in range(1, len(s)):
        parts = ((i * exponent - (n - i)) * s[i] * out[n - i] for i in range(1, n + 1))
        out.append(sum(parts) / n)
    return out


def _series_log(s):
    """log s, s(0) = 1."""
    out = [0.0] * min(len(s), 1)
    for n in range(1, len(s)):
        parts = (i * out[i] * s[n - i] for i in range(1, n))
        out.append(s[n] - sum(parts) / n)
    return out
