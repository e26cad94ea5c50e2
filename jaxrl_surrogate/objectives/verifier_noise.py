"""The effect of a verifier's errors on an objective, and weights that undo it.

Suppose that a verifier calls a correct answer incorrect with probability
`false_negative` and an incorrect one correct with probability `false_positive`,
independently each time. It then observes successes at the rate

    r(p) = false_positive + (1 - false_negative - false_positive) p

and weights with the objective h_M ascend h_M(r(p)), which leaves out the ends of h,
where it may be steep. As r is affine, the slope keeps its degree, M - 1 or less. The
gap whose objective under noise has the slope h_M' therefore exists and is unique. It
extrapolates: as the errors increase, its entries grow and change sign, and so the
variance grows. (This result is derived here.)

For a slope of degree n, rounding grows by up to (1 + 2 false_positive / share)^n, and
the same with false_negative, where share = 1 - false_negative - false_positive.
`undo_noise` therefore works at the lowest degree that represents the slope to rounding
(k - 1 for pass@k in groups of any size). It then applies the noise to its result, which
is stable, and raises an error if this does not give back the slope.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import baselines, bernstein
from jaxrl_surrogate.objectives.weight_table import WeightTable

_MOST_LOST = 1e-6  # the allowed rounding, as a fraction of the largest weight


def observed_rate(
    p: np.ndarray, false_negative: float, false_positive: float
) -> np.ndarray:
    """Return r(p), the rate at which answers are called correct if p of them are.

    Args:
      p: success rates, of any shape.
      false_negative: the probability that a correct answer is called incorrect.
      false_positive: the probability that an incorrect answer is called correct.

    Raises:
      ValueError: for rates outside [0, 1) or with a sum of 1 or more. The results of
        such a verifier are independent of the answer, or reversed.
    """
    _check(false_negative, false_positive)
    return false_positive + (1 - false_negative - false_positive) * p


def seen_through_noise(
    table: WeightTable, false_negative: float, false_positive: float
) -> WeightTable:
    """Return a table that has without noise the objective of `table` under noise.

    It is for analysis: its `induced_surrogate` is the objective as a function of the
    true p.

    Args:
      table: the weights that are applied, of group size M.
      false_negative: the probability that a correct answer is called incorrect.
      false_positive: the probability that an incorrect answer is called correct.

    Returns:
      A table of group size M without a baseline.

    Raises:
      ValueError: as `observed_rate`.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> print(seen_through_noise(advantages.table("rloo", 3), 0.1, 0.2).gap.round(12))
    [0.7 0.7 0.7]
    """
    low, high = observed_rate(np.array([0.0, 1.0]), false_negative, false_positive)
    return baselines.none((high - low) * _on_interval(table.gap, low, high))


def undo_noise(
    table: WeightTable,
    false_negative: float,
    false_positive: float,
    baseline: str = "leave_one_out",
) -> WeightTable:
    """Return the weights that ascend under noise what `table` ascends without.

    Args:
      table: the weights for a verifier without errors, of group size M.
      false_negative: as for `seen_through_noise`.
      false_positive: as for `seen_through_noise`.
      baseline: the baseline of the returned weights.

    Returns:
      The table of group size M that has under noise, as a function of the true p, the
      objective of `table`. Its h_M' differs by at most 1e-6 of the largest entry of
      the gap, mostly by rounding.

    Raises:
      ValueError: as `observed_rate`; for an unknown baseline; and if rounding would
        change h_M' by more. This happens for slopes of high degree (GRPO, MaxRL) in
        large groups at large rates. At rates 0.1 and 0.2 GRPO works for groups of up to
        about 70.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> fixed = undo_noise(advantages.table("pass_at_k", 2, k=2), 0.0, 0.25)
    >>> print(fixed.gap.round(12))
    [3.55555556 0.        ]
    """
    ends = observed_rate(np.array([0.0, 1.0]), false_negative, false_positive)
    share = ends[1] - ends[0]
    low, high = (0 - ends[0]) / share, (1 - ends[0]) / share
    wanted = np.asarray(table.gap, np.float64)
    lean = bernstein.lowest_degree(wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        gap = bernstein.elevate(_on_interval(lean, low, high) / share, len(wanted))
        # Applying the noise takes convex sums of neighbours, which is stable. The
        # differences of coefficients bound that of the slope.
        back = share * _on_interval(gap, *ends)
    lost = np.abs(back - wanted).max() / max(np.abs(wanted).max(), 1e-300)
    if not lost <= _MOST_LOST:
        raise ValueError(
            f"false_negative={false_negative}, false_positive={false_positive}: at "
            f"group size {len(wanted)}, weights that undo this noise extrapolate a "
            f"slope of degree {len(lean) - 1}, and rounding moves it by {lost:.1g} of "
            f"the largest weight; expected {_MOST_LOST:g} or less. Take smaller "
            "groups, a verifier that errs less, or an objective of lower degree "
            "(pass@k: k - 1)"
        )
    return baselines.apply(baseline, gap)


def _on_interval(coefficients, low, high):
    """Return the Bernstein coefficients of f(low + (high - low) t), from those of f.

    Coefficient j is the polar form of f with j arguments `high` and n - j arguments
    `low`, by de Casteljau's recurrence with one argument per level (Ramshaw, 1989).
    """
    coefficients = np.asarray(coefficients, np.float64)
    degree = len(coefficients) - 1
    out = np.empty(degree + 1)
    for j in range(degree + 1):
        mixed = coefficients
        for level in range(degree):
            at = high if level < j else low
            mixed = (1 - at) * mixed[:-1] + at * mixed[1:]
        out[j] = mixed[0]
    return out


def _check(false_negative, false_positive):
    for name, rate in (
        ("false_negative", false_negative),
        ("false_positive", false_positive),
    ):
        if not 0 <= rate < 1:
            raise FieldError(name, rate, "in [0, 1)")
    if not false_negative + false_positive < 1:
        raise ValueError(
            f"false_negative={false_negative}, false_positive={false_positive}: "
            "expected a sum below 1; at 1 verdicts do not depend on the answer"
        )
