"""The field's estimators on binary rewards, each defined once, as its weight table.

Conventions: a group of M samples has m right ones; the update is the mean over the
group of Z_i times the score of sample i, so methods published as sums are multiplied by
M. A method in count form gives a right sample A+(m) and a wrong one A-(m), that is
b[s] = A+(s + 1) and a[s] = A-(s). Each docstring ends with the exact slope of the
objective the method climbs, h_M'(p), q = 1 - p.

A method refuses a group size at which its weights would all be zero: a centred method
at M = 1, GRPO for pass@k at k >= M. A run with such settings would train nothing.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import numpy as np

from jaxrl_surrogate.objectives import baselines, peers
from jaxrl_surrogate.objectives.names import check_parameters, nearest_name
from jaxrl_surrogate.objectives.weight_table import (
    Array,
    WeightTable,
    check_group_size,
)


@dataclasses.dataclass(frozen=True)
class AdvantageFn:
    """A named method: `f(rewards)` maps (M,) rewards of one group to (M,) weights.

    Pure, hashable, and fit for jit and vmap; the group size is read off the shape.
    Rewards
    are binary: 0.5 and more is right. `f.table(M)` is the float64 table it applies.

    >>> get("dr_grpo")(np.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.75, -0.25, -0.25, -0.25]
    """

    name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __call__(self, rewards: Array) -> jax.Array:
        chex.assert_rank(rewards, 1)
        return self.table(rewards.shape[0])(rewards)

    def table(self, group_size: int) -> WeightTable:
        """The method's table for groups of `group_size`; raises as `table` does."""
        check_group_size(group_size)
        return _cached_table(self, group_size)


def get(name: str, **params) -> AdvantageFn:
    """The advantage function of a registered name, or of a peer: `verl:grpo`.

    Raises:
      ValueError: for an unknown name or parameter (the nearest is named) or a missing
        parameter. Values are checked where the group size is known: in `table` and when
        the function is called.
    """
    if ":" in name:
        name, given = peers.split(name)
        params = given | params
        if name not in peers.names():
            raise ValueError(nearest_name("advantage", name, peers.names()))
        expected = peers.parameters(name)
        if set(params) != set(expected):
            wanted = "the parameter k" if expected else "no parameter"
            raise ValueError(
                f"{name}: expected {wanted}, got {sorted(params) or 'none'}"
            )
        return AdvantageFn(name, tuple(sorted(params.items())))
    if name not in _METHODS:
        raise ValueError(nearest_name("advantage", name, names()))
    check_parameters(_METHODS[name], name, params, given=("group_size",))
    return AdvantageFn(name, tuple(sorted(params.items())))


def names() -> tuple[str, ...]:
    """The registered names, in the order of THEORY: pass@1, log family, pass@k."""
    return tuple(_METHODS)


def table(name: str, group_size: int, **params) -> WeightTable:
    """The weights of a registered method for groups of M, as float64 NumPy.

    Raises:
      ValueError: as `get`, for a parameter out of range, and for a group size that the
        method cannot serve.

    >>> print(table("pass_at_k", 4, k=2).correct)
    [2.         1.33333333 0.66666667 0.        ]
    """
    return get(name, **params).table(group_size)


def reinforce(group_size: int) -> WeightTable:
    """Z = R (Williams, 1992).  h_M'(p) = 1."""
    return WeightTable(np.zeros(group_size), np.ones(group_size))


def rloo(group_size: int) -> WeightTable:
    """Z = R - S / (M - 1), S the others' right answers (arXiv 2402.14740).

    h_M'(p) = 1. Needs M >= 2: one sample has no others.
    """
    return baselines.leave_one_out(np.ones(group_size))


def dr_grpo(group_size: int) -> WeightTable:
    """Z = R - m / M (Dr. GRPO, arXiv 2503.20783).  h_M'(p) = (M - 1) / M."""
    _needs_others("dr_grpo", group_size)
    return _centred(group_size, 1 - np.arange(group_size + 1) / group_size)


def grpo(
    group_size: int,
    std: str = "population",
    epsilon: float = 0.0,
    epsilon_inside: bool = False,
) -> WeightTable:
    """Z = (R - m / M) / (std + epsilon), 0 in all-equal groups (arXiv 2402.03300).

    The paper leaves the deviation open. Counts need no epsilon, so the default has
    none. Published code: Chen et al. (2508.10751) population; verl sample and 1e-6; TRL
    sample and 1e-4. With v = (m / M)(1 - m / M) and m ~ Bin(M, p),
        h_M'(p) = E[v / (sqrt(v) + epsilon)] / (p q)
    It is constant for M = 2 and 3 and tends to 1 / sqrt(p q), whose surrogate is
    2 arcsin sqrt(p).

    Args:
      group_size: M >= 2.
      std: "population" divides squares by M, "sample" by M - 1 (torch.std).
      epsilon: 0 or more.
      epsilon_inside: sqrt(variance + epsilon) in place of std + epsilon.
    """
    if std not in ("population", "sample"):
        raise ValueError(f"std={std!r}: expected 'population' or 'sample'")
    _check_epsilon(epsilon)
    _needs_others("grpo", group_size)
    count = np.arange(group_size + 1)
    variance = count * (group_size - count) / group_size**2
    if std == "sample":
        variance *= group_size / (group_size - 1)
    if epsilon_inside:
        scale = np.sqrt(variance + epsilon)
    else:
        scale = np.sqrt(variance) + epsilon
    return _centred(group_size, _divide(1 - count / group_size, scale))


