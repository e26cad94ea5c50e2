"""Non-negative least squares and minimax fits, against SciPy."""

import numpy as np
import pytest
from scipy import optimize

from jaxrl_surrogate.objectives import bernstein
from jaxrl_surrogate.objectives.fits import minimax, nonnegative_least_squares


def least_maximum(matrix, target):
    n, k = matrix.shape
    ones = np.ones((n, 1))
    found = optimize.linprog(
        np.append(np.zeros(k), 1.0),
        A_ub=np.block([[matrix, -ones], [-matrix, -ones]]),
        b_ub=np.concatenate([target, -target]),
    )
    return found.fun


def problems(random):
    for n, k in ((5, 1), (8, 8), (60, 5), (200, 20)):
        yield random.normal(size=(n, k)), random.normal(size=n)
        yield np.abs(random.normal(size=(n, k))), random.normal(size=n)
    for size in (2, 9, 24):
        p = np.sort(random.uniform(size=8 * size))
        yield bernstein.basis(size - 1, p), np.sin(4 * p) / (p + 0.1)
        yield bernstein.basis(size - 1, p), random.uniform() * (1 - p)


def test_nonnegative_least_squares(random):
    for matrix, target in problems(random):
        x = nonnegative_least_squares(matrix, target)
        assert (x >= 0).all()
        _, least = optimize.nnls(matrix, target, maxiter=100 * matrix.shape[1])
        error = np.linalg.norm(matrix @ x - target)
        assert error <= least + 1e-6 * np.linalg.norm(target)


def test_minimax(random):
    for matrix, target in problems(random):
        x = minimax(matrix, target)
        assert (x >= 0).all()
        error = np.abs(matrix @ x - target).max()
        assert error <= least_maximum(matrix, target) + 1e-6 * np.abs(target).max()


def test_nothing_fits_but_zero():
    matrix = np.eye(3)
    assert not nonnegative_least_squares(matrix, -np.ones(3)).any()
    assert not minimax(matrix, -np.ones(3)).max() > 1e-9
    assert not nonnegative_least_squares(matrix, np.zeros(3)).any()
    assert not minimax(matrix, np.zeros(3)).any()


@pytest.mark.parametrize("fit", [nonnegative_least_squares, minimax])
def test_an_empty_column(fit):
    x = fit(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(x[0], 2, rtol=1e-6)
