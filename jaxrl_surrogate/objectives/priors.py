"""Priors of the success rate p: beta distributions and weighted grids.

The variance of a table's update and the error of its objective depend on p. A prior
weighs the values of p for means over prompts. Beta priors are Gauss-Jacobi rules, which
make means of polynomials in p exact; the moments of tables are such polynomials.
"""

import dataclasses
import functools

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """A discrete distribution of success rates over prompts.

    >>> prior = Prior([0.1, 0.5], [3, 1])
    >>> prior.mean(prior.points)
    0.2
    """

    points: np.ndarray  # (n,) float64 in [0, 1]
    weights: np.ndarray  # (n,) float64, 0 or more; they are scaled to a sum of 1

    def __post_init__(self):
        points = np.asarray(self.points, np.float64)
        weights = np.asarray(self.weights, np.float64)
        if points.ndim != 1 or points.shape != weights.shape or points.size == 0:
            raise FieldError(
                "prior",
                expected=f"points and weights of one shape (n,), got {points.shape} "
                f"and {weights.shape}",
            )
        if not ((points >= 0) & (points <= 1)).all():
            raise FieldError(
                "prior", problem=f"points {points}: expected all between 0 and 1"
            )
        total = weights.sum()
        if not ((weights >= 0).all() and 0 < total < np.inf):
            raise FieldError(
                "prior",
                problem=f"weights {weights}: expected none below 0, and one above",
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "weights", weights / total)

    def mean(self, values: np.ndarray) -> float:
        """Return the mean of (n,) values at the points; points of weight 0 are ignored.

        At those points values need not be finite.
        """
        used = self.weights > 0
        return float(self.weights[used] @ np.asarray(values)[used])


PriorLike = Prior | tuple


def beta(alpha: float, beta: float, num_points: int = 64) -> Prior:
    """Return Beta(alpha, beta) as a Gauss-Jacobi rule of n = `num_points` points.

    Means of polynomials of degree below 2 n are exact.

    Raises:
      FieldError: for parameters that are not positive.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < np.inf:
            raise FieldError("prior", problem=f"{name}={value}: expected above 0")
    return _gauss_jacobi(float(alpha), float(beta), num_points)


def settle(prior: PriorLike | None, num_points: int = 64) -> Prior:
    """Return a `Prior` from any form that a user may give.

    Args:
      prior: a `Prior`; two numbers (alpha, beta) of a beta distribution; two (n,)
        arrays of points and weights; or None for the uniform prior.
      num_points: the number of points of the rule for a beta distribution.

    Raises:
      FieldError: for anything else.

    >>> round(settle((2, 6)).mean(settle((2, 6)).points), 12)
    0.25
    """
    if prior is None:
        prior = (1.0, 1.0)
    if isinstance(prior, Prior):
        return prior
    parameters = beta_parameters(prior)
    if parameters is not None:
        return beta(*parameters, num_points)
    if isinstance(prior, (tuple, list)) and len(prior) == 2:
        return Prior(*prior)
    raise FieldError(
        "prior", prior, "(alpha, beta) of a beta distribution, or (points, weights)"
    )


def beta_parameters(prior: PriorLike | None) -> tuple[float, float] | None:
    """Return (alpha, beta) of a prior given by two numbers; None for another prior.

    No prior is the uniform one, (1, 1).

    Raises:
      FieldError: for numbers that are not positive and finite.
    """
    if prior is None:
        return 1.0, 1.0
    if isinstance(prior, (tuple, list)) and len(prior) == 2:
        alpha, beta = prior
        if all(isinstance(x, (int, float, np.number)) for x in (alpha, beta)):
            if not (0 < alpha < np.inf and 0 < beta < np.inf):
                raise FieldError("prior", prior, "two numbers above 0")
            return float(alpha), float(beta)
    return None


def posterior_mean(
    prior: PriorLike | None, others: int, values: np.ndarray | None = None
) -> np.ndarray:
    """Return E[f(p) | s of n other samples correct] for s = 0 .. n.

    Args:
      prior: any form that `settle` takes.
      others: n.
      values: f at the points of `prior`, which is then a `Prior`. Without it f(p) = p.

    Returns:
      (n + 1,) float64.

    Raises:
      FieldError: for a grid under which some s has probability 0 (all its weight is on
        p = 0 and p = 1).
    """
    parameters = beta_parameters(prior)
    if parameters is not None and values is None:
        alpha, beta = parameters
        return (np.arange(others + 1) + alpha) / (others + alpha + beta)
    grid = settle(prior)
    joint = grid.weights[:, None] * bernstein.basis(others, grid.points)
    share = joint.sum(0)
    if not (share > 0).all():
        raise FieldError(
            "prior",
            problem=f"it makes {int(np.argmin(share))} correct answers among {others} "
            "impossible, so nothing follows for that weight",
            remedy="give it points inside (0, 1)",
        )
    return (grid.points if values is None else values) @ joint / share


@functools.lru_cache(maxsize=64)
def _gauss_jacobi(alpha, beta, num_points):
    # Golub and Welsch (1969): eigenvalues of the recurrence of Jacobi polynomials with
    # the weight (1 - x)^a (1 + x)^b, on x = 2 t - 1.
    a, b, n = beta - 1.0, alpha - 1.0, np.arange(1.0, num_points)
    first = (b - a) / (a + b + 2)
    both = 2 * n + a + b
    diagonal = np.append(first, (b * b - a * a) / (both * (both + 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = 4 * n * (n + a) * (n + b) * (n + a + b) / (both**2 * (both**2 - 1))
    if num_points > 1:  # 0 / 0 there at a + b = -1
        squared[0] = 4 * (1 + a) * (1 + b) / ((2 + a + b) ** 2 * (3 + a + b))
    matrix = np.diag(diagonal)
    matrix += np.diag(np.sqrt(squared), 1) + np.diag(np.sqrt(squared), -1)
    nodes, vectors = np.linalg.eigh(matrix)
    prior = Prior(np.clip((nodes + 1) / 2, 0, 1), vectors[0] ** 2)
    for values in (prior.points, prior.weights):
        values.flags.writeable = False
    return prior
