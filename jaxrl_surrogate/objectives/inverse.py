"""From objectives to weights: the table whose h_M is, or approximates, a surrogate.

h_M' depends on the gap d = b - a alone (see `induced`). A method chooses the gap, and a
baseline then chooses the table. `certify` reports how close h_M is to the surrogate.

Unbounded slopes. h_M' is a polynomial and at most max_s d_s, so no table has a slope
that is infinite at an end (log at 0; arcsin and logit at both). The methods treat such
a slope differently:
  kantorovich and bernstein replace an infinite d by the slope at the distance 1 / M
    from the end.
  taylor cuts the series of the slope.
  plug_in needs no slope at the ends.
  durrmeyer takes the posterior mean if it is finite (arcsin) and raises an error if not
    (log).
  projection measures errors in p q h', the gradient of the prompt's logit, which stays
    finite for all of them.
For p below 1 / M most groups have no correct answer, and no method gives such a prompt
a factor above d_0.
"""

import inspect

import numpy as np

from jaxrl_surrogate.errors import FieldError, nearest_or_all, unknown
from jaxrl_surrogate.objectives import baselines
from jaxrl_surrogate.objectives import bernstein as basis
from jaxrl_surrogate.objectives.durrmeyer import durrmeyer_gap
from jaxrl_surrogate.objectives.priors import PriorLike
from jaxrl_surrogate.objectives.projection import projection_gap
from jaxrl_surrogate.objectives.surrogate import Surrogate, at, describe
from jaxrl_surrogate.objectives.weight_table import WeightTable, check_group_size


def from_surrogate(
    surrogate: Surrogate,
    group_size: int,
    *,
    method: str = "kantorovich",
    baseline: str = "leave_one_out",
    prior: PriorLike | None = None,
    **options,
) -> WeightTable:
    """Return weights whose objective h_M is, or approximates, the given surrogate h.

    Methods, by the gap they choose:
      kantorovich: d_s = M (h((s+1)/M) - h(s/M)). Then h_M(p) = E[h(m/M)], m ~ Bin(M,
        p), up to h(0): the expected plug-in value. h_M increases if h does, and equals
        it at the ends.
      bernstein: d_s = h'(s / (M-1)), the slope at the others' success rate (the recipe
        of arXiv 2510.23049 with leave-one-out estimates). M = 1 takes the slope at 1/2.
      plug_in: the slope at the group's own success rate, A+(m) = (1 - m/M) h'(m/M) M /
        (M-1), with weights that sum to zero (the recipe of arXiv 2510.23049 with group
        means; baseline "zero_sum" gives exactly its weights). It is biased, as the
        rate includes the sample's own reward. log gives MaxRL and arcsin GRPO, both
        times M / (M-1). M >= 2.
      durrmeyer: d_s = E[h'(p) | s of the M - 1 others correct], the posterior mean of
        the slope under `prior`. An infinite mean raises an error. Under the uniform
        prior h_M(1) - h_M(0) = h(1) - h(0).
      taylor: the series of h' about t = 1 (for logit about both ends), cut after M
        terms. h_M' is the cut series; log gives the gap of rejection sampling.
      projection: the best d >= 0 under `prior`, with the options `norm`, `units`,
        `interval` and `noise` of `projection.projection_gap`.
      exact: h_M' = h', if the slope is a polynomial of degree below M.

    Unbounded slopes: where kantorovich or bernstein would need an infinite gap at an
    end (log at 0, logit at both, arcsin with bernstein), it is replaced by the slope at
    the distance 1 / M from that end (1/2 for M = 1). For log this is M, which is also
    the first gap of its cut series. The docstring of this module lists the others.

    Args:
      surrogate: `surrogates.get(...)`, `from_callable(fn)` or a `Surrogate` of your
        own.
      group_size: M.
      method: one of the names above.
      baseline: "none" (incorrect samples have weight 0), "leave_one_out" (the same
        objective with less variance; M >= 2), "zero_sum" (the weights of a group sum to
        zero, where possible), "min_variance" (the least variance under `prior`).
      prior: the distribution of p, for methods and baselines that take one: (alpha,
        beta) of a beta distribution, or (points, weights).
      options: further parameters of the method (`projection`) or of the baseline
        (`tolerance` of zero_sum, `score_noise` of min_variance).

    Returns:
      The table, in float64 NumPy.

    Raises:
      ValueError: for unknown names or options, for a surrogate that the method does not
        support, and for a group size that is too small (`exact` names the smallest that
        is large enough).

    >>> from jaxrl_surrogate.objectives import surrogates
    >>> log = surrogates.get("log")
    >>> print(from_surrogate(log, 4, method="taylor", baseline="none").correct)
    [4.         2.         1.33333333 1.        ]
    """
    check_group_size(group_size)
    known = options_of(method, baseline)
    if prior is not None:
        options["prior"] = prior
    for option in options:
        if option not in known:
            raise FieldError(
                option,
                options[option],
                problem=f"method {method!r} with baseline {baseline!r} has no such "
                "option",
                **nearest_or_all(option, known),
            )
    make_gap, make_table = _GAPS[method], baselines.find(baseline)
    gap = make_gap(surrogate, group_size, **_taken(make_gap, options))
    if not np.isfinite(gap).all():
        raise FieldError(
            "method",
            method,
            "h and h' finite inside (0, 1)",
            problem=f"of surrogate {describe(surrogate)} it gives the gap {gap} at "
            f"group size {group_size}",
        )
    return make_table(gap, **_taken(make_table, options))


