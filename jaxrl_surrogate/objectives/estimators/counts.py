"""Parts of estimators: centring by counts, exact subset shares, parameter checks."""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import WeightTable


def centred(group_size: int, right: np.ndarray) -> WeightTable:
    """Return the table with weights that sum to 0 in each group, from its A+(m).

    m A+ + (M - m) A- = 0 gives A-. All-equal groups get exact zeros.

    Args:
      group_size: M.
      right: (M + 1,) float64, A+(m) for m = 0 .. M.
    """
    count = np.arange(group_size + 1)
    mixed = (count > 0) & (count < group_size)
    right = np.where(mixed, right, 0)
    wrong = -divide(count * right, group_size - count)
    return WeightTable(wrong[:-1] + 0.0, right[1:])


def by_count(group_size: int, right: np.ndarray, wrong: np.ndarray) -> WeightTable:
    """Return the table of A+(m) and A-(m), m = 0 .. M; A+(0) and A-(M) are ignored."""
    shape = group_size + 1
    right, wrong = (np.broadcast_to(x, shape) for x in (right, wrong))
    return WeightTable(wrong[:-1] + 0.0, right[1:] + 0.0)


def rates(group_size: int) -> np.ndarray:
    """Return (M + 1,) float64 m / M, the success rate of a group with m correct."""
    return np.arange(group_size + 1) / group_size


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, and 0 where the denominator is 0."""
    out = np.zeros(np.broadcast(numerator, denominator).shape)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def subset_miss(size: int, k: int) -> np.ndarray:
    """Return C(size - c, k) / C(size, k) for c = 0 .. size, (size + 1,) float64.

    This is the probability that k of `size` samples contain none of c correct ones. It
    is computed as prod_{i<c} (size - k - i) / (size - i), without overflow and with
    exact zeros.
    """
    i = np.arange(size)
    factors = np.maximum(size - k - i, 0) / (size - i)
    return np.concatenate([[1.0], np.cumprod(factors)])


def needs_others(name: str, group_size: int) -> None:
    """Raise FieldError for groups of 1, where a centred method has weights of 0."""
    if group_size < 2:
        raise FieldError(
            "group_size",
            group_size,
            problem=f"{name} centres on the group, and every weight of a group of 1 "
            "is 0",
            remedy="take 2 or more",
        )


def check_at_least(field: str, value: float, least: float = 0, above: bool = False):
    """Raise FieldError for a value that is not a finite number of `least` or more.

    With `above`, `least` itself is not allowed either.
    """
    check_number(field, value)
    fits = least < value < np.inf if above else least <= value < np.inf
    if not fits:
        wanted = f"more than {least}" if above else f"{least} or more"
        raise FieldError(field, value, wanted)


def check_number(field: str, value: float) -> None:
    """Raise FieldError for a value that is not a number."""
    if not isinstance(value, (int, float, np.number)):
        raise FieldError(field, value, "a number")


def check_integer(field: str, value: int) -> None:
    """Raise FieldError for a value that is not an integer of 1 or more."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise FieldError(field, value, "an integer of 1 or more")


def check_k(name: str, k: int, group_size: int, largest: int | None = None) -> None:
    """Raise FieldError for a k that groups of this size do not support.

    The largest k is `largest`, by default the group size.
    """
    check_integer("k", k)
    largest = group_size if largest is None else largest
    if k > largest:
        raise FieldError(
            "k",
            k,
            problem=f"{name} with groups of {group_size} serves k up to {largest}",
            remedy=f"take groups of {group_size + k - largest} or more, or a smaller "
            "k. (No weights of M samples are unbiased for pass@k beyond k = "
            'M; from_surrogate(surrogates.get("arcsin_pass_at_k", k=k), M) '
            "approximates.)",
        )
