"""How near the objective of a table is to the surrogate it was made for.

Errors are looked for on a mesh. What lies between its points is bounded where enough is
known of h: where h' is a polynomial, a sum of powers, or comes with a bound of |h''|.
Of any other function a mesh says nothing but "found": a bump between two points is
missed, and `Deviation.slope_bound` is infinite.
"""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe
from jaxrl_surrogate.objectives.weight_table import WeightTable

# Rounding of slopes, as a share of the largest.
_ROUNDING = 1e-9
_ZOOMS = 6


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest errors of h_M' and of h_M found on an interval, and where they are.

    The bounds hold at every point of the interval, not only at those looked at.
    """

    interval: tuple[float, float]
    slope: float  # the largest |h_M' - h'| found; inf where h' is
    slope_at: float
    value: float  # the largest |h_M - h| found, 0 at `Certificate.aligned_at`
    value_at: float
    slope_bound: float  # proven: sup |h_M' - h'| is no larger; inf where nothing is
    value_bound: float  # proven: sup |h_M - h| is no larger; inf where nothing is

    @property
    def proven(self) -> bool:
        """Whether both errors are bounded at all points of the interval."""
        return bool(np.isfinite([self.slope_bound, self.value_bound]).all())


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `certify` found; `str` of it is a report of a few lines."""

    surrogate: str
    group_size: int
    exact: bool  # h_M' = h' on all of [0, 1], to rounding: equal as polynomials
    inside: Deviation  # on the interval asked for
    whole: Deviation  # on [0, 1]
    aligned_at: float  # where h_M and h are given the same value
    monotone: bool  # no h_M' < 0 found on [0, 1]
    decreasing: tuple[tuple[float, float], ...]  # where h_M' < 0
    steepest: float  # max |h_M'|, the most that a prompt can weigh

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
    """Compare the objective a table ascends with a surrogate.

    h_M and h are both known up to a constant, and are given the same value at 0 if h is
    finite there, else at 1, else at 1/2. The largest errors are looked for on a fine
    mesh, dense at the ends, refined about the largest. They are the suprema up to the
    bounds beside them, which are proven

      where h' is a polynomial of degree n in the Bernstein basis: what a polynomial
        can do between N points of such a mesh is 1 / cos(n pi / (2 (N - 1))) times what
        it does at them (Ehlich and Zeller, 1964), here 1.005 times or less;
      where h' is a sum of powers t^a (1-t)^b, or `curvature` is given: from bounds of
        |h''| and of |h_M''| between neighbouring points.

    All to rounding. Of another h, such as one of `from_callable` without a degree, a
    mesh shows what it is at its points: the bounds are then infinite, and narrower
    bumps are missed. On [0, 1] a slope that is infinite at an end has an infinite error
    there, whatever the table.

    Args:
      table: of group size M.
      surrogate: the h that was asked for.
      interval: where errors are reported beside [0, 1]; by default [1/M, 1 - 1/M],
        and [1/4, 3/4] for M below 4.
      curvature: a bound of |h''| on [0, 1], as you know it; the reported bounds hold
        if it does.

    Raises:
      FieldError: for an interval that is none, or a curvature below 0.

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
        # Of what is no number at a point, nothing is proven.
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
        # What was found by zooming in is rounding above a bound at most.
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
    """Whether two polynomials are the same; no values show that of another h."""
    if known is None:
        return False
    size = max(len(known), len(gap))
    known, gap = bernstein.elevate(known, size), bernstein.elevate(gap, size)
    scale = max(np.abs(known).max(), 1e-300)
    return bool(np.abs(known - gap).max() <= _ROUNDING * scale)


def _curvature(surrogate, given, mesh):
    """(N - 1,) bounds of |h''| between the points of a mesh; inf where there is none.

    Of a term w t^a (1-t)^b from the factors of its derivative, each largest at an end.
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
    """(N - 1,) bounds of |h_M''| between the points of a mesh."""
    gap = np.asarray(table.gap, np.float64)
    n = len(gap) - 1
    if n < 1:
        return np.zeros(len(mesh) - 1)
    at_points = np.abs(bernstein.polynomial(n * np.diff(gap))(mesh))
    third = n * (n - 1) * np.abs(np.diff(gap, 2)).max(initial=0.0)
    return np.maximum(at_points[:-1], at_points[1:]) + third * np.diff(mesh) / 2


def _between(slopes, values, steep, steps):
    """Bounds of both errors from those at points and how fast they can change.

    A point is at most half a step from its nearest neighbour of the mesh.
    """

    def bound(errors, change):
        return np.maximum(errors[:-1], errors[1:]) + change * steps / 2

    slope = bound(slopes, steep)
    return float(slope.max()), float(bound(values, slope).max())


def _errors(fn, mesh):
    """(N,) |fn|; NaN where it is no number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(fn(mesh))


def _largest(fn, mesh, errors):
    """The largest |fn| found and where, on finer meshes about its largest value."""
    for _ in range(_ZOOMS):
        # A slope by autodiff may be no number at an end; its neighbours speak for it.
        errors = np.where(np.isnan(errors), -1.0, errors)
        top = int(np.argmax(errors))
        best, where = float(errors[top]), float(mesh[top])
        if not np.isfinite(best):
            break
        mesh = np.linspace(mesh[max(top - 1, 0)], mesh[min(top + 1, len(mesh) - 1)], 17)
        errors = _errors(fn, mesh)
    return best, where


def _negative(induced, gap, steepest, mesh, slopes):
    """The intervals where h_M' < 0 by more than rounding, at points of the mesh."""
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
    """`size` points of [0, 1], ends included, dense at the ends."""
    return np.sin(np.linspace(0, np.pi / 2, size)) ** 2
