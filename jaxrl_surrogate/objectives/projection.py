"""The gap whose slope h_M' is nearest to h' in a norm over p.

Errors are weighed by a prior of p and measured in one of three units. "logit" is
p q (h_M' - h'), the error of the gradient of the logit of p, which is finite for every
named surrogate. "probability" is h_M' - h', and "relative" is h_M' / h' - 1. The
problem is small and convex. It is solved in float64 by non-negative least squares, or
by a linear program for the largest error.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein, priors
from jaxrl_surrogate.objectives.fits import minimax, nonnegative_least_squares
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe


def projection_gap(
    surrogate: Surrogate,
    group_size: int,
    prior: priors.PriorLike | None = None,
    norm: str = "l2",
    units: str = "logit",
    interval: tuple[float, float] | None = None,
    noise: float = 0.0,
) -> np.ndarray:
    """Return the (M,) gap d >= 0 whose objective has the slope nearest to h'.

    Every gap d >= 0 has an increasing objective. A fit without `noise` may use a few
    large entries to follow the slope, which increases the variance.

    Args:
      surrogate: h.
      group_size: M.
      prior: the distribution of p that weighs errors: (alpha, beta), or (points,
        weights); uniform by default.
      norm: "l2", the mean square under the prior; "sup", the largest error over its
        support.
      units: "logit", "probability" or "relative".
      interval: errors outside it are ignored; [0, 1] by default. For "sup" the default
        leaves out the last 1 / M before an end where the slope is infinite, as no table
        is close to log at p = 0 in any units.
      noise: the weight of E[p q d_S^2], which is added to the squared error. It is the
        score variance with the best baseline. At v / M, with v the `score_noise`
        of `baselines.min_variance`, the fit minimises the mean squared error of one
        group's update. Only for "l2" with "logit".

    Raises:
      ValueError: for other values of these arguments; for a slope that is not finite at
        a point of the prior, or at an end of the interval in "probability" units; for a
        slope that is not positive in "relative" units.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> gap = projection_gap(surrogates.get("pass_at_k", k=2), 4)
    >>> print(gap.round(6))
    [2.       1.333333 0.666667 0.      ]
    """
    _check(norm, units, noise)
    low, high = _interval(surrogate, group_size, norm, interval)
    points, weights = _points(prior, norm, group_size, low, high)
    if units == "probability" and priors.beta_parameters(prior) is not None:
        _check_ends(surrogate, low, high)
    slopes = at(surrogate.slope, points)
    if not np.isfinite(slopes).all():
        raise FieldError(
            "prior",
            problem=f"the slope of surrogate {describe(surrogate)} is not finite at "
            f"its point p = {points[~np.isfinite(slopes)][0]}",
            remedy="leave it out",
        )
    if units == "logit":
        scale = points * (1 - points)
    elif units == "relative":
        if not (slopes > 0).all():
            raise FieldError(
                "units",
                "relative",
                problem=f"the slope of {describe(surrogate)} is not positive at p = "
                f"{points[slopes <= 0][0]}",
                remedy="use 'logit', or an interval",
            )
        scale = 1 / slopes
    else:
        scale = np.ones_like(points)
    design = bernstein.basis(group_size - 1, points)
    if norm == "sup":
        return minimax(design * scale[:, None], slopes * scale)
    root = np.sqrt(weights)
    rows, target = design * (root * scale)[:, None], slopes * scale * root
    if noise:
        spread = (weights * points * (1 - points)) @ design
        rows = np.concatenate([rows, np.diag(np.sqrt(noise * spread))])
        target = np.concatenate([target, np.zeros(group_size)])
    return nonnegative_least_squares(rows, target)


def _points(prior, norm, group_size, low, high):
    """Return the points and weights of the fit: a Gauss rule, a grid or a fine mesh."""
    beta = priors.beta_parameters(prior)
    if beta is not None and norm == "sup":
        angles = (np.arange(16 * group_size + 64) + 0.5) / (16 * group_size + 64)
        points = low + (high - low) * np.sin(np.pi / 2 * angles) ** 2
        return points, np.ones_like(points)
    grid = priors.settle(prior, 4 * group_size + 128)
    used = (grid.weights > 0) & (grid.points >= low) & (grid.points <= high)
    if not used.any():
        raise FieldError(
            "interval",
            (low, high),
            problem="the prior has no point in it",
            remedy="widen one of them",
        )
    return grid.points[used], grid.weights[used]


def _interval(surrogate, group_size, norm, interval):
    if interval is None:
        with np.errstate(invalid="ignore"):
            steep = ~np.isfinite(at(surrogate.slope, np.array([0.0, 1.0])))
        near = 1 / max(group_size, 4) if norm == "sup" else 0.0
        return near * steep[0], 1 - near * steep[1]
    low, high = (float(end) for end in interval)
    if not 0 <= low < high <= 1:
        raise FieldError("interval", interval, "0 <= low < high <= 1")
    return low, high


def _check(norm, units, noise):
    if norm not in ("l2", "sup"):
        raise FieldError("norm", norm, "'l2' or 'sup'")
    if units not in ("logit", "probability", "relative"):
        raise FieldError("units", units, "'logit', 'probability' or 'relative'")
    if not 0 <= noise < np.inf:
        raise FieldError("noise", noise, "0 or more")
    if noise and (norm, units) != ("l2", "logit"):
        raise FieldError(
            "noise",
            noise,
            problem="adds to squared errors of logits",
            remedy="take norm='l2' and units='logit'",
        )


def _check_ends(surrogate, low, high):
    with np.errstate(invalid="ignore"):
        ends = at(surrogate.slope, np.array([low, high]))
    if not np.isfinite(ends).all():
        raise FieldError(
            "units",
            "probability",
            problem=f"the slope of {describe(surrogate)} is infinite at p = "
            f"{(low, high)[int(np.isfinite(ends[0]))]:g}, where no table "
            "follows",
            remedy="use units 'logit', or an interval that leaves this end out",
        )
