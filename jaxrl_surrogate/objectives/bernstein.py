"""Both arrows between weights and objectives, in the Bernstein basis.

A table with the gap d = b - a, applied to groups of M independent samples that are each
right with probability t, climbs h_M with

    h_M'(t) = sum_s d_s C(M-1, s) t^s (1-t)^(M-1-s)                   s = 0 .. M-1

(Davis and Recht, arXiv 2510.13651), a polynomial of degree M - 1, and any such
polynomial has exactly one gap. Its integral is the Bernstein polynomial of degree M
whose coefficients are the running sums of d / M. Independent samples, on-policy, the
first update after sampling, no clipping.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_surrogate.objectives import baselines
from jaxrl_surrogate.objectives.names import nearest_name
from jaxrl_surrogate.objectives.surrogates import Surrogate
from jaxrl_surrogate.objectives.weight_table import (
    GroupFunction,
    WeightTable,
    check_group_size,
)

# What rounding may move a weight by, as a share of the largest weight: float32
# functions of counts stay below, and a function that is not of counts is far above.
_ROUNDING = 1e-5
_PERMUTATIONS = 4


def from_surrogate(
    surrogate: Surrogate,
    group_size: int,
    *,
    method: str = "kantorovich",
    baseline: str = "leave_one_out",
) -> WeightTable:
    """Weights whose objective h_M is, or approximates, the surrogate asked for.

    Methods, by the gap they choose:
      kantorovich: d_s = M (h((s+1)/M) - h(s/M)), so that h_M(p) = E[h(m/M)], m ~ Bin(M,
        p), up to h(0): the expected plug-in value. Increasing where h is; exact at the
        ends.
      bernstein: d_s = h'(s / (M-1)), the slope at the others' success rate (the recipe
        of arXiv 2510.23049 with leave-one-out estimates). M = 1: the slope at 1/2.
      taylor: the series of h' about t = 1 (for logit about both ends), cut after M
        terms. Exact for the cut series; log gives the gap of rejection sampling.
      exact: h_M' = h', for a slope that is a polynomial of degree below M.

    Unbounded slopes: no table meets them, as h_M' is at most max_s d_s. Where
    kantorovich or bernstein would need an infinite gap at an end (log at 0, logit at
    both, arcsin by bernstein), it is replaced by the slope at the distance 1 / M from
    that end (1/2 for M = 1). For log that is M, which is also where its cut series
    starts.

    Args:
      surrogate: `surrogates.get(...)` or a `Surrogate` of your own.
      group_size: M.
      method: as above.
      baseline: "none" (wrong samples count nothing) or "leave_one_out" (less noise, the
        same objective; M >= 2).

    Returns:
      The table, float64 NumPy.

    Raises:
      ValueError: for unknown names, a surrogate that the method cannot serve, or a
        group size that is too small; `exact` names the smallest that is not.

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> log = surrogates.get("log")
    >>> print(from_surrogate(log, 4, method="taylor", baseline="none").correct)
    [4.         2.         1.33333333 1.        ]
    """
    check_group_size(group_size)
    if method not in _GAPS:
        raise ValueError(nearest_name("method", method, tuple(_GAPS)))
    gap = _GAPS[method](surrogate, group_size)
    if not np.isfinite(gap).all():
        raise ValueError(
            f"surrogate {surrogate.name}: {method} gives the gap {gap} at group size "
            f"{group_size}; expected h and h' finite inside (0, 1)"
        )
    return baselines.apply(baseline, gap)


def induced_surrogate(table: WeightTable) -> Surrogate:
    """The objective that a table climbs: h_M with h_M(0) = 0, and h_M'.

    NumPy input is computed in float64 from probabilities of counts in log space, JAX
    input by de Casteljau's recurrence, O(M^2) and stable in float32; both hold for M of
    512 and more. All-zero gaps give the zero objective.

    Args:
      table: of group size M.

    Returns:
      A surrogate, elementwise on [0, 1], whose slope is a known polynomial: `exact`
      inverts it.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> h = induced_surrogate(advantages.table("rejection_sampling", 2))
    >>> h.slope(np.array([0.0, 0.5, 1.0])).tolist(), float(h.value(1.0))
    ([2.0, 1.5, 1.0], 1.5)
    """
    group_size = table.group_size
    gap = np.asarray(table.gap, np.float64)
    steps = np.concatenate([[0.0], np.cumsum(gap)]) / group_size
    return Surrogate(
        value=_polynomial(steps),
        slope=_polynomial(gap),
        name="induced",
        params={"group_size": group_size},
        bernstein=gap,
    )


def tabulate(advantage_fn: GroupFunction, group_size: int) -> WeightTable:
    """The weight table of any function of one group's binary rewards.

    The function is called on the M + 1 sorted reward vectors, in float64, and on random
    rearrangements of them (all vectors for M up to 6): what it returns must follow its
    input and depend on nothing but the own reward and the number of right ones. It may
    be plain NumPy; as a table it then runs in the compiled step.

    Args:
      advantage_fn: (M,) float rewards in {0, 1} to (M,) finite weights. A named
        advantage gives its own float64 table without being called.
      group_size: M.

    Returns:
      The table, float64 NumPy, as exact as the function.

    Raises:
      ValueError: with the reward vector that shows it, where the function is not a
        function of counts, is not finite or returns another shape.

    >>> table = tabulate(lambda rewards: rewards - rewards.mean(), 4)
    >>> print(table.incorrect, table.correct)
    [ 0.   -0.25 -0.5  -0.75] [0.75 0.5  0.25 0.  ]
    """
    check_group_size(group_size)
    make_table = getattr(advantage_fn, "table", None)
    if make_table is not None:
        return make_table(group_size)
    incorrect, correct = np.zeros((2, group_size))
    for count in range(group_size + 1):
        rewards = (np.arange(group_size) < count).astype(np.float64)
        weights = _evaluate(advantage_fn, rewards)
        if count < group_size:
            incorrect[count] = weights[-1]
        if count > 0:
            correct[count - 1] = weights[0]
    table = WeightTable(incorrect, correct)
    _check_counts_only(advantage_fn, table)
    return table


def _evaluate(fn, rewards):
    """Call a user's function outside of any trace, in float64."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        weights = np.asarray(fn(jnp.asarray(rewards)), np.float64)
    if weights.shape != rewards.shape:
        raise ValueError(
            f"advantage_fn: expected weights of shape {rewards.shape} for the rewards "
            f"of one group, got {weights.shape}"
        )
    if not np.isfinite(weights).all():
        raise ValueError(
            f"advantage_fn: the weights of the rewards {rewards.astype(int)} are "
            f"{weights}; expected finite numbers (all-equal groups need a case of "
            "their own where a method divides by the deviation)"
        )
    return weights


