"""Surrogates: monotone transforms h of the probability p of a right answer.

A method with the surrogate h climbs E[h(p)] over prompts; its slope h' is the weight of
a prompt's gradient at p. `value` and `slope` take NumPy (computed in float64) or JAX
arrays (traceable), elementwise on [0, 1]; infinite ends are returned as infinities.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.objectives.names import check_parameters, nearest_name


@dataclasses.dataclass(frozen=True, eq=False)
class Surrogate:
    """h and its slope h', with what is known of the slope as a polynomial or a series.

    >>> square = Surrogate(lambda t: t**2, lambda t: 2 * t, name="square")
    >>> square.slope(0.5)
    1.0
    """

    value: Callable[[Any], Any]  # h, elementwise
    slope: Callable[[Any], Any]  # h', elementwise
    name: str = "custom"
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # (n + 1,) float64, the slope in the Bernstein basis of its degree n; None where the
    # slope is not known to be a polynomial.
    bernstein: np.ndarray | None = None
    # n -> two (n,) float64 arrays, the first coefficients of the slope's series in
    # powers of 1 - t and of t (the slope is their sum); None where it has no such
    # series.
    series: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None


def get(name: str, **params) -> Surrogate:
    """The surrogate of a registered name.

    Raises:
      ValueError: for an unknown name or parameter (the nearest is named), a missing
        parameter, or a value out of range.

    >>> float(get("pass_at_k", k=2).value(0.5))
    0.75
    """
    if name not in _SURROGATES:
        raise ValueError(nearest_name("surrogate", name, names()))
    make = _SURROGATES[name]
    check_parameters(make, name, params)
    return make(**params)


def names() -> tuple[str, ...]:
    """The registered names, in the order of THEORY: pass@1, log family, pass@k."""
    return tuple(_SURROGATES)


def identity() -> Surrogate:
    """h(t) = t: the mean reward itself (REINFORCE, RLOO)."""
    return Surrogate(
        value=_elementwise(lambda xp, t: t),
        slope=_elementwise(lambda xp, t: xp.ones_like(t)),
        name="identity",
        bernstein=np.ones(1),
        series=lambda n: (_powers(n, {0: 1.0}), np.zeros(n)),
    )


def log() -> Surrogate:
    """h(t) = log t, h'(t) = 1 / t: maximum likelihood (rejection sampling, MaxRL).

    -inf at t = 0, where the slope is infinite. 1 / t = sum_j (1 - t)^j.
    """
    return Surrogate(
        value=_elementwise(lambda xp, t: xp.log(t)),
        slope=_elementwise(lambda xp, t: 1 / t),
        name="log",
        series=lambda n: (np.ones(n), np.zeros(n)),
    )


def arcsin() -> Surrogate:
    """h(t) = 2 arcsin sqrt(t), h'(t) = 1 / sqrt(t (1 - t)): the limit of GRPO.

    Finite everywhere; the slope is infinite at both ends.
    """
    return Surrogate(
        # As an angle: arcsin alone loses half the digits near t = 1.
        value=_elementwise(lambda xp, t: 2 * xp.arctan2(xp.sqrt(t), xp.sqrt(1 - t))),
        slope=_elementwise(lambda xp, t: 1 / xp.sqrt(t * (1 - t))),
        name="arcsin",
    )


def logit() -> Surrogate:
    """h(t) = log(t / (1 - t)), h'(t) = 1 / (t (1 - t)): log-odds.

    Infinite at both ends. h' = 1 / t + 1 / (1 - t) = sum_j (1 - t)^j + sum_j t^j.
    """
    return Surrogate(
        value=_elementwise(lambda xp, t: xp.log(t) - xp.log1p(-t)),
        slope=_elementwise(lambda xp, t: 1 / t + 1 / (1 - t)),
        name="logit",
        series=lambda n: (np.ones(n), np.ones(n)),
    )


def pass_at_k(k: int) -> Surrogate:
    """h(t) = 1 - (1 - t)^k, h'(t) = k (1 - t)^(k-1): one success in k attempts."""
    _check_k(k)
    coefficients = np.zeros(k)
    coefficients[0] = k
    return Surrogate(
        value=_elementwise(lambda xp, t: -xp.expm1(k * xp.log1p(-t))),
        slope=_elementwise(lambda xp, t: k * (1 - t) ** (k - 1)),
        name="pass_at_k",
        params={"k": k},
        bernstein=coefficients,
        series=lambda n: (_powers(n, {k - 1: float(k)}), np.zeros(n)),
    )


def arcsin_pass_at_k(k: int) -> Surrogate:
    """h(t) = (2 / k) arcsin sqrt(1 - (1 - t)^k): the limit of GRPO for pass@k.

        h'(t) = q^(k/2 - 1) / sqrt(1 - q^k),  q = 1 - t

    (Thrampoulidis, Mahdavi, Deng, arXiv 2510.23049; limit of Chen et al., arXiv
    2508.10751, eqs. 11-15.) The slope is infinite at t = 0, and at t = 1 for k = 1; for
    even k it is the series q^(k/2 - 1) sum_j C(2j, j) (q^k / 4)^j.
    """
    _check_k(k)

    def pass_rate(xp, t):
        return -xp.expm1(k * xp.log1p(-t))

    def value(xp, t):
        # As an angle: arcsin alone loses half the digits near t = 1.
        return 2 / k * xp.arctan2(xp.sqrt(pass_rate(xp, t)), (1 - t) ** (k / 2))

    def slope(xp, t):
        return (1 - t) ** (k / 2 - 1) / xp.sqrt(pass_rate(xp, t))

    def series(n):
        coefficients, term = {}, 1.0
        for j in range(n):
            power = k // 2 - 1 + k * j
            if power >= n:
                break
            coefficients[power] = term
            term *= (2 * j + 1) / (2 * j + 2)
        return _powers(n, coefficients), np.zeros(n)

    return Surrogate(
        value=_elementwise(value),
        slope=_elementwise(slope),
        name="arcsin_pass_at_k",
        params={"k": k},
        series=series if k % 2 == 0 else None,
    )


_SURROGATES = {
    make.__name__: make
    for make in (identity, log, arcsin, logit, pass_at_k, arcsin_pass_at_k)
}


def _elementwise(formula):
    """`formula(xp, t)` for NumPy input in float64 and for JAX input as it comes."""

    def apply(t):
        if isinstance(t, jax.Array):
            dtype = jnp.result_type(t, jnp.float32)
            return formula(jnp, t.astype(dtype))
        with np.errstate(divide="ignore"):
            return formula(np, np.asarray(t, np.float64)[()])

    return apply


def _powers(n, coefficients):
    """(n,) coefficients of the powers 0 .. n - 1, zero where not named."""
    out = np.zeros(n)
    for power, coefficient in coefficients.items():
        if power < n:
            out[power] = coefficient
    return out


def _check_k(k):
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r}: expected an integer of 1 or more")
