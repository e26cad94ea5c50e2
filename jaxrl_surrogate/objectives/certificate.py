"""How close the objective of a table is to the surrogate it was made for.

`certify` evaluates the errors on a mesh. It also bounds them between the points of the
mesh if enough is known of h: if h' is a polynomial or a sum of powers, or if the caller
gives a bound of |h''|. For any other function the errors hold at the points of the mesh
only, a bump between two points is missed, and `Deviation.slope_bound` is infinite.
"""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe
from jaxrl_surrogate.objectives.weight_table import WeightTable

# Rounding of slopes, as a fraction of the largest.
_ROUNDING = 1e-9
_ZOOMS = 6


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest errors of h_M' and of h_M on an interval, and where they were found.

    The bounds hold at every point of the interval, not only at points of the mesh.
    """

    interval: tuple[float, float]
    slope: float  # the largest |h_M' - h'| found; inf where h' is infinite
    slope_at: float
    value: float  # the largest |h_M - h| found, 0 at `Certificate.aligned_at`
    value_at: float
    slope_bound: float  # proven bound of sup |h_M' - h'|; inf where none is known
    value_bound: float  # proven bound of sup |h_M - h|; inf where none is known

    @property
    def proven(self) -> bool:
        """Whether both errors are bounded at all points of the interval."""
        return bool(np.isfinite([self.slope_bound, self.value_bound]).all())


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The result of `certify`. Its `str` is a report of a few lines."""

    surrogate: str
    group_size: int
    exact: bool  # h_M' and h' are equal as polynomials, to rounding
    inside: Deviation  # the errors on the requested interval
    whole: Deviation  # the errors on [0, 1]
    aligned_at: float  # the p at which h_M and h are given the same value
    monotone: bool  # no h_M' < 0 was found on [0, 1]
    decreasing: tuple[tuple[float, float], ...]  # the intervals where h_M' < 0
    steepest: float  # max |h_M'|, the largest factor of a prompt's gradient

    def __str__(self):
        lines = [f"{self.surrogate} with groups of {self.group_size}:"]
        if self.exact:
            lines.append("  exact: h_M' = h' on [0, 1]")
        else:
            lines += [_line(part) for part in (self.inside, self.whole)]
            lines.append(f"  (h_M = h at p = {self.aligned_at:g})")
        if not self.monotone:
            where = ", ".join(
                f"({low:.4g}, {high:.4g})" for low, high in self.decreasing
            )
            lines.append(f"  h_M decreases on {where}")
        return "\n".join(lines)


def _line(part):
    low, high = part.interval
    found = (
        f"  on [{low:.4g}, {high:.4g}]: largest |h_M' - h'| = {part.slope:.4g} at p = "
        f"{part.slope_at:.4g}, |h_M - h| = {part.value:.4g} at p = {part.value_at:.4g}"
    )
    if part.proven:
        return (
            f"{found}; proven to be at most {part.slope_bound:.4g} and "
            f"{part.value_bound:.4g}"
        )
    if np.isfinite([part.slope, part.value]).all():
        return f"{found}; found on a mesh, not proven"
    return found


