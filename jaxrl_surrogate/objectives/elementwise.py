"""Formulas that take NumPy or JAX input, and checks of parameters that they share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError


def elementwise(formula: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Return a function of t that calls `formula(xp, t)`, elementwise.

    JAX input keeps its float type (integers become float32), and xp is jax.numpy. Any
    other input is computed in float64, and xp is NumPy.
    """

    def apply(t):
        if isinstance(t, jax.Array):
            dtype = jnp.result_type(t, jnp.float32)
            return formula(jnp, t.astype(dtype))
        with np.errstate(divide="ignore"):
            return formula(np, np.asarray(t, np.float64)[()])

    return apply


def powers(n: int, coefficients: dict[int, float]) -> np.ndarray:
    """Return (n,) float64 coefficients of the powers 0 .. n - 1.

    Powers that `coefficients` does not contain get 0, and powers from n on are left
    out.
    """
    out = np.zeros(n)
    for power, coefficient in coefficients.items():
        if power < n:
            out[power] = coefficient
    return out


def check_k(k: int) -> None:
    """Raise FieldError for a k that is not an integer of 1 or more."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise FieldError("k", k, "an integer of 1 or more")


def check_number(name: str, value: float, above: float = -np.inf) -> None:
    """Raise FieldError for a value that is not a finite number larger than `above`."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and above < value < np.inf):
        expected = "a finite number" + (f" above {above}" if above > -np.inf else "")
        raise FieldError(name, value, expected)
