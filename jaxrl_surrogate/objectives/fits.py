"""Small convex fits in float64: non-negative least squares, and least maximum error.

They are written for matrices of Bernstein bases, whose columns are nearly dependent
from about twenty columns on. The errors of a fit are accurate, its coefficients less.
"""

import numpy as np


def nonnegative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return argmin |A x - b| over x >= 0, by active sets.

    The method is that of Lawson and Hanson (1974, ch. 23).

    Args:
      matrix: (n, k) float64 A.
      target: (n,) float64 b.

    Returns:
      (k,) float64.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    lengths[lengths == 0] = 1
    matrix, target = _triangle(matrix / lengths, target)
    size = matrix.shape[1]
    x, passive = np.zeros(size), np.zeros(size, bool)
    limit = 1e-14 * size * max(np.linalg.norm(target), 1e-300)
    barred = np.zeros(size, bool)
    for _ in range(10 * size + 10):
        descent = matrix.T @ (target - matrix @ x)
        descent[passive | barred] = -np.inf
        new = int(np.argmax(descent))
        if descent[new] <= limit:
            break
        passive[new] = True
        trial = _solve(matrix, target, passive)
        if trial[new] <= 0:  # by rounding alone: the direction does not descend
            passive[new], barred[new] = False, True
            continue
        while (trial[passive] <= 0).any():
            hit = passive & (trial <= 0)
            share = np.min(x[hit] / (x[hit] - trial[hit]))
            x = x + share * (trial - x)
            passive &= x > 1e-15 * np.abs(x).max()
            x[~passive] = 0
            trial = _solve(matrix, target, passive)
        x, barred[:] = trial, False
    return x / lengths


def minimax(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return argmin max_i |A x - b|_i over x >= 0, by an interior-point method.

    This is a linear program: the least e with A x - e <= b, -A x - e <= -b, -x <= 0.
    The method is Mehrotra's predictor-corrector (1992). With polynomial bases the
    vertices of this program are nearly singular. In the interior only directions that
    change no error are.

    Args:
      matrix: (n, k) float64 A.
      target: (n,) float64 b.

    Returns:
      (k,) float64. Its largest error is the least to about 1e-7 of the largest |b|.
    """
    lengths = np.abs(matrix).max(axis=0)
    lengths[lengths == 0] = 1
    scale = np.abs(target).max()
    if scale == 0:
        return np.zeros(matrix.shape[1])
    a, b = matrix / lengths, target / scale
    num_points, size = a.shape
    ones = np.ones((num_points, 1))
    g = np.block([[a, -ones], [-a, -ones], [-np.eye(size), np.zeros((size, 1))]])
    limits = np.concatenate([b, -b, np.zeros(size)])
    cost = np.append(np.zeros(size), 1.0)
    x = np.append(np.full(size, 1 / size), 2.0 + np.abs(a).sum(1).max() / size)
    slack, price = limits - g @ x, np.full(len(limits), 1 / (2 * num_points))
    best, least = np.zeros(size), 1.0
    for _ in range(100):
        primal, dual = g @ x + slack - limits, g.T @ price + cost
        inside = np.maximum(x[:-1], 0)
        error = np.abs(a @ inside - b).max()
        if error < least:
            best, least = inside, error
        gap = slack @ price / len(slack)
        if gap < 1e-13:
            break
        solve = _solver(a, price / slack)

        # The first step predicts along a straight line, the second corrects its curve.
        state = (g, solve, primal, dual, slack, price)
        _, toward_slack, toward_price = _newton(*state, -slack * price)
        reach = min(_reach(slack, toward_slack), _reach(price, toward_price), 1.0)
        after = (slack + reach * toward_slack) @ (price + reach * toward_price)
        centre = (after / len(slack) / gap) ** 3 * gap
        want = centre - slack * price - toward_slack * toward_price
        change, slack_change, price_change = _newton(*state, want)
        if not np.isfinite(change).all():
            break
        reach = min(0.99 * _reach(slack, slack_change), 1.0)
        x, slack = x + reach * change, slack + reach * slack_change
        price = price + min(0.99 * _reach(price, price_change), 1.0) * price_change
    return best * scale / lengths


def _newton(g, solve, primal, dual, slack, price, want):
    """Return the Newton steps of x, slack and price.

    To first order they meet all constraints and add `want` to slack * price.
    """
    change = solve(-dual - g.T @ ((price * primal + want) / slack))
    slack_change = -primal - g @ change
    return change, slack_change, (want - price * slack_change) / slack


def _reach(values, change):
    """Return the longest step along `change` that keeps the values non-negative."""
    falling = change < 0
    return float((-values[falling] / change[falling]).min(initial=np.inf))


def _solver(a, weights):
    """Return a function of r to the solution x of (g' diag(w) g) x = r.

    g is the matrix of constraints of `minimax`. Directions in which the matrix is
    singular, to rounding, get no component.
    """
    n, size = a.shape
    over, under, signs = weights[:n], weights[n : 2 * n], weights[2 * n :]
    total = np.empty((size + 1, size + 1))
    total[:-1, :-1] = (a.T * (over + under)) @ a + np.diag(signs)
    total[-1, :-1] = total[:-1, -1] = (under - over) @ a
    total[-1, -1] = (over + under).sum()
    # Scaled to a unit diagonal first: prices differ by orders of magnitude.
    scale = 1 / np.sqrt(np.diag(total))
    values, vectors = np.linalg.eigh(total * scale * scale[:, None])
    used = values > 1e-15 * values[-1]
    values, vectors = values[used], vectors[:, used] * scale[:, None]
    return lambda right: vectors @ ((right @ vectors) / values)


def _triangle(matrix, target):
    """Return the same least-squares problem with at most as many rows as columns."""
    if len(matrix) <= matrix.shape[1]:
        return matrix, target
    rotation, triangle = np.linalg.qr(matrix)
    return triangle, rotation.T @ target


def _solve(matrix, target, passive):
    out = np.zeros(len(passive))
    out[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
    return out
