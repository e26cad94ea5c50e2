"""The best gap for a slope in a norm over p: non-negative least squares, or minimax.

Errors are measured over prompts (a prior) and in units: "logit" in p q (h_M' - h'), the
gradient that the logit of p gets, finite for every named surrogate; "probability" in
h_M' - h' itself; "relative" in h_M' / h' - 1. The problem is small and convex and
solved once for every group size, in float64.
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
    """(M,) the gap d >= 0 whose objective has the slope nearest to h'.

    Every gap of this sign has an increasing objective. Fits without `noise` follow the
    slope with few large entries where that helps, which is dear in variance.

    Args:
      surrogate: h.
      group_size: M.
      prior: where errors count: (alpha, beta), or (points, weights); uniform by
        default.
      norm: "l2", the mean square under the prior; "sup", the largest over its support.
      units: "logit", "probability" or "relative".
      interval: success rates outside it do not count; [0, 1] by default, for "sup"
        without the last 1 / M before an end where the slope is infinite: no table
        comes near log at p = 0 in any units.
      noise: weight of E[p q d_S^2], the score noise with the best baseline (THEORY
        6.2), beside the squared error; for "l2" with "logit". At v / M, with v the
        `score_noise` of `baselines.min_variance`, the fit minimises the mean squared
        error of one group's update.

    Raises:
      ValueError: for values outside these, and for a slope that is not finite where
        errors count in "probability" units.

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
    """Success rates and weights of the fit: a Gauss rule, the grid, or a fine mesh."""
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
