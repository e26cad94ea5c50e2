"""The gap as a posterior mean of the slope, which is Durrmeyer's operator.

    d_s = E[h'(p) | s of M - 1 others correct] = int h'(x) w_s(x) dx,

where w_s is the beta density with parameters s + 1 and M - s under a uniform prior.
Under that prior h_M(1) - h_M(0) = h(1) - h(0). If h increases, d >= 0.
"""

import math

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein, priors
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe, power_terms

_LEVELS = range(5, 12)


def durrmeyer_gap(
    surrogate: Surrogate, group_size: int, prior: priors.PriorLike | None = None
) -> np.ndarray:
    """Return the (M,) posterior means of the slope, a gap in float64.

    They have a closed form by beta functions if the slope is a sum of t^a (1-t)^b and
    the prior is a beta distribution. Otherwise they are computed by
    quadrature: under the uniform prior from values of h, by integration by parts, and
    under any other prior from h' at its points.

    Args:
      surrogate: h.
      group_size: M.
      prior: (alpha, beta), or (points, weights); uniform by default. Under Beta(2, 1)
        the mean slope of log is finite: (M + 1) / (s + 1).

    Raises:
      FieldError: where a mean is infinite, as under the uniform prior where h is
        infinite at an end (log at 0); where h' is not finite at a point of the prior;
        where the quadrature does not converge.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> print(durrmeyer_gap(surrogates.get("pass_at_k", k=2), 3))
    [1.5 1.  0.5]
    """
    parameters, terms = priors.beta_parameters(prior), power_terms(surrogate)
    if parameters is not None and terms is not None:
        return _by_beta_functions(surrogate, group_size, terms, *parameters)
    if parameters == (1.0, 1.0):
        return _by_parts(surrogate, group_size)
    grid = priors.settle(prior, max(512, 2 * group_size))
    if parameters is not None and not np.isfinite(_ends(surrogate.slope)).all():
        raise FieldError(
            "prior",
            prior,
            problem=f"the slope of {describe(surrogate)} is infinite at an end, and "
            "its mean is known in closed form for sums of t^a (1-t)^b only",
            remedy="use the uniform prior or a grid of points inside (0, 1)",
        )
    used = grid.weights > 0
    grid = priors.Prior(grid.points[used], grid.weights[used])
    slopes = at(surrogate.slope, grid.points)
    if not np.isfinite(slopes).all():
        raise FieldError(
            "prior",
            problem=f"the slope of {describe(surrogate)} is not finite at its point "
            f"{grid.points[~np.isfinite(slopes)][0]}",
            remedy="leave that point out",
        )
    return priors.posterior_mean(grid, group_size - 1, slopes)


def _by_beta_functions(surrogate, group_size, terms, alpha, beta):
    gap = np.zeros(group_size)
    for weight, a, b in terms:
        if alpha + a <= 0 or beta + b <= 0:
            _refuse(surrogate, 0 if alpha + a <= 0 else group_size - 1)
        for s in range(group_size):
            right, wrong = s + alpha, group_size - 1 - s + beta
            gap[s] += weight * math.exp(
                math.lgamma(right + a)
                - math.lgamma(right)
                + math.lgamma(wrong + b)
                - math.lgamma(wrong)
                + math.lgamma(right + wrong)
                - math.lgamma(right + wrong + a + b)
            )
    return gap


def _by_parts(surrogate, group_size):
    """Return [h w_s] - int h w_s', for an h that is finite at both ends.

    The slope may be infinite there.
    """
    low, high = _ends(surrogate.value)
    if not np.isfinite([low, high]).all():
        _refuse(surrogate, 0 if not np.isfinite(low) else group_size - 1)
    whole = np.zeros(group_size)
    whole[-1] += group_size * high
    whole[0] -= group_size * low
    if group_size == 1:
        return whole
    before = None
    for level in _LEVELS:
        gap = whole - _integral(surrogate, group_size, 2.0**-level)
        scale = np.abs(gap).max()
        if before is not None and np.abs(gap - before).max() <= 1e-12 * scale:
            return gap
        change = np.inf if before is None else np.abs(gap - before).max()
        before = gap
    if not change <= 1e-6 * scale:
        raise FieldError(
            "method",
            "durrmeyer",
            problem=f"the posterior means of surrogate {describe(surrogate)} do not "
            f"settle under quadrature (last change {change / scale:.1g})",
            remedy="use method 'kantorovich', which needs values of h only",
        )
    return gap


def _integral(surrogate, group_size, step):
    """Return (M,) int h(x) w_s'(x) dx by the double-exponential rule.

    The substitution is x = 1 / (1 + exp(-y)), y = pi sinh(u), with steps in u.
    """
    u = np.arange(-4.0, 4.0 + step / 2, step)
    y = np.pi * np.sinh(u)
    x, rest = 1 / (1 + np.exp(-y)), 1 / (1 + np.exp(y))
    inside = (x > 0) & (x < 1)
    u, y, x, rest = (values[inside] for values in (u, y, x, rest))
    n = group_size - 2
    m = np.arange(n + 1)
    log_x, log_rest = -np.logaddexp(0, -y)[:, None], -np.logaddexp(0, y)[:, None]
    lower = np.exp(bernstein.log_choose(n) + m * log_x + (n - m) * log_rest)
    lower = np.pad(lower, ((0, 0), (1, 1)))
    change = group_size * (group_size - 1) * (lower[:, :-1] - lower[:, 1:])
    weights = step * np.pi * np.cosh(u) * x * rest
    return (weights * at(surrogate.value, x)) @ change


def _ends(fn):
    with np.errstate(invalid="ignore"):
        return at(fn, np.array([0.0, 1.0]))


def _refuse(surrogate, s):
    raise FieldError(
        "method",
        "durrmeyer",
        problem=f"it needs the mean slope of surrogate {describe(surrogate)} given {s} "
        "correct answers, which is infinite under this prior",
        remedy="use 'taylor' or 'kantorovich', or a prior with less weight at that end",
    )
