"""What a verifier that errs makes of an objective, and the weights that undo it.

A verifier that calls a correct answer wrong with probability `false_negative` and a
incorrect one right with probability `false_positive`, each time independently, shows
successes at the rate

    r(p) = false_positive + (1 - false_negative - false_positive) p

so weights with the objective h_M ascend h_M(r(p)): the ends of h are cut off, and what
was steep there is lost. r is affine, so a slope of degree M - 1 stays one, and the gap
that gives back h_M' exactly exists and is unique. It extrapolates: its entries grow and
change sign as the verifier gets worse, which is the price in noise. (Derived here.)

Rounding grows along, for a slope of degree n by up to (1 + 2 false_positive / share)^n
and the same with false_negative, share = 1 - false_negative - false_positive. So
`undo_noise` works at the lowest degree that the slope has to rounding (k - 1 for pass@k
in groups of any size), looks at its result through the noise again, which is stable,
and refuses what does not come back.
"""

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import baselines, bernstein
from jaxrl_surrogate.objectives.weight_table import WeightTable

_MOST_LOST = 1e-6  # of the largest weight, by rounding


def observed_rate(
    p: np.ndarray, false_negative: float, false_positive: float
) -> np.ndarray:
    """r(p): how often a policy that is correct with probability p is called correct.

    Raises:
      ValueError: rates outside [0, 1), or whose sum is 1 or more: such a verifier says
        nothing, or the opposite.
    """
    _check(false_negative, false_positive)
    return false_positive + (1 - false_negative - false_positive) * p


def seen_through_noise(
    table: WeightTable, false_negative: float, false_positive: float
) -> WeightTable:
    """A table whose objective under a perfect verifier is that of `table` under noise.

    For analysis: `induced_surrogate` of it is the objective in the true p.

    Args:
      table: the weights that are applied, group size M.
      false_negative: probability that a correct answer is called incorrect.
      false_positive: probability that an incorrect answer is called correct.

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
    """The weights to apply under noise to ascend what `table` ascends without.

    Args:
      table: the weights wanted under a perfect verifier, group size M.
      false_negative: as for `seen_through_noise`.
      false_positive: as for `seen_through_noise`.
      baseline: of the weights returned.

    Returns:
      The table of group size M whose h_M in the true p is that of `table`: h_M' is off
      by 1e-6 of the largest weight at most, mostly by rounding.

    Raises:
      ValueError: as `observed_rate`, for an unknown baseline, and where rounding would
        move h_M' further: slopes of high degree (GRPO, MaxRL) in large groups under
        large rates. At rates 0.1 and 0.2 GRPO is served up to groups of some 70.

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
        # The way back mixes neighbours and is stable; coefficients bound the slope.
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
    """Bernstein coefficients of q(t) = f(low + (high - low) t), f given by its own.

    Coefficient j is the polar form of f at `high` j times and `low` n - j times, by de
    Casteljau's recurrence with one argument a level (Ramshaw, 1989).
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
