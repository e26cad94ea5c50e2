"""Formulas for NumPy in float64 and for JAX as it comes, and checks they share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.errors import FieldError


def elementwise(formula: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """`formula(xp, t)` for NumPy input in float64 and for JAX input as it comes."""

    def apply(t):
        if isinstance(t, jax.Array):
            dtype = jnp.result_type(t, jnp.float32)
            return formula(jnp, t.astype(dtype))
        with np.errstate(divide="ignore"):
            return formula(np, np.asarray(t, np.float64)[()])

    return apply


def powers(n: int, coefficients: dict[int, float]) -> np.ndarray:
    """(n,) coefficients of the powers 0 .. n - 1, zero where not named."""
    out = np.zeros(n)
    for power, coefficient in coefficients.items():
        if power < n:
            out[power] = coefficient
    return out


def check_k(k: int) -> None:
    """Refuse what is not an integer of 1 or more (ValueError)."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise FieldError("k", k, "an integer of 1 or more")


def check_number(name: str, value: float, above: float = -np.inf) -> None:
    """Refuse what is not a finite number larger than `above` (ValueError)."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and above < value < np.inf):
        expected = "a finite number" + (f" above {above}" if above > -np.inf else "")
        raise FieldError(name, value, expected)
