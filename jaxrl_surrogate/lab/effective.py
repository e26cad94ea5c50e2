"""The objective that a run really climbed, estimated from the weights it applied.

The theory gives h_M for the first update after sampling, without clipping. What the
loss makes of a sample's weight afterwards, by ratios, clipping, KL and length
normalisation, is logged (`losses.applied_weights`): the mean over a sample's tokens of
what its score was multiplied with. Averaged over all groups with m right answers, that
is a weight table again, A+(m) and A-(m), with standard errors; its induced surrogate is
the effective objective, comparable with the nominal one up to one factor.

What this leaves out: how the weight is spread over the tokens of a sample, and that
later epochs see scores at other parameters. Adam's scaling is not in it either.
"""

import dataclasses

import numpy as np

from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable, induced_surrogate


@dataclasses.dataclass(frozen=True)
class Effective:
    """Nominal and applied weights by count, and the slopes they induce.

    Counts that never came up have the nominal weight, times `scale`, and an infinite
    standard error of the gap.
    """

    nominal: WeightTable
    applied: WeightTable  # (M,) means of what was applied
    scale: float  # the factor by which the applied weights are nearest to the nominal
    groups: np.ndarray  # (M + 1,) int, groups with m = 0 .. M right answers
    gap_error: np.ndarray  # (M,) standard errors of the applied gap

    def departure(self) -> tuple[np.ndarray, np.ndarray]:
        """Applied over scaled nominal gap, less 1, and its standard error; (M,) each.

        NaN where the nominal gap is 0.
        """
        nominal = self.scale * np.where(self.nominal.gap == 0, np.nan, self.nominal.gap)
        return self.applied.gap / nominal - 1, self.gap_error / np.abs(nominal)

    def slopes(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At success rates p (N,): nominal h_M', effective h_M' and its standard error.

        The effective one is divided by `scale`.
        """
        nominal = induced_surrogate(self.nominal).slope(p)
        effective = induced_surrogate(self.applied).slope(p) / self.scale
        size = self.nominal.group_size
        known = np.where(np.isfinite(self.gap_error), self.gap_error, 0.0)
        # Errors of different counts are independent: variances of the terms add.
        basis = np.stack(
            [
                induced_surrogate(WeightTable(np.zeros(size), np.eye(size)[s])).slope(p)
                for s in range(size)
            ]
        )
        error = np.sqrt(((basis * known[:, None]) ** 2).sum(0)) / self.scale
        return nominal, effective, error


def effective_objective(
    groups: Groups, nominal: WeightTable, mixed_only: bool = False
) -> Effective:
    """Estimate what was climbed.

    Args:
      groups: of a run, or of some of its steps; those that lost samples are left out.
      nominal: the table the run was given, group size M.
      mixed_only: all-right and all-wrong groups were replaced by others: where none
        is left, it is known that they were given no weight.

    Raises:
      ValueError: another group size than the groups', or no whole group that was mixed.
    """
    groups, size = groups.whole, nominal.group_size
    if size != groups.group_size:
        raise ValueError(
            f"group_size={groups.group_size}: the table is for groups of {size}"
        )
    right, right_error = _by_count(groups.correct, groups.right_weight, size)
    wrong, wrong_error = _by_count(groups.correct, groups.wrong_weight, size)
    if mixed_only:
        for means, errors, m in ((wrong, wrong_error, 0), (right, right_error, size)):
            if not np.isfinite(means[m]):
                means[m] = errors[m] = 0.0
    # A right sample of m has S = m - 1; a wrong one has S = m.
    seen = np.concatenate([wrong[:-1], right[1:]])
    asked = np.concatenate([nominal.incorrect, nominal.correct])
    counts = np.bincount(groups.correct, minlength=size + 1)
    weight = np.concatenate([counts[:-1], counts[1:]]) * np.isfinite(seen)
    scale = (weight * asked * np.nan_to_num(seen)).sum()
    norm = (weight * asked**2).sum()
    if not norm > 0 or not scale > 0:
        raise ValueError(
            "groups: none of them carries a weight of the objective; expected a run "
            "with groups that are not all wrong or all right"
        )
    scale /= norm
    filled = np.where(np.isfinite(seen), seen, scale * asked)
    error = np.hypot(wrong_error[:-1], right_error[1:])
    return Effective(
        nominal=nominal,
        applied=WeightTable(filled[:size], filled[size:]),
        scale=float(scale),
        groups=counts,
        gap_error=error,
    )


def _by_count(correct, weights, size):
    """Means and standard errors (M + 1,) of weights over groups of each count.

    NaN and infinity where no group has a weight; one group has no error to speak of.
    """
    means, errors = np.full(size + 1, np.nan), np.full(size + 1, np.inf)
    for count in range(size + 1):
        values = weights[(correct == count) & np.isfinite(weights)]
        if len(values):
            means[count] = values.mean()
        if len(values) > 1:
            errors[count] = values.std(ddof=1) / np.sqrt(len(values))
    return means, errors