def rejection_sampling(group_size: int) -> WeightTable:
    """Z = R M / m: the mean score of the right answers, nothing where none is right.

    (Davis and Recht, arXiv 2510.13651; RAFT, STaR with a mean per prompt.)
    h_M'(p) = (1 - q^M) / p, the series of 1 / p up to order M; limit log p.
    """
    others = np.arange(group_size)
    return WeightTable(np.zeros(group_size), group_size / (others + 1))


def maxrl(group_size: int) -> WeightTable:
    """Z = (R - m / M) / (m / M), 0 where none is right (MaxRL, 2602.02710, alg. 1).

    h_M'(p) = (1 - q^(M-1)) / p: centring costs the last order of rejection sampling.
    """
    _needs_others("maxrl", group_size)
    count = np.arange(group_size + 1)
    return _centred(group_size, _divide(group_size - count, count))


def pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = R k C(M - m, k - 1) / C(M - 1, k - 1): PKPO's leave-one-out-minus-one.

    (arXiv 2505.15201, eq. 33, times M.) A right sample counts by how often it is the
    only right one among k; a wrong one counts nothing.  h_M'(p) = k q^(k-1), the slope
    of 1 - q^k; exact for 1 <= k <= M. k = 1 is REINFORCE.
    """
    _check_k("pass_at_k", k, group_size)
    return WeightTable(np.zeros(group_size), _pass_at_k_gap(group_size, k))


def rloo_pass_at_k(group_size: int, k: int) -> WeightTable:
    """Z = d_S (R - S / (M - 1)), d_s = k C(M - 1 - s, k - 1) / C(M - 1, k - 1).

    The leave-one-out baseline on the weights of `pass_at_k`: the same objective with
    less noise.  h_M'(p) = k q^(k-1); exact for 1 <= k <= M, M >= 2. k = 1 is RLOO.
    """
    _check_k("rloo_pass_at_k", k, group_size)
    return baselines.leave_one_out(_pass_at_k_gap(group_size, k))


def grpo_pass_at_k(group_size: int, k: int, epsilon: float = 0.0) -> WeightTable:
    """GRPO on the best of k, averaged over all k-subsets (Chen et al., eqs. 11-15).

    With f = C(M - m, k) / C(M, k), the share of k-subsets without a right answer
    (arXiv 2508.10751; the released code adds epsilon = 1e-6 to the deviation):
        A+ = f / (sqrt(f (1 - f)) + epsilon),  A- = -m / (M - m) A+,  0 where f is 0 or
    1 h_M'(p) = E[m A+] / (M p q); limit q^(k/2-1) / sqrt(1 - q^k), the surrogate
    (2 / k) arcsin sqrt(1 - q^k). k = 1 is GRPO with the population deviation.

    Args:
      group_size: M.
      k: 1 <= k <= M - 1. At k = M there is one subset and nothing to compare it with:
        every weight is 0, which is refused.
      epsilon: 0 or more.
    """
    _check_epsilon(epsilon)
    _check_k("grpo_pass_at_k", k, group_size, largest=group_size - 1)
    miss = _subset_miss(group_size, k)
    right = _divide(miss, np.sqrt(miss * (1 - miss)) + epsilon)
    return _centred(group_size, right)


_METHODS = {
    method.__name__: method
    for method in (
        reinforce,
        rloo,
        dr_grpo,
        grpo,
        rejection_sampling,
        maxrl,
        pass_at_k,
        rloo_pass_at_k,
        grpo_pass_at_k,
    )
}


@functools.lru_cache(maxsize=4096)
def _cached_table(fn: AdvantageFn, group_size: int) -> WeightTable:
    if ":" in fn.name:
        weights = peers.table(fn.name, group_size, **dict(fn.params))
    else:
        weights = _METHODS[fn.name](group_size, **dict(fn.params))
    for entries in (weights.incorrect, weights.correct):
        entries.flags.writeable = False
    return weights


def _centred(group_size, right):
    """The table whose weights sum to zero in each group, from A+(m) for m = 0 .. M.

    m A+ + (M - m) A- = 0 gives A-; all-equal groups get exact zeros.
    """
    count = np.arange(group_size + 1)
    mixed = (count > 0) & (count < group_size)
    right = np.where(mixed, right, 0)
    wrong = -_divide(count * right, group_size - count)
    return WeightTable(wrong[:-1] + 0.0, right[1:])


def _divide(numerator, denominator):
    """Quotient, 0 where the denominator is 0."""
    out = np.zeros(np.broadcast(numerator, denominator).shape)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _pass_at_k_gap(group_size, k):
    """(M,) k C(M - 1 - s, k - 1) / C(M - 1, k - 1): an unbiased slope of pass@k."""
    return k * _subset_miss(group_size - 1, k - 1)


def _subset_miss(size, k):
    """(size + 1,) C(size - c, k) / C(size, k): k of `size` hold none of c right ones.

    As prod_{i<c} (size - k - i) / (size - i): O(size), no overflow, exact zeros.
    """
    i = np.arange(size)
    factors = np.maximum(size - k - i, 0) / (size - i)
    return np.concatenate([[1.0], np.cumprod(factors)])


def _needs_others(name, group_size):
    if group_size < 2:
        raise ValueError(
            f"group_size={group_size}: {name} centres on the group, and every weight "
            "of a group of 1 is 0; take 2 or more"
        )


def _check_epsilon(epsilon):
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"epsilon={epsilon}: expected 0 or more")


def _check_k(name, k, group_size, largest=None):
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r}: expected an integer of 1 or more")
    largest = group_size if largest is None else largest
    if k > largest:
        raise ValueError(
            f"k={k}: {name} with groups of {group_size} serves k up to {largest}; take "
            f"groups of {group_size + k - largest} or more, or a smaller k. (No "
            "weights of M samples are unbiased for pass@k beyond k = M; "
            'from_surrogate(surrogates.get("arcsin_pass_at_k", k=k), M) approximates.)'
        )
