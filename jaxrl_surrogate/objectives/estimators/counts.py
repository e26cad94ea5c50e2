"""What estimators are made of: centring by counts, exact subset shares, refusals."""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives.weight_table import WeightTable


def centred(group_size: int, right: np.ndarray) -> WeightTable:
    """The table whose weights sum to zero in each group, from A+(m) for m = 0 .. M.

    m A+ + (M - m) A- = 0 gives A-; all-equal groups get exact zeros.
    """
    count = np.arange(group_size + 1)
    mixed = (count > 0) & (count < group_size)
    right = np.where(mixed, right, 0)
    wrong = -divide(count * right, group_size - count)
    return WeightTable(wrong[:-1] + 0.0, right[1:])


def by_count(group_size: int, right: np.ndarray, wrong: np.ndarray) -> WeightTable:
    """The table of A+(m) and A-(m), m = 0 .. M; A+(0) and A-(M) are never needed."""
    shape = group_size + 1
    right, wrong = (np.broadcast_to(x, shape) for x in (right, wrong))
    return WeightTable(wrong[:-1] + 0.0, right[1:] + 0.0)


def rates(group_size: int) -> np.ndarray:
    """(M + 1,) m / M, the success rate of a group."""
    return np.arange(group_size + 1) / group_size


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    out = np.zeros(np.broadcast(numerator, denominator).shape)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def subset_miss(size: int, k: int) -> np.ndarray:
    """(size + 1,) C(size - c, k) / C(size, k): k of `size` hold none of c correct ones.

    As prod_{i<c} (size - k - i) / (size - i): O(size), no overflow, exact zeros.
    """
    i = np.arange(size)
    factors = np.maximum(size - k - i, 0) / (size - i)
    return np.concatenate([[1.0], np.cumprod(factors)])


def needs_others(name: str, group_size: int) -> None:
    """Refuse groups of 1, which a centred method gives no weight (ValueError)."""
    if group_size < 2:
        raise FieldError(
            "group_size",
            group_size,
            problem=f"{name} centres on the group, and every weight of a group of 1 "
            "is 0",
            remedy="take 2 or more",
        )


def check_at_least(field: str, value: float, least: float = 0, above: bool = False):
    """Refuse numbers below the least, infinite or not numbers (ValueError)."""
    check_number(field, value)
    fits = least < value < np.inf if above else least <= value < np.inf
    if not fits:
        wanted = f"more than {least}" if above else f"{least} or more"
        raise FieldError(field, value, wanted)


def check_number(field: str, value: float) -> None:
    """Refuse what is no number (ValueError)."""
    if not isinstance(value, (int, float, np.number)):
        raise FieldError(field, value, "a number")


def check_integer(field: str, value: int) -> None:
    """Refuse what is not an integer of 1 or more (ValueError)."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise FieldError(field, value, "an integer of 1 or more")


def check_k(name: str, k: int, group_size: int, largest: int | None = None) -> None:
    """Refuse a k that groups of this size cannot serve (ValueError)."""
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