def methods() -> tuple[str, ...]:
    """Return the names of the methods of `from_surrogate`."""
    return tuple(_GAPS)


def options_of(method: str, baseline: str) -> tuple[str, ...]:
    """Return the names of the options of a method and a baseline in `from_surrogate`.

    Raises:
      ValueError: for unknown names.

    >>> options_of("kantorovich", "min_variance")
    ('prior', 'score_noise')
    """
    if method not in _GAPS:
        raise unknown("method", method, methods())
    functions = _GAPS[method], baselines.find(baseline)
    return tuple(dict.fromkeys(name for fn in functions for name in _parameters(fn)))


def _parameters(fn):
    return [name for name in inspect.signature(fn).parameters if name not in _GIVEN]


def _taken(fn, options):
    return {name: options[name] for name in _parameters(fn) if name in options}


def _kantorovich(surrogate: Surrogate, group_size: int) -> np.ndarray:
    points = np.arange(group_size + 1) / group_size
    values = at(surrogate.value, points)
    with np.errstate(invalid="ignore"):  # inf - inf at M = 1
        gap = group_size * np.diff(values)
    return _cap_ends(surrogate, gap, np.isinf(values[0]), np.isinf(values[-1]))


def _bernstein(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if group_size == 1:
        return at(surrogate.slope, np.array([0.5]))
    gap = at(surrogate.slope, np.arange(group_size) / (group_size - 1))
    return _cap_ends(surrogate, gap, np.isinf(gap[0]), np.isinf(gap[-1]))


def _plug_in(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if group_size < 2:
        raise FieldError(
            "group_size",
            group_size,
            problem="plug_in centres on the group, and every weight of a group of 1 "
            "is 0",
            remedy="take 2 or more",
        )
    # All-equal groups have weights of 0, so infinite ends do not enter.
    rate = np.arange(1, group_size) / group_size
    slope = at(surrogate.slope, rate) * group_size / (group_size - 1)
    return np.append((1 - rate) * slope, 0.0) + np.append(0.0, rate * slope)


def _cap_ends(surrogate, gap, at_zero, at_one):
    near = 1 / max(len(gap), 2)
    steep = at(surrogate.slope, np.array([near, 1 - near]))
    gap = gap.copy()
    if at_one:
        gap[-1] = steep[1]
    if at_zero:
        gap[0] = steep[0]
    return gap


def _taylor(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if surrogate.series is None:
        raise FieldError(
            "method",
            "taylor",
            problem=f"the slope of surrogate {describe(surrogate)} has no known power "
            "series about an end",
            remedy="use method 'kantorovich'",
        )
    with np.errstate(over="ignore"):
        at_one, at_zero = surrogate.series(group_size)
    if not (np.any(at_one) or np.any(at_zero)):
        raise FieldError(
            "group_size",
            group_size,
            problem=f"the series of surrogate {describe(surrogate)} has no term of "
            f"degree below {group_size}, so the weights would be zero",
            remedy="take a larger group, or method 'kantorovich'",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        gap = basis.from_powers(at_zero) + basis.from_powers(at_one)[::-1]
        # Where terms of both signs cancel, their rounding becomes a relative error.
        parts = basis.from_powers(np.abs(at_zero))
        parts += basis.from_powers(np.abs(at_one))[::-1]
        lost = np.finfo(float).eps * parts.max() / np.abs(gap).max()
    if not lost <= 1e-6:
        raise FieldError(
            "method",
            "taylor",
            problem=f"the terms of the series of surrogate {describe(surrogate)} "
            f"cancel at group size {group_size}, and rounding is {lost:.1g} of the "
            "largest weight",
            remedy="use method 'exact' or 'kantorovich'",
        )
    return gap


def _exact(surrogate: Surrogate, group_size: int) -> np.ndarray:
    if surrogate.bernstein is None:
        raise FieldError(
            "method",
            "exact",
            problem=f"the slope of surrogate {describe(surrogate)} is not known to be "
            "a polynomial, and no weights meet another slope exactly, at any group "
            "size",
            remedy="use method 'kantorovich', or give `Surrogate(bernstein=...)` or "
            "`from_callable(fn, degree=...)`",
        )
    size = len(surrogate.bernstein)
    if size > group_size:
        raise FieldError(
            "group_size",
            group_size,
            problem=f"the slope of surrogate {describe(surrogate)} has degree "
            f"{size - 1}",
            remedy=f"exact weights need groups of {size} or more",
        )
    return basis.elevate(surrogate.bernstein, group_size)


_GIVEN = ("surrogate", "group_size", "gap")
_GAPS = {
    "kantorovich": _kantorovich,
    "bernstein": _bernstein,
    "plug_in": _plug_in,
    "durrmeyer": durrmeyer_gap,
    "taylor": _taylor,
    "projection": projection_gap,
    "exact": _exact,
}
