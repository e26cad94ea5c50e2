"""How near the objective of a table is to the surrogate it was made for."""

import dataclasses

import numpy as np

from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe
from jaxrl_surrogate.objectives.weight_table import WeightTable

# Rounding of slopes, as a share of the largest.
_ROUNDING = 1e-9
_ZOOMS = 6


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest errors of h_M' and of h_M over an interval, and where they are."""

    interval: tuple[float, float]
    slope: float  # sup |h_M' - h'|; inf where h' is
    slope_at: float
    value: float  # sup |h_M - h|, both 0 at `Certificate.aligned_at`; inf where h is
    value_at: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `certify` found; `str` of it is a report of a few lines."""

    surrogate: str
    group_size: int
    exact: bool  # h_M' = h' on all of [0, 1], to rounding
    inside: Deviation  # on the interval asked for
    whole: Deviation  # on [0, 1]
    aligned_at: float  # where h_M and h are given the same value
    monotone: bool  # h_M' >= 0 on [0, 1]
    decreasing: tuple[tuple[float, float], ...]  # where h_M' < 0
    steepest: float  # max |h_M'|, the most that a prompt can weigh

    def __str__(self):
        lines = [f"{self.surrogate} with groups of {self.group_size}:"]
        if self.exact:
            lines.append("  exact: h_M' = h' on [0, 1]")
        else:
            for part in (self.inside, self.whole):
                low, high = part.interval
                lines.append(
                    f"  on [{low:.4g}, {high:.4g}]: "
                    f"sup |h_M' - h'| = {part.slope:.4g} at p = {part.slope_at:.4g}, "
                    f"sup |h_M - h| = {part.value:.4g} at p = {part.value_at:.4g}"
                )
            lines.append(f"  (h_M = h at p = {self.aligned_at:g})")
        if not self.monotone:
            where = ", ".join(
                f"({low:.4g}, {high:.4g})" for low, high in self.decreasing
            )
            lines.append(f"  h_M decreases on {where}")
        return "\n".join(lines)


def certify(
    table: WeightTable,
    surrogate: Surrogate,
    interval: tuple[float, float] | None = None,
) -> Certificate:
    """Compare the objective a table climbs with a surrogate.

    h_M and h are both known up to a constant, and are given the same value at 0 if h is
    finite there, else at 1, else at 1/2. Suprema are over fine meshes, dense at the
    ends, refined about the largest error. On [0, 1] a slope that is infinite at an end
    has an infinite error there, whatever the table.

    Args:
      table: of group size M.
      surrogate: the h that was asked for.
      interval: where errors are reported beside [0, 1]; by default [1/M, 1 - 1/M],
        and [1/4, 3/4] for M below 4.

    Raises:
      ValueError: for an interval that is none.

    >>> from jaxrl_surrogate.objectives import advantages, surrogates
    >>> maxrl = advantages.table("maxrl", 8)
    >>> print(certify(maxrl, surrogates.get("truncated_log", order=7)))
    truncated_log(order=7) with groups of 8:
      exact: h_M' = h' on [0, 1]
    >>> found = certify(maxrl, surrogates.log()).inside
    >>> round(found.slope, 2), found.slope_at
    (3.14, 0.125)
    """
    size = table.group_size
    if interval is None:
        interval = (1 / max(size, 4), 1 - 1 / max(size, 4))
    low, high = (float(end) for end in interval)
    if not 0 <= low < high <= 1:
        raise ValueError(f"interval={interval}: expected 0 <= low < high <= 1")
    induced = induced_surrogate(table)
    with np.errstate(invalid="ignore"):
        ends = at(surrogate.value, np.array([0.0, 1.0, 0.5]))
    anchor = (0.0, 1.0, 0.5)[int(np.argmax(np.isfinite(ends)))]
    shift = float(ends[np.isfinite(ends)][0]) - float(induced.value(anchor))

    def slope_error(t):
        return at(induced.slope, t) - at(surrogate.slope, t)

    def value_error(t):
        return at(induced.value, t) + shift - at(surrogate.value, t)

    def deviation(low, high):
        slope, slope_at = _largest(slope_error, low, high, size)
        value, value_at = _largest(value_error, low, high, size)
        return Deviation((low, high), slope, slope_at, value, value_at)

    gap = np.asarray(table.gap, np.float64)
    steepest, _ = _largest(lambda t: at(induced.slope, t), 0.0, 1.0, size)
    whole = deviation(0.0, 1.0)
    decreasing = _negative(induced, gap, steepest)
    return Certificate(
        surrogate=describe(surrogate),
        group_size=size,
        exact=_exact(surrogate, gap, whole),
        inside=deviation(low, high),
        whole=whole,
        aligned_at=anchor,
        monotone=not decreasing,
        decreasing=decreasing,
        steepest=steepest,
    )


def _exact(surrogate, gap, whole):
    known = surrogate.bernstein
    if known is None:
        scale = max(np.abs(gap).max(), 1e-300)
        return bool(whole.slope <= _ROUNDING * scale)
    size = max(len(known), len(gap))
    known, gap = bernstein.elevate(known, size), bernstein.elevate(gap, size)
    scale = max(np.abs(known).max(), 1e-300)
    return bool(np.abs(known - gap).max() <= _ROUNDING * scale)


def _largest(fn, low, high, size):
    """sup |fn| and where, by a mesh and finer meshes about its largest value."""
    mesh = low + (high - low) * _mesh(16 * size + 256)
    for _ in range(_ZOOMS):
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(fn(mesh))
        # A slope by autodiff may be no number at an end; its neighbours speak for it.
        error = np.where(np.isnan(error), -1.0, error)
        top = int(np.argmax(error))
        best, where = float(error[top]), float(mesh[top])
        if not np.isfinite(best):
            break
        mesh = np.linspace(mesh[max(top - 1, 0)], mesh[min(top + 1, len(mesh) - 1)], 17)
    return best, where


def _negative(induced, gap, steepest):
    """The intervals where h_M' < 0 by more than rounding."""
    limit = -_ROUNDING * 1e-2 * steepest
    if (gap >= limit).all():
        return ()
    mesh = _mesh(64 * len(gap) + 1024)
    below = np.concatenate([[False], induced.slope(mesh) < limit, [False]])
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