def _check_counts_only(fn, table):
    size = table.group_size
    scale = max(np.abs(table.incorrect).max(), np.abs(table.correct).max())
    for rewards in _rearranged(size):
        weights = _evaluate(fn, rewards)
        right = rewards > 0.5
        count = right.sum()
        expected = np.where(
            right,
            table.correct[max(count - 1, 0)],
            table.incorrect[min(count, size - 1)],
        )
        if np.abs(weights - expected).max() > _ROUNDING * scale:
            raise ValueError(
                f"advantage_fn: not a function of the own reward and the number of "
                f"right answers. Rewards {rewards.astype(int)} give the weights "
                f"{weights}; the same rewards sorted give, in this order, {expected}"
            )


def _rearranged(size):
    """Reward vectors that test a function: all of a small group, else random ones."""
    if size <= 6:
        for number in range(2**size):
            yield (number >> np.arange(size) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(size)
    for count in range(size + 1):
        rewards = (np.arange(size) < count).astype(np.float64)
        yield rewards
        for _ in range(_PERMUTATIONS if 0 < count < size else 0):
            yield generator.permutation(rewards)


def _kantorovich(surrogate: Surrogate, group_size: int) -> np.ndarray:
    points = np.arange(group_size + 1) / group_size
    values = _at(surrogate.value, points)
    with np.errstate(invalid="ignore"):  # inf - inf at M = 1
        gap = group_size * np.diff(values)
    return _cap_ends(surrogate, gap, np.isinf(values[0]), np.isinf(values[-1]))


def _bernstein(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if group_size == 1:
        return _at(surrogate.slope, np.array([0.5]))
    gap = _at(surrogate.slope, np.arange(group_size) / (group_size - 1))
    return _cap_ends(surrogate, gap, np.isinf(gap[0]), np.isinf(gap[-1]))


def _cap_ends(surrogate, gap, at_zero, at_one):
    near = 1 / max(len(gap), 2)
    steep = _at(surrogate.slope, np.array([near, 1 - near]))
    gap = gap.copy()
    if at_one:
        gap[-1] = steep[1]
    if at_zero:
        gap[0] = steep[0]
    return gap


def _taylor(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if surrogate.series is None:
        raise ValueError(
            f"surrogate {surrogate.name}: its slope has no known power series about an "
            "end; use method 'kantorovich'"
        )
    at_one, at_zero = surrogate.series(group_size)
    if not (np.any(at_one) or np.any(at_zero)):
        raise ValueError(
            f"group_size={group_size}: the series of surrogate {surrogate.name} "
            f"{dict(surrogate.params)} has no term of degree below {group_size}, so "
            "the weights would be zero; take a larger group, or method 'kantorovich'"
        )
    return _from_powers(at_zero) + _from_powers(at_one)[::-1]


def _from_powers(coefficients):
    """Bernstein form of sum_j c_j t^j: d_s = sum_{j<=s} c_j C(s, j) / C(M-1, j)."""
    size = len(coefficients)
    s = np.arange(size)
    out, ratio = np.zeros(size), np.ones(size)
    for j, coefficient in enumerate(coefficients):
        out += coefficient * ratio
        # C(s, j+1) / C(M-1, j+1) from the last; an exact 0 once j reaches s.
        ratio = ratio * np.maximum(s - j, 0) / max(size - 1 - j, 1)
    return out


def _exact(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if surrogate.bernstein is None:
        raise ValueError(
            f"surrogate {surrogate.name}: its slope is not known to be a polynomial, "
            "and no weights meet another slope exactly; use method 'kantorovich', or "
            "give `Surrogate(bernstein=...)`"
        )
    coefficients = np.asarray(surrogate.bernstein, np.float64)
    if len(coefficients) > group_size:
        raise ValueError(
            f"group_size={group_size}: the slope of surrogate {surrogate.name} "
            f"{dict(surrogate.params)} has degree {len(coefficients) - 1}; exact "
            f"weights need groups of {len(coefficients)} or more"
        )
    for degree in range(len(coefficients), group_size):
        # Degree elevation: the same polynomial, one coefficient more.
        share = np.arange(degree + 1) / degree
        padded = np.concatenate([[0.0], coefficients, [0.0]])
        coefficients = share * padded[:-1] + (1 - share) * padded[1:]
    return coefficients


_GAPS: dict[str, Callable[[Surrogate, int], np.ndarray]] = {
    "kantorovich": _kantorovich,
    "bernstein": _bernstein,
    "taylor": _taylor,
    "exact": _exact,
}


def _at(fn, points):
    """A surrogate's function at NumPy points; JAX-only callables in float64 too."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.broadcast_to(np.asarray(fn(points), np.float64), points.shape)


def _polynomial(coefficients):
    """The polynomial with these Bernstein coefficients, for NumPy and JAX input."""

    def evaluate(t):
        if isinstance(t, jax.Array):
            return _de_casteljau(coefficients, t)
        return _by_counts(coefficients, np.asarray(t, np.float64))

    return evaluate


def _by_counts(coefficients, t):
    """sum_m c_m P(Bin(n, t) = m) with probabilities from logarithms, in float64."""
    n = len(coefficients) - 1
    m = np.arange(n + 1)
    choose = np.array([math.log(math.comb(n, int(i))) for i in m])
    t = t[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(m == 0, 0.0, m * np.log(t))
        wrong = np.where(m == n, 0.0, (n - m) * np.log1p(-t))
    return (np.exp(choose + right + wrong) @ coefficients)[()]


def _de_casteljau(coefficients, t):
    """Repeated mixing of neighbours: only convex sums, so no rounding is amplified."""
    t = t.astype(jnp.result_type(t, jnp.float32))[..., None]
    mixed = jnp.broadcast_to(
        jnp.asarray(coefficients, t.dtype), (*t.shape[:-1], len(coefficients))
    )

    def mix(mixed, _):
        # The last column repeats the one before it: it is never read back.
        shifted = jnp.concatenate([mixed[..., 1:], mixed[..., -1:]], axis=-1)
        return mixed + t * (shifted - mixed), None

    mixed, _ = jax.lax.scan(mix, mixed, length=len(coefficients) - 1)
    return mixed[..., 0]
