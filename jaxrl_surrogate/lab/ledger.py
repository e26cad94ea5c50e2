"""Estimates objectives such as pass@k from the counts of a run, with standard errors.

A polynomial in p of degree at most M with Bernstein coefficients c_0 .. c_M has the
unbiased estimate c_m from m correct answers among M; other functions of p have none. So
pass@k for k <= M and the trained h_M are estimated without bias. log and arcsin are
replaced by polynomials of degree M: the series that rejection sampling ascends, and the
expected plug-in value E[2 arcsin sqrt(m / M)].
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable, advantages, surrogates
from jaxrl_surrogate.objectives.pass_at_k import pass_at_k


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of an estimator over groups, and its standard error."""

    mean: float
    error: float  # standard error


def estimators(nominal: WeightTable) -> dict[str, np.ndarray]:
    """Return the estimate (M + 1,) of each objective for the counts m = 0 .. M.

    Args:
      nominal: weight table of the run; the name of its h_M is "trained".

    Returns:
      Estimates by the names of the objectives.
    """
    size = nominal.group_size
    counts = np.arange(size + 1)
    out = {
        f"pass@{k}": pass_at_k(size, counts, k)
        for k in range(1, size + 1)
        if k & (k - 1) == 0 or k == size
    }
    log = advantages.table("rejection_sampling", size)
    out["log"] = _values(log)
    out["arcsin"] = surrogates.get("arcsin").value(counts / size)
    out["trained"] = _values(nominal)
    return out


def ledger(groups: Groups, nominal: WeightTable) -> dict[str, Estimate]:
    """Estimate all objectives of `estimators` from groups that lost no sample.

    Raises:
      FieldError: every group lost samples.
    """
    correct = groups.whole.correct
    if not len(correct):
        raise FieldError(
            "groups", problem="every group lost samples", expected="whole ones"
        )
    out = {}
    for name, values in estimators(nominal).items():
        found = values[correct]
        spread = found.std(ddof=1) if len(found) > 1 else np.inf
        out[name] = Estimate(float(found.mean()), float(spread / np.sqrt(len(found))))
    return out


def trends(
    groups: Groups, nominal: WeightTable, share: float = 0.2
) -> dict[str, Estimate]:
    """Estimate the change of each objective from the first to the last steps.

    Every step draws new prompts, so both ends sample the same distribution of prompts.

    Args:
      groups: groups of the run.
      nominal: weight table of the run.
      share: share of the steps at each end.
    """
    steps = np.unique(groups.step)
    part = max(1, round(len(steps) * share))
    ends = [
        ledger(groups.where(np.isin(groups.step, chosen)), nominal)
        for chosen in (steps[:part], steps[-part:])
    ]
    return {
        name: Estimate(
            last.mean - ends[0][name].mean,
            float(np.hypot(last.error, ends[0][name].error)),
        )
        for name, last in ends[1].items()
    }


def warnings(trend: Mapping[str, Estimate], errors: float = 2.0) -> list[str]:
    """Return warnings if pass@1 rises while pass@k falls.

    Args:
      trend: result of `trends`.
      errors: number of standard errors that count as a rise or a fall.
    """
    first = trend["pass@1"]
    if not first.mean > errors * first.error:
        return []
    return [
        f"pass@1 rose by {first.mean:.3f} while {name} fell by {-change.mean:.3f} "
        f"(standard error {change.error:.3f}): samples grow alike; an objective that "
        "weighs hard prompts more, such as pass_at_k, counters it"
        for name, change in trend.items()
        if name.startswith("pass@") and change.mean < -errors * change.error
    ]


def _values(table):
    """Return the Bernstein coefficients (M + 1,) of h_M: cumulative sums of gap / M."""
    gap = np.asarray(table.gap, np.float64)
    return np.concatenate([[0.0], np.cumsum(gap)]) / table.group_size
