"""Surrogates made from surrogates: mixtures, functions of pass@k, regularisers.

Sums and multiples are operators of `Surrogate`. The results keep the known forms of a
slope (polynomial, series, powers) where possible, so that the methods `exact` and
`taylor` and closed forms apply to them as well.
"""

import itertools
import math

import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import bernstein as basis
from jaxrl_surrogate.objectives import limits
from jaxrl_surrogate.objectives.elementwise import (
    check_k,
    check_number,
    elementwise,
    powers,
)
from jaxrl_surrogate.objectives.surrogate import (
    Surrogate,
    leading_terms,
    with_limits,
)
from jaxrl_surrogate.objectives.surrogates_at_k import pass_at_k, pass_rate

_PROBE = 64


def interpolate(start: Surrogate, end: Surrogate, share: float) -> Surrogate:
    """Return (1 - share) start + share end.

    At a share of 0 or 1 it returns `start` or `end` itself.

    Raises:
      FieldError: for a share outside [0, 1].

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> half = interpolate(surrogates.log(), surrogates.identity(), 0.5)
    >>> float(half.slope(0.25))
    2.5
    """
    if not 0 <= share <= 1:
        raise FieldError("share", share, "between 0 and 1")
    if share in (0, 1):
        return end if share else start
    return (1 - share) * start + share * end


def at_k(outer: Surrogate, k: int) -> Surrogate:
    """Return the surrogate outer(pass@k(t)): `outer` applied to the best of k answers.

        h(t) = f(1 - q^k),  h'(t) = k q^(k-1) f'(1 - q^k),  q = 1 - t

    f stands for `outer`. GRPO that compares groups of k samples by their best ascends
    at_k(arcsin, k) / k (arXiv 2508.10751, 2510.23049). Where f' is infinite at 1, h'(1)
    is the limit if the leading terms of f' are known, else NaN. Methods that use values
    of h only still apply then.

    Raises:
      ValueError: for a k that is not an integer of 1 or more.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> at_k(surrogates.get("pass_at_k", k=2), 3).bernstein.tolist()
    [6.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    check_k(k)
    if k == 1:
        return outer
    inner = pass_at_k(k)

    def slope(t):
        return outer.slope(inner.value(t)) * inner.slope(t)

    terms = outer.powers
    if terms is not None:
        slope = elementwise(lambda xp, t: _terms_at_k(outer.powers, k, xp, t))
        # Powers of u = 1 - q^k are not sums of powers of t and 1 - t.
        simple = all(a == 0 for _, a, _ in terms)
        terms = tuple((k * w, 0.0, k * (b + 1) - 1) for w, _, b in terms)
        terms = terms if simple else None
    coefficients = None
    if outer.bernstein is not None:
        coefficients = _compose(outer.bernstein, k)

    def leading():
        ends = leading_terms(outer)
        return None if ends is None else limits.at_k(ends, k)

    return Surrogate(
        value=lambda t: outer.value(inner.value(t)),
        slope=with_limits(slope, leading),
        name=f"{outer.name}_of_pass_at_k",
        params={**outer.params, "k": k}
        if "k" not in outer.params
        else {**outer.params, "inner_k": k},
        bernstein=coefficients,
        series=_series_at_k(outer, k),
        powers=terms,
        leading=leading,
    )


def regularize(surrogate: Surrogate, regularizer: str, weight: float) -> Surrogate:
    """Return h + weight * r, with r a regulariser of the reward (arXiv 2510.23049).

    The regularisers measure how uncertain a binary reward is:
      "variance": t (1 - t), slope 1 - 2 t.
      "std": sqrt(t (1 - t)), slope (1 - 2 t) / (2 sqrt(t (1 - t))).
      "entropy": -t log t - (1 - t) log(1 - t), slope log((1 - t) / t).
    The slopes of the last two are +inf at 0 and -inf at 1. With them, h + weight * r
    decreases near 1 for every weight above 0 unless h is as steep there.

    Raises:
      ValueError: for an unknown regulariser or a weight that is not finite.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> regularize(surrogates.identity(), "variance", 1.0).bernstein.tolist()
    [2.0, 0.0]
    """
    if regularizer not in _REGULARIZERS:
        raise unknown("regularizer", regularizer, tuple(_REGULARIZERS))
    check_number("weight", weight)
    return surrogate + weight * _REGULARIZERS[regularizer]()


def _variance():
    return Surrogate(
        value=elementwise(lambda xp, t: t * (1 - t)),
        slope=elementwise(lambda xp, t: 1 - 2 * t),
        name="variance",
        bernstein=np.array([1.0, -1.0]),
        series=lambda n: (powers(n, {0: -1.0, 1: 2.0}), np.zeros(n)),
        powers=((1.0, 0.0, 1.0), (-1.0, 1.0, 0.0)),
    )


def _std():
    return Surrogate(
        value=elementwise(lambda xp, t: xp.sqrt(t * (1 - t))),
        slope=elementwise(lambda xp, t: (1 - 2 * t) / (2 * xp.sqrt(t * (1 - t)))),
        name="std",
        powers=((0.5, -0.5, 0.5), (-0.5, 0.5, -0.5)),
    )


def _entropy():
    def value(xp, t):
        # A double where: neither the value nor its derivative takes log of 0.
        inside = (t > 0) & (t < 1)
        safe = xp.where(inside, t, 0.5)
        return xp.where(inside, -safe * xp.log(safe) - (1 - safe) * xp.log1p(-safe), 0)

    return Surrogate(
        value=elementwise(value),
        slope=elementwise(lambda xp, t: xp.log1p(-t) - xp.log(t)),
        name="entropy",
        leading=lambda: (((1.0, 0.0, 1),), ((-1.0, 0.0, 1),)),
    )


_REGULARIZERS = {"variance": _variance, "std": _std, "entropy": _entropy}


def _terms_at_k(terms, k, xp, t):
    """Return sum w u^a q^(k b) k q^(k-1), u = 1 - q^k.

    The powers of q are multiplied first, which avoids inf * 0 at t = 1.
    """
    q = 1 - t
    u = pass_rate(xp, t, k)
    return sum(k * w * u**a * q ** (k * (b + 1) - 1) for w, a, b in terms)


def _compose(coefficients, k):
    """Return the Bernstein coefficients of k q^(k-1) f'(1 - q^k).

    `coefficients` are those of f'. De Casteljau's recurrence runs on polynomials.
    """
    success = np.ones(k + 1)
    success[0] = 0
    failure = 1 - success
    parts = [np.array([float(c)]) for c in coefficients]
    while len(parts) > 1:
        parts = [
            basis.multiply(failure, low) + basis.multiply(success, high)
            for low, high in itertools.pairwise(parts)
        ]
    inner = np.zeros(k)
    inner[0] = k
    return basis.multiply(inner, parts[0])


def _series_at_k(outer, k):
    """Return the series of k q^(k-1) f'(1 - q^k) in powers of q, or None.

    It exists where f' is a series in powers of 1 - u = q^k alone, u = 1 - q^k.
    """
    if outer.series is None or np.any(outer.series(_PROBE)[1]):
        return None

    def series(n):
        coefficients, _ = outer.series(max(math.ceil(n / k), 1))
        shifted = {
            k * (j + 1) - 1: k * float(c) for j, c in enumerate(coefficients) if c
        }
        return powers(n, shifted), np.zeros(n)

    return series
