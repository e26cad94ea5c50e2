"""Polynomials on [0, 1] in the Bernstein basis: evaluation, degree, products.

    f(t) = sum_m c_m C(n, m) t^m (1-t)^(n-m)                            m = 0 .. n

is the expectation of c_m, where m counts the correct answers among n samples that are
each correct with probability t. The objectives of weight tables are therefore written
in this basis. Coefficients are (n + 1,) float64. Evaluation, `elevate` and `multiply`
take convex means, so they do not amplify rounding.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 16_000  # float64 entries below 128 KiB: larger arrays get new pages each time


def basis(degree: int, t: np.ndarray) -> np.ndarray:
    """Return (..., n + 1) float64, the basis P(Bin(n, t) = m) at t of shape (...).

    It is computed from logarithms and does not overflow at any degree n.
    """
    m = np.arange(degree + 1)
    t = np.asarray(t, np.float64)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(m == 0, 0.0, m * np.log(t))
        wrong = np.where(m == degree, 0.0, (degree - m) * np.log1p(-t))
    return np.exp(log_choose(degree) + right + wrong)


@functools.lru_cache(maxsize=256)
def log_choose(degree: int) -> np.ndarray:
    """Return (n + 1,) float64, log C(n, m) for m = 0 .. n (read-only)."""
    out, number = np.zeros(degree + 1), 1
    # Exact integers, each from the one before; math.log takes integers of any size.
    for m in range(1, degree + 1):
        number = number * (degree - m + 1) // m
        out[m] = math.log(number)
    out.flags.writeable = False
    return out


def polynomial(coefficients: np.ndarray) -> Callable:
    """Return the polynomial as an elementwise function of NumPy (float64) or JAX input.

    Args:
      coefficients: (n + 1,) float64, in the Bernstein basis.
    """

    def evaluate(t):
        if isinstance(t, jax.Array):
            return _de_casteljau(coefficients, t)
        t = np.asarray(t, np.float64)
        degree = len(coefficients) - 1
        points = t.reshape(-1)
        values = np.empty(points.shape)
        # Blocks that stay in the cache are several times faster at large degrees.
        block = max(1, _BLOCK // (degree + 1))
        for start in range(0, len(points), block):
            part = slice(start, start + block)
            values[part] = basis(degree, points[part]) @ coefficients
        return values.reshape(t.shape)[()]

    return evaluate


def from_powers(coefficients: np.ndarray) -> np.ndarray:
    """Return the Bernstein coefficients of sum_j c_j t^j, j = 0 .. n.

    They are d_s = sum_{j<=s} c_j C(s, j) / C(n, j). In reverse order they are those of
    sum_j c_j (1 - t)^j.
    """
    size = len(coefficients)
    s = np.arange(size)
    out, ratio = np.zeros(size), np.ones(size)
    for j, coefficient in enumerate(coefficients):
        out += coefficient * ratio
        # C(s, j+1) / C(n, j+1) from that of j; it is exactly 0 once j reaches s.
        ratio = ratio * np.maximum(s - j, 0) / max(size - 1 - j, 1)
    return out


def elevate(coefficients: np.ndarray, size: int) -> np.ndarray:
    """Return the same polynomial with `size` coefficients, at least as many as given.

    Degree elevation is exact up to rounding.
    """
    coefficients = np.asarray(coefficients, np.float64)
    for degree in range(len(coefficients), size):
        share = np.arange(degree + 1) / degree
        padded = np.concatenate([[0.0], coefficients, [0.0]])
        coefficients = share * padded[:-1] + (1 - share) * padded[1:]
    return coefficients


def lowest_degree(coefficients: np.ndarray, most: int = 32) -> np.ndarray:
    """Return the polynomial with the fewest coefficients that represent it to rounding.

    Args:
      coefficients: (n + 1,) float64.
      most: the largest degree that is tried. Where none up to it is enough, the
        coefficients are returned unchanged.
    """
    coefficients = np.asarray(coefficients, np.float64)
    limit = 1e-13 * np.abs(coefficients).max(initial=0.0)
    size = len(coefficients)
    best, low, high = coefficients, 0, min(size - 2, most)
    # If one degree is enough, every larger one is too, so bisection finds the least.
    while low <= high:
        degree = high if best is coefficients else (low + high) // 2
        matrix = np.stack([elevate(row, size) for row in np.eye(degree + 1)], -1)
        lean = np.linalg.lstsq(matrix, coefficients, rcond=None)[0]
        if np.abs(matrix @ lean - coefficients).max() <= limit:
            best, high = lean, degree - 1
        elif best is coefficients:
            break
        else:
            low = degree + 1
    return best


def reduce(coefficients: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the nearest polynomial of one degree less, by least squares.

    The least squares are those of the coefficients at degree n.

    Args:
      coefficients: (n + 1,) float64, n >= 1.

    Returns:
      (n,) float64 coefficients, and the largest change of a coefficient when they are
      elevated to degree n again. It bounds the change of the polynomial on [0, 1].
    """
    degree = len(coefficients) - 1
    share = np.arange(degree + 1) / degree
    matrix = np.zeros((degree + 1, degree))
    s = np.arange(degree)
    matrix[s + 1, s] = share[1:]
    matrix[s, s] = 1 - share[:-1]
    reduced = np.linalg.lstsq(matrix, coefficients, rcond=None)[0]
    return reduced, float(np.abs(matrix @ reduced - coefficients).max())


def multiply(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the coefficients of a product, whose degree is the sum of the degrees."""
    n, m = len(one) - 1, len(other) - 1
    out = np.zeros(n + m + 1)
    total = log_choose(n + m)
    for i, factor in enumerate(one):
        share = np.exp(log_choose(n)[i] + log_choose(m) - total[i : i + m + 1])
        out[i : i + m + 1] += factor * share * other
    return out


def _de_casteljau(coefficients, t):
    """Evaluate by repeated convex sums of neighbours, which do not amplify rounding."""
    t = t.astype(jnp.result_type(t, jnp.float32))[..., None]
    mixed = jnp.broadcast_to(
        jnp.asarray(coefficients, t.dtype), (*t.shape[:-1], len(coefficients))
    )

    def mix(mixed, _):
        # The last column is repeated to keep the shape; the result does not read it.
        shifted = jnp.concatenate([mixed[..., 1:], mixed[..., -1:]], axis=-1)
        return mixed + t * (shifted - mixed), None

    mixed, _ = jax.lax.scan(mix, mixed, length=len(coefficients) - 1)
    return mixed[..., 0]
