"""Surrogates from surrogates: mixtures, pass@k inside, regularisers of the reward.

Sums and multiples are operators of `Surrogate`. What is known of a slope (polynomial,
series, powers) is kept wherever it can be, so that `exact`, `taylor` and closed forms
go on to serve the result.
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
    """(1 - share) start + share end; the surrogates themselves at 0 and 1.

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
    """outer(pass@k(t)): what maximising `outer` of the best of k means for t.

        h(t) = f(1 - q^k),  h'(t) = k q^(k-1) f'(1 - q^k),  q = 1 - t

    GRPO over groups of k ascends arcsin at_k (arXiv 2508.10751, 2510.23049), times 1/k
    for each sample. Where f' is infinite at 1, h' is what the limit says; of a function
    whose slope is infinite in an unknown way it is NaN there, and methods that use
    values of h are not concerned.

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
        # Powers of u = 1 - q^k itself are none of t.
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
    """h + weight * r, r a measure of how undecided the reward is (arXiv 2510.23049).

    "variance" t (1 - t), slope 1 - 2 t; "std" its root, slope (1 - 2 t) / (2 root);
    "entropy" -t log t - (1 - t) log(1 - t), slope log((1 - t) / t). The slopes of the
    last two are infinite at both ends, +inf at 0 and -inf at 1, so that h decreases
    near 1 for any weight above 0 unless that of the surrogate is as steep.

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
        # Double where: no logarithm of 0, in the derivative either.
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
    """sum w u^a q^(k b) k q^(k-1), whose factors at t = 1 meet before they multiply."""
    q = 1 - t
    u = pass_rate(xp, t, k)
    return sum(k * w * u**a * q ** (k * (b + 1) - 1) for w, a, b in terms)


def _compose(coefficients, k):
    """Bernstein form of k q^(k-1) f'(1 - q^k), by de Casteljau with polynomials."""
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
    """Powers of 1 - u = q^k stay powers of q; powers of u do not."""
    if outer.series is None or np.any(outer.series(_PROBE)[1]):
        return None

    def series(n):
        coefficients, _ = outer.series(max(math.ceil(n / k), 1))
        shifted = {
            k * (j + 1) - 1: k * float(c) for j, c in enumerate(coefficients) if c
        }
        return powers(n, shifted), np.zeros(n)

    return series
