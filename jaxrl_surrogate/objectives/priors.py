"""Where p lies: beta distributions and weighted grids, for means over prompts.

What a table costs and how far its objective is off depend on p; a prior says which p
matter. Beta priors are Gauss-Jacobi rules, so means of polynomials in p, which is what
tables have, are exact.
"""

import dataclasses
import functools

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import bernstein


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """Success rates and how often prompts have them.

    >>> prior = Prior([0.1, 0.5], [3, 1])
    >>> prior.mean(prior.points)
    0.2
    """

    points: np.ndarray  # (n,) float64 in [0, 1]
    weights: np.ndarray  # (n,) float64, not negative; they are scaled to the sum 1

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
        """The mean over prompts of values at the points; points of weight 0 are out."""
        used = self.weights > 0
        return float(self.weights[used] @ np.asarray(values)[used])


PriorLike = Prior | tuple


def beta(alpha: float, beta: float, num_points: int = 64) -> Prior:
    """Beta(alpha, beta) as a Gauss-Jacobi rule of n points.

    Means of polynomials of degree below 2 n are exact.

    Raises:
      FieldError: for parameters that are not positive.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < np.inf:
            raise FieldError("prior", problem=f"{name}={value}: expected above 0")
    return _gauss_jacobi(float(alpha), float(beta), num_points)


def settle(prior: PriorLike | None, num_points: int = 64) -> Prior:
    """A prior from what a user may give: None is uniform, (alpha, beta), a grid.

    Args:
      prior: a `Prior`, two numbers, two (n,) arrays of points and weights, or None.
      num_points: of the rule, for a beta distribution.

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
    """(alpha, beta) where a prior is given by two numbers or None, else None."""
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
    """E[f(p) | s of n others correct], s = 0 .. n; of p itself without `values`.

    Args:
      prior: as `settle` takes it.
      others: n.
      values: f at the points of `settle(prior, ...)`, for which `prior` is a `Prior`.

    Returns:
      (n + 1,) float64.

    Raises:
      FieldError: for a grid that makes some count impossible (all weight on 0 or 1).
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
