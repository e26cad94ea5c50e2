"""Surrogates of k attempts: pass@k and surrogates that are built on it.

With q = 1 - t, pass@k(t) = 1 - q^k is the probability that at least one of k
independent answers is correct.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import limits
from jaxrl_surrogate.objectives.elementwise import check_k, elementwise, powers
from jaxrl_surrogate.objectives.surrogate import Surrogate

# The slopes 1 / sqrt(t (1 - t)) and 1 / t near their ends.
_ARCSIN = limits.of_powers([(1.0, -0.5, -0.5)])
_LOG = limits.of_powers([(1.0, -1.0, 0.0)])


def pass_at_k(k: int) -> Surrogate:
    """h(t) = 1 - (1 - t)^k, h'(t) = k (1 - t)^(k-1): one success in k attempts."""
    check_k(k)
    coefficients = np.zeros(k)
    coefficients[0] = k
    return Surrogate(
        value=elementwise(lambda xp, t: pass_rate(xp, t, k)),
        slope=elementwise(lambda xp, t: k * (1 - t) ** (k - 1)),
        name="pass_at_k",
        params={"k": k},
        bernstein=coefficients,
        series=lambda n: (powers(n, {k - 1: float(k)}), np.zeros(n)),
        powers=((float(k), 0.0, k - 1.0),),
    )


def arcsin_pass_at_k(k: int) -> Surrogate:
    """h(t) = (2 / k) arcsin sqrt(1 - (1 - t)^k): the limit of GRPO for pass@k.

        h'(t) = q^(k/2 - 1) / sqrt(1 - q^k),  q = 1 - t

    The surrogate is from Thrampoulidis, Mahdavi, Deng (arXiv 2510.23049). It is the
    large-group limit of Chen et al. (arXiv 2508.10751, eqs. 11-15). The slope is
    infinite at t = 0, and for k = 1 also at t = 1. For even k it has the series
    q^(k/2 - 1) sum_j C(2j, j) (q^k / 4)^j.
    """
    check_k(k)

    def value(xp, t):
        # As an angle: arcsin alone loses half the digits near t = 1.
        root = xp.sqrt(pass_rate(xp, t, k))
        return 2 / k * xp.arctan2(root, (1 - t) ** (k / 2))

    def slope(xp, t):
        return (1 - t) ** (k / 2 - 1) / xp.sqrt(pass_rate(xp, t, k))

    def series(n):
        coefficients, term = {}, 1.0
        for j in range(n):
            power = k // 2 - 1 + k * j
            if power >= n:
                break
            coefficients[power] = term
            term *= (2 * j + 1) / (2 * j + 2)
        return powers(n, coefficients), np.zeros(n)

    return Surrogate(
        value=elementwise(value),
        slope=elementwise(slope),
        name="arcsin_pass_at_k",
        params={"k": k},
        series=series if k % 2 == 0 else None,
        powers=((1.0, -0.5, -0.5),) if k == 1 else None,
        leading=lambda: limits.scaled(limits.at_k(_ARCSIN, k), 1 / k),
    )


def log_pass_at_k(k: int) -> Surrogate:
    """h(t) = log(1 - q^k), h'(t) = k q^(k-1) / (1 - q^k): likelihood of k attempts.

    Near 0, where h is -inf, it behaves like log t + log k. It is flat where k attempts
    almost always contain a correct one. The slope's series is k q^(k-1) sum_j q^(k j).
    """
    check_k(k)

    def series(n):
        return powers(n, dict.fromkeys(range(k - 1, n, k), float(k))), np.zeros(n)

    return Surrogate(
        value=elementwise(lambda xp, t: xp.log(pass_rate(xp, t, k))),
        slope=elementwise(lambda xp, t: k * (1 - t) ** (k - 1) / pass_rate(xp, t, k)),
        name="log_pass_at_k",
        params={"k": k},
        series=series,
        powers=((1.0, -1.0, 0.0),) if k == 1 else None,
        leading=lambda: limits.at_k(_LOG, k),
    )


def pass_hat_k(k: int) -> Surrogate:
    """h(t) = t^k, h'(t) = k t^(k-1): all of k attempts (pass^k, arXiv 2406.12045).

    It measures reliability and gives hard prompts almost no weight.
    """
    check_k(k)
    return Surrogate(
        value=elementwise(lambda xp, t: t**k),
        slope=elementwise(lambda xp, t: k * t ** (k - 1)),
        name="pass_hat_k",
        params={"k": k},
        bernstein=powers(k, {k - 1: float(k)}),
        series=lambda n: (np.zeros(n), powers(n, {k - 1: float(k)})),
        powers=((float(k), k - 1.0, 0.0),),
    )


def truncated_log(order: int) -> Surrogate:
    """h(t) = sum_{j<=T} pass@j(t) / j, h'(t) = (1 - q^T) / t: log t cut at order T.

    It is the objective of MaxRL (arXiv 2602.02710). For large T it tends to
    log t + 1 + 1/2 + .. + 1/T. Rejection sampling among M samples ascends it with
    T = M, and T = 1 is the identity.
    """
    return _sum_of_pass_rates(
        "truncated_log", order, lambda j: 1 / j, lambda s: order / (s + 1)
    )


def sum_pass_at_k(order: int) -> Surrogate:
    """h(t) = sum_{j<=T} pass@j(t), h'(t) = sum_j j q^(j-1): MMPO (arXiv 2608.02149).

    For large T it tends to T - 1 / t + 1, which is steeper at 0 than log.
    """
    return _sum_of_pass_rates(
        "sum_pass_at_k",
        order,
        lambda j: 1.0,
        lambda s: order * (order + 1) / ((s + 1) * (s + 2)),
    )


def pass_rate(xp, t, k):
    """Return 1 - (1 - t)^k without cancellation; `xp` is NumPy or jax.numpy."""
    # At t = 1 the derivative would be zero times that of the logarithm, infinity.
    inside = xp.where(t < 1, t, 0.5)
    return xp.where(t < 1, -xp.expm1(k * xp.log1p(-inside)), 1.0)


def _sum_of_pass_rates(name, order, weight, coefficient):
    """Return the surrogate sum_j w_j pass@j, j = 1 .. T, with T = `order`.

    Args:
      name: its name.
      order: T.
      weight: a function of j to w_j.
      coefficient: a function of s to the Bernstein coefficient s of the slope
        sum_j w_j j q^(j-1).
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 1:
        raise FieldError("order", order, "an integer of 1 or more")
    slopes = np.array([weight(j) * j for j in range(1, order + 1)])
    rates = slopes / np.arange(1, order + 1)

    def value(xp, t):
        # sum_j w_j (1 - q^j) = t sum_i q^i (w_{i+1} + .. + w_T), all terms positive.
        return t * _horner(np.cumsum(rates[::-1])[::-1], 1 - t)

    return Surrogate(
        value=elementwise(value),
        slope=elementwise(lambda xp, t: _horner(slopes, 1 - t) + 0 * t),
        name=name,
        params={"order": order},
        # sum_i w_(i+1) (i+1) C(n - s, i) / C(n, i), n = T - 1, in closed form.
        bernstein=np.array([coefficient(s) for s in range(order)]),
        series=lambda m: (powers(m, dict(enumerate(slopes))), np.zeros(m)),
        powers=tuple((float(c), 0.0, float(i)) for i, c in enumerate(slopes)),
    )


def _horner(coefficients, x):
    total = 0.0 * x
    for coefficient in reversed(coefficients.tolist()):
        total = total * x + coefficient
    return total