def certify(
    table: WeightTable,
    surrogate: Surrogate,
    interval: tuple[float, float] | None = None,
    curvature: float | None = None,
) -> Certificate:
    """Compare the objective h_M that a table ascends with a surrogate h.

    Objectives are defined up to a constant, so h_M is shifted to the value of h at 0 if
    h is finite there, else at 1, else at 1/2. The largest errors are searched on a fine
    mesh that is dense at the ends, and then on finer meshes about the largest. Bounds
    between the points of the mesh are proven, up to rounding, in two cases:

      h' is a polynomial of degree n in the Bernstein basis. Between N points of such a
        mesh a polynomial is at most 1 / cos(n pi / (2 (N - 1))) times its largest value
        at them (Ehlich and Zeller, 1964), here 1.005 times or less.
      h' is a sum of powers t^a (1-t)^b, or `curvature` is given. The bounds then follow
        from bounds of |h''| and of |h_M''| between neighbouring points.

    For any other h, such as one of `from_callable` without a degree, the bounds are
    infinite, and bumps between two points are missed. Where the slope h' is infinite at
    an end, the error on [0, 1] is infinite for every table.

    Args:
      table: of group size M.
      surrogate: the h to compare with.
      interval: errors are reported on it as well as on [0, 1]. The default is
        [1/M, 1 - 1/M], and [1/4, 3/4] for M below 4.
      curvature: a bound of |h''| on [0, 1] that the caller knows. The reported bounds
        hold if it does.

    Raises:
      FieldError: for an interval that is not inside [0, 1] or is empty, or for a
        curvature that is negative or not finite.

    >>> from jaxrl_surrogate.objectives import advantages, surrogates
    >>> maxrl = advantages.table("maxrl", 8)
    >>> print(certify(maxrl, surrogates.get("truncated_log", order=7)))
    truncated_log:order=7 with groups of 8:
      exact: h_M' = h' on [0, 1]
    >>> found = certify(maxrl, surrogates.log()).inside
    >>> round(found.slope, 2), found.slope_at, round(found.slope_bound, 2)
    (3.14, 0.125, 3.14)
    """
    size = table.group_size
    if interval is None:
        interval = (1 / max(size, 4), 1 - 1 / max(size, 4))
    low, high = (float(end) for end in interval)
    if not 0 <= low < high <= 1:
        raise FieldError("interval", interval, "0 <= low < high <= 1")
    if curvature is not None and not 0 <= curvature < np.inf:
        raise FieldError("curvature", curvature, "a bound of |h''|, 0 or more")
    induced = induced_surrogate(table)
    with np.errstate(invalid="ignore"):
        ends = at(surrogate.value, np.array([0.0, 1.0, 0.5]))
    anchor = (0.0, 1.0, 0.5)[int(np.argmax(np.isfinite(ends)))]
    shift = float(ends[np.isfinite(ends)][0]) - float(induced.value(anchor))
    known = surrogate.bernstein
    terms = max(size, 0 if known is None else len(known))
    unit = _mesh(16 * terms + 256)
    ours = at(induced.slope, unit)

    def slope_error(t):
        slope = ours if t is unit else at(induced.slope, t)
        return slope - at(surrogate.slope, t)

    def value_error(t):
        return at(induced.value, t) + shift - at(surrogate.value, t)

    def deviation(mesh):
        slopes, values = _errors(slope_error, mesh), _errors(value_error, mesh)
        bounds = np.inf, np.inf
        # Where an error is NaN at a point, no bound is proven.
        firm = [np.where(np.isnan(error), np.inf, error) for error in (slopes, values)]
        if known is not None:
            angle = np.pi / (2 * (len(mesh) - 1))
            bounds = tuple(
                float(errors.max() / np.cos(degree * angle))
                for errors, degree in zip(firm, (terms - 1, terms), strict=True)
            )
        elif curvature is not None or surrogate.powers is not None:
            steep = _curvature(surrogate, curvature, mesh) + _bend(table, mesh)
            bounds = _between(*firm, steep, np.diff(mesh))
        slope, slope_at = _largest(slope_error, mesh, slopes)
        value, value_at = _largest(value_error, mesh, values)
        # An error from a finer mesh exceeds a bound by rounding at most.
        bounds = max(bounds[0], slope), max(bounds[1], value)
        return Deviation(
            (float(mesh[0]), float(mesh[-1])), slope, slope_at, value, value_at, *bounds
        )

    gap = np.asarray(table.gap, np.float64)
    steepest, _ = _largest(lambda t: at(induced.slope, t), unit, np.abs(ours))
    decreasing = _negative(induced, gap, steepest, unit, ours)
    return Certificate(
        surrogate=describe(surrogate),
        group_size=size,
        exact=_exact(known, gap),
        inside=deviation(low + (high - low) * unit),
        whole=deviation(unit),
        aligned_at=anchor,
        monotone=not decreasing,
        decreasing=decreasing,
        steepest=steepest,
    )


