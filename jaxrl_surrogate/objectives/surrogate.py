"""The class of surrogates: h, its slope, and known exact forms of the slope.

A method with the surrogate h ascends E[h(p)] over prompts, and the slope h'(p) is the
factor of a prompt's gradient. Surrogates can be added and scaled. The weights of a sum
are the sum of the weights for every method of `from_surrogate` except `projection`,
and except where a method replaces an infinite gap.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein as basis
from jaxrl_surrogate.objectives import limits
from jaxrl_surrogate.objectives.names import spell

_MOST_TERMS = 1000  # C(n, n / 2) is beyond float64 from n = 1030 on


@dataclasses.dataclass(frozen=True, eq=False)
class Surrogate:
    """A surrogate h and its slope h', with known exact forms of the slope.

    Both are elementwise functions of a success rate. `+`, `-` and products with numbers
    give surrogates.

    >>> square = Surrogate(lambda t: t**2, lambda t: 2 * t, name="square")
    >>> square.slope(0.5)
    1.0
    >>> mixed = square + 0.5 * square
    >>> mixed.name, mixed.slope(0.5)
    ('square + 0.5 * square', 1.5)
    """

    value: Callable[[Any], Any]  # h, elementwise
    slope: Callable[[Any], Any]  # h', elementwise
    name: str = "custom"
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # (n + 1,) float64, the slope in the Bernstein basis of its degree n; None if the
    # slope is not known to be a polynomial.
    bernstein: np.ndarray | None = None
    # n -> two (n,) float64 arrays, the first coefficients of two series in powers of
    # 1 - t and of t whose sum is the slope; None if no such series are known.
    series: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None
    # (w, a, b) of each term if the slope is a finite sum of w t^a (1 - t)^b, whose
    # integrals are beta functions; None if it is not known to be one.
    powers: tuple[tuple[float, float, float], ...] | None = None
    # () -> the terms of the slope that do not vanish near 0 and near 1 (`limits`);
    # used where neither `powers` nor `bernstein` is known.
    leading: Callable[[], limits.Ends | None] | None = None

    # Makes NumPy leave a product with a NumPy scalar on the left to `__rmul__`.
    __array_ufunc__ = None

    def __add__(self, other: "Surrogate") -> "Surrogate":
        if not isinstance(other, Surrogate):
            return NotImplemented
        return _add(self, other)

    def __sub__(self, other: "Surrogate") -> "Surrogate":
        if not isinstance(other, Surrogate):
            return NotImplemented
        name = f"{describe(self)} - {_factor(other)}"
        return dataclasses.replace(_add(self, -1 * other), name=name)

    def __mul__(self, factor: float) -> "Surrogate":
        return _scale(self, factor)

    __rmul__ = __mul__


def describe(surrogate: Surrogate) -> str:
    """Return the name with its parameters, as in `pass_at_k:k=4`, for messages."""
    return spell(surrogate.name, surrogate.params)


def from_callable(
    fn: Callable,
    *,
    slope: Callable | None = None,
    name: str | None = None,
    degree: int | None = None,
) -> Surrogate:
    """Return a surrogate from any JAX-traceable function, with its slope by autodiff.

    Args:
      fn: h, a function of a scalar in [0, 1] to a scalar. It is mapped over arrays, so
        it may branch with `jnp.where` but not with Python's `if`. NumPy input is
        computed in float64.
      slope: h', a function of the same form, for cases where autodiff fails: if it
        gives NaN at an end (t log t at 0), or if fn is not differentiable.
      name: the name in messages; by default that of the function.
      degree: the degree of h', if fn is a polynomial. The coefficients of h' are then
        computed from its values, and the methods `exact` and `durrmeyer` use them.

    Raises:
      ValueError: if `degree` is given and h' is not a polynomial of that degree.

    >>> import jax.numpy as jnp
    >>> h = from_callable(lambda t: jnp.sin(t), name="sine")
    >>> round(float(h.slope(0.0)), 12), h.name
    (1.0, 'sine')
    """
    slope = _elementwise_map(jax.grad(fn) if slope is None else slope)
    surrogate = Surrogate(
        value=_elementwise_map(fn),
        slope=slope,
        name=name or getattr(fn, "__name__", "custom").replace("<lambda>", "custom"),
    )
    if degree is None:
        return surrogate
    return dataclasses.replace(surrogate, bernstein=_interpolated(surrogate, degree))


def at(fn: Callable, points: np.ndarray) -> np.ndarray:
    """Return `fn`, the value or slope of a surrogate, at NumPy points, in float64.

    Functions that are written for JAX only are computed in float64 as well.
    """
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.broadcast_to(np.asarray(fn(points), np.float64), np.shape(points))


def power_terms(surrogate: Surrogate) -> tuple[tuple[float, float, float], ...] | None:
    """Return the terms (w, a, b) of a slope that is a sum of w t^a (1-t)^b, or None.

    This includes polynomials, except those of so high a degree that their binomial
    coefficients overflow float64.
    """
    if surrogate.powers is not None:
        return surrogate.powers
    if surrogate.bernstein is None or len(surrogate.bernstein) > _MOST_TERMS:
        return None
    n = len(surrogate.bernstein) - 1
    return tuple(
        (float(c) * math.comb(n, m), float(m), float(n - m))
        for m, c in enumerate(surrogate.bernstein)
        if c != 0
    )


def leading_terms(surrogate: Surrogate) -> limits.Ends | None:
    """Return the terms of the slope at its ends (see `limits`), or None if unknown."""
    if surrogate.powers is not None:
        return limits.of_powers(surrogate.powers)
    if surrogate.bernstein is not None:
        return limits.constants(surrogate.bernstein[0], surrogate.bernstein[-1])
    if surrogate.leading is not None:
        return surrogate.leading()
    with np.errstate(invalid="ignore"):
        ends = at(surrogate.slope, np.array([0.0, 1.0]))
    return limits.constants(*ends.tolist()) if np.isfinite(ends).all() else None


def with_limits(slope: Callable, leading: Callable[[], limits.Ends | None]) -> Callable:
    """Return `slope` with its limits at 0 and 1 where its formula gives NaN there.

    Formulas give NaN for inf - inf and inf * 0.

    Args:
      slope: an elementwise function.
      leading: a function without arguments that returns the terms of the slope near its
        ends. If it returns None, NaN remains.
    """

    def apply(t):
        on_device = isinstance(t, jax.Array)
        xp = jnp if on_device else np
        with np.errstate(invalid="ignore"):
            found = slope(t)
        lost = xp.isnan(found) & ((t == 0) | (t == 1))
        if not on_device and not lost.any():
            return found
        ends = leading()
        if ends is None:
            return found
        first, last = map(limits.limit, ends)
        return xp.where(lost, xp.where(t == 0, first, last), found)[()]

    return apply


def _factor(surrogate):
    """Return the description as a factor: sums and differences get parentheses."""
    text = describe(surrogate)
    return f"({text})" if " + " in text or " - " in text else text


def _add(one, other):
    def series(n):
        return tuple(x + y for x, y in zip(one.series(n), other.series(n), strict=True))

    coefficients, terms = None, None
    if one.bernstein is not None and other.bernstein is not None:
        size = max(len(one.bernstein), len(other.bernstein))
        coefficients = sum(basis.elevate(h.bernstein, size) for h in (one, other))
    parts = power_terms(one), power_terms(other)
    if None not in parts:
        terms = parts[0] + parts[1]

    def leading():
        ends = leading_terms(one), leading_terms(other)
        return None if None in ends else limits.added(*ends)

    return Surrogate(
        value=lambda t: one.value(t) + other.value(t),
        slope=with_limits(lambda t: one.slope(t) + other.slope(t), leading),
        name=f"{describe(one)} + {describe(other)}",
        bernstein=coefficients,
        series=None if None in (one.series, other.series) else series,
        powers=terms,
        leading=leading,
    )


def _scale(surrogate, factor):
    if isinstance(factor, Surrogate) or np.ndim(factor) != 0:
        return NotImplemented
    factor = float(factor)
    if not math.isfinite(factor):
        raise FieldError("factor", factor, "a finite number")

    def times(fn):
        # 0 * inf is NaN, but a term with the factor 0 is 0.
        return lambda t: factor * fn(t) if factor else t * 0.0

    h, terms = surrogate, surrogate.powers

    def leading():
        ends = leading_terms(h)
        return None if ends is None else limits.scaled(ends, factor)

    return Surrogate(
        value=times(h.value),
        slope=times(h.slope),
        name=f"{factor:g} * {_factor(h)}",
        bernstein=None if h.bernstein is None else factor * h.bernstein,
        series=None
        if h.series is None
        else lambda n: tuple(factor * part for part in h.series(n)),
        powers=None
        if terms is None
        else tuple((factor * w, a, b) for w, a, b in terms),
        leading=leading,
    )


def _elementwise_map(fn):
    """Return a scalar function as one of arrays, in float64 for NumPy input."""

    def apply(t):
        if isinstance(t, jax.Array):
            t = t.astype(jnp.result_type(t, jnp.float32))
            return jax.vmap(fn)(t.reshape(-1)).reshape(t.shape)
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            t = jnp.asarray(np.asarray(t, np.float64))
            return np.asarray(jax.vmap(fn)(t.reshape(-1)).reshape(t.shape))[()]

    return apply


def _interpolated(surrogate, degree):
    """Return the Bernstein coefficients of a slope that is a polynomial of a degree."""
    if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= 30:
        raise FieldError("degree", degree, "an integer from 0 to 30")
    angles = (np.arange(4 * degree + 8) + 0.5) * np.pi / (4 * degree + 8)
    points = np.sin(angles / 2) ** 2
    slopes = at(surrogate.slope, points)
    matrix = basis.basis(degree, points)
    coefficients = np.linalg.lstsq(matrix, slopes, rcond=None)[0]
    error = np.abs(matrix @ coefficients - slopes)
    if not error.max() <= 1e-10 * max(np.abs(slopes).max(), 1e-300):
        worst = points[np.argmax(error)]
        raise FieldError(
            "degree",
            degree,
            problem=f"the slope of surrogate {surrogate.name} is no polynomial of "
            f"this degree (off by {error.max():.2g} at p = {worst:.4f})",
            remedy="give the degree of h', one less than that of h, or leave it out",
        )
    return coefficients