def _exact(known, gap):
    """Return whether h' and h_M' are the same polynomial; False for other h'."""
    if known is None:
        return False
    size = max(len(known), len(gap))
    known, gap = bernstein.elevate(known, size), bernstein.elevate(gap, size)
    scale = max(np.abs(known).max(), 1e-300)
    return bool(np.abs(known - gap).max() <= _ROUNDING * scale)


def _curvature(surrogate, given, mesh):
    """Return (N - 1,) bounds of |h''| between the N points of a mesh; inf for no bound.

    Each factor of the derivative of a term w t^a (1-t)^b is monotone, so it is largest
    at an end of its step.
    """
    if given is not None:
        return np.full(len(mesh) - 1, float(given))

    def largest(base, exponent):
        with np.errstate(divide="ignore"):
            ends = base ** float(exponent)
        return np.maximum(ends[:-1], ends[1:])

    total = np.zeros(len(mesh) - 1)
    for weight, a, b in surrogate.powers:
        for factor, left, right in ((a, a - 1, b), (b, a, b - 1)):
            if factor:
                part = largest(mesh, left) * largest(1 - mesh, right)
                total += np.abs(weight * factor) * part
    return total


def _bend(table, mesh):
    """Return (N - 1,) bounds of |h_M''| between the N points of a mesh."""
    gap = np.asarray(table.gap, np.float64)
    n = len(gap) - 1
    if n < 1:
        return np.zeros(len(mesh) - 1)
    at_points = np.abs(bernstein.polynomial(n * np.diff(gap))(mesh))
    third = n * (n - 1) * np.abs(np.diff(gap, 2)).max(initial=0.0)
    return np.maximum(at_points[:-1], at_points[1:]) + third * np.diff(mesh) / 2


def _between(slopes, values, steep, steps):
    """Return bounds of both errors from the errors at points and their slopes' bounds.

    Every p is at most half a step from the nearest point of the mesh.
    """

    def bound(errors, change):
        return np.maximum(errors[:-1], errors[1:]) + change * steps / 2

    slope = bound(slopes, steep)
    return float(slope.max()), float(bound(values, slope).max())


def _errors(fn, mesh):
    """Return (N,) |fn| at the points of a mesh; NaN where fn is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(fn(mesh))


def _largest(fn, mesh, errors):
    """Return the largest |fn| found, and where, on finer meshes about the largest."""
    for _ in range(_ZOOMS):
        # A slope by autodiff may be NaN at an end, where the neighbours are used.
        errors = np.where(np.isnan(errors), -1.0, errors)
        top = int(np.argmax(errors))
        best, where = float(errors[top]), float(mesh[top])
        if not np.isfinite(best):
            break
        mesh = np.linspace(mesh[max(top - 1, 0)], mesh[min(top + 1, len(mesh) - 1)], 17)
        errors = _errors(fn, mesh)
    return best, where


def _negative(induced, gap, steepest, mesh, slopes):
    """Return the intervals where h_M' < 0 by more than rounding at points of a mesh."""
    limit = -_ROUNDING * 1e-2 * steepest
    if (gap >= limit).all():
        return ()
    below = np.concatenate([[False], slopes < limit, [False]])
    starts = np.flatnonzero(below[1:] & ~below[:-1])
    stops = np.flatnonzero(below[:-1] & ~below[1:]) - 1

    def edge(outside, inside):
        for _ in range(50):
            middle = (outside + inside) / 2
            if induced.slope(middle) < limit:
                inside = middle
            else:
                outside = middle
        return float(inside)

    return tuple(
        (
            0.0 if first == 0 else edge(mesh[first - 1], mesh[first]),
            1.0 if last == len(mesh) - 1 else edge(mesh[last + 1], mesh[last]),
        )
        for first, last in zip(starts, stops, strict=True)
    )


def _mesh(size):
    """Return (size,) points of [0, 1], dense at the ends, which are included."""
    return np.sin(np.linspace(0, np.pi / 2, size)) ** 2
