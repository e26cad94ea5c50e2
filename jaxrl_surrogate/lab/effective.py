"""The objective that a run really ascended, estimated from the weights it applied.

The theory gives h_M for the first update after sampling, without clipping. What the
loss makes of a sample's weight afterwards, by ratios, clipping, KL and length
normalisation, is logged (`losses.applied_weights`): the mean over a sample's tokens of
what its score was multiplied with. Averaged over all groups with m correct answers,
that is a weight table again, A+(m) and A-(m), with standard errors; its induced
surrogate is the effective objective, comparable with the nominal one up to one factor.

What this leaves out: how the weight is spread over the tokens of a sample, and that
later epochs see scores at other parameters. Adam's scaling is not in it either.
"""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable, induced_surrogate
from jaxrl_surrogate.objectives.bernstein import basis


@dataclasses.dataclass(frozen=True)
class Effective:
    """Nominal and applied weights by count, and the slopes they induce.

    Counts that never came up have the nominal weight, times `scale`, and an infinite
    standard error of the gap.

    A group with m correct answers says something of A+(m), in gap m - 1, and of A-(m),
    in gap m: its two weights vary together, and so do neighbouring gaps. `scale` is an
    estimate from the same groups. Both are in the errors here, to first order.
    """

    nominal: WeightTable
    applied: WeightTable  # (M,) means of what was applied
    scale: float  # the factor by which the applied weights are nearest to the nominal
    groups: np.ndarray  # (M + 1,) int, groups with m = 0 .. M correct answers
    # Of groups with m correct answers, correct samples first:
    means: np.ndarray  # (M + 1, 2) mean weights; NaN where there is none
    covariance: np.ndarray  # (M + 1, 2, 2) of these means; NaN where it is not known
    share: np.ndarray  # (M + 1, 2) scale = sum(share * means)

    @property
    def gap_error(self) -> np.ndarray:
        """(M,) standard errors of the applied gap; inf where one is not known."""
        right, wrong = self.covariance[1:, 0, 0], self.covariance[:-1, 1, 1]
        return np.nan_to_num(np.sqrt(right + wrong), nan=np.inf)

    def departure(self) -> tuple[np.ndarray, np.ndarray]:
        """Applied over scaled nominal gap, less 1, and its standard error; (M,) each.

        NaN where the nominal gap is 0.
        """
        size = self.nominal.group_size
        nominal = np.where(self.nominal.gap == 0, np.nan, self.nominal.gap)
        error = self._error_over_scale(np.eye(size)) / np.abs(nominal)
        error = np.where(np.isfinite(self.gap_error), error, np.inf)
        return self.applied.gap / (self.scale * nominal) - 1, error

    def slopes(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At success rates p (N,): nominal h_M', effective h_M' and its standard error.

        The effective one is divided by `scale`.
        """
        nominal = induced_surrogate(self.nominal).slope(p)
        effective = induced_surrogate(self.applied).slope(p) / self.scale
        error = self._error_over_scale(basis(self.nominal.group_size - 1, p))
        return nominal, effective, error

    def _error_over_scale(self, factors):
        """(N,) standard errors of sums of the gap by (N, M) factors, over `scale`."""
        mixed = np.zeros((len(factors), *self.means.shape))  # of d_s = A+(s+1) - A-(s)
        mixed[:, 1:, 0], mixed[:, :-1, 1] = factors, -factors
        mixed *= np.isfinite(self.means)
        sums = (mixed * np.nan_to_num(self.means)).sum((1, 2)) / self.scale
        mixed = (mixed - sums[:, None, None] * self.share) / self.scale
        with np.errstate(invalid="ignore"):  # inf * 0 where nothing is known
            variance = np.einsum("nmi,mij,nmj->n", mixed, self._filled(), mixed)
        return np.sqrt(
            np.maximum(np.nan_to_num(variance, nan=np.inf, posinf=np.inf), 0)
        )

    def _filled(self):
        """The covariances; of a count with one group, what others have on average."""
        known = np.isfinite(self.covariance)
        spread = np.nan_to_num(self.covariance) * self.groups[:, None, None]
        degrees = np.maximum(self.groups - 1, 0)[:, None, None] * known
        with np.errstate(invalid="ignore"):
            pooled = (degrees * spread).sum(0) / degrees.sum(0)
        pooled = np.nan_to_num(pooled, nan=np.inf, posinf=np.inf)
        alone = pooled / np.maximum(self.groups, 1)[:, None, None]
        seen = np.isfinite(self.means)
        seen = seen[:, :, None] & seen[:, None, :]
        return np.where(known, self.covariance, np.where(seen, alone, 0.0))


def effective_objective(
    groups: Groups, nominal: WeightTable, mixed_only: bool = False
) -> Effective:
    """Estimate what was ascended.

    Args:
      groups: of a run, or of some of its steps; those that lost samples are left out.
      nominal: the table the run was given, group size M.
      mixed_only: all-correct and all-incorrect groups were replaced by others: where
        none is left, it is known that they were given no weight.

    Raises:
      FieldError: another group size than the groups', or no whole group that was mixed.
    """
    groups, size = groups.whole, nominal.group_size
    if size != groups.group_size:
        raise FieldError(
            "group_size",
            groups.group_size,
            problem=f"the table is for groups of {size}",
        )
    means, covariance = _by_count(groups, size)
    if mixed_only:
        for m, side in ((0, 1), (size, 0)):
            if not np.isfinite(means[m, side]):
                means[m, side] = covariance[m, side, side] = 0.0
    asked = np.zeros((size + 1, 2))
    asked[1:, 0], asked[:-1, 1] = nominal.correct, nominal.incorrect
    counts = np.bincount(groups.correct, minlength=size + 1)
    seen = np.isfinite(means)
    share = counts[:, None] * seen * asked
    scale, norm = (share * np.nan_to_num(means)).sum(), (share * asked).sum()
    if not norm > 0 or not scale > 0:
        raise FieldError(
            "groups",
            problem="none of them carries a weight of the objective",
            expected="a run with groups that are not all incorrect or all correct",
        )
    scale /= norm
    filled = np.where(seen, means, scale * asked)
    return Effective(
        nominal=nominal,
        applied=WeightTable(filled[:-1, 1], filled[1:, 0]),
        scale=float(scale),
        groups=counts,
        means=means,
        covariance=covariance,
        share=share / norm,
    )


def _by_count(groups, size):
    """Mean weights (M + 1, 2) of correct and incorrect samples, and covariances.

    NaN where no group has a weight; one group has no covariance to speak of.
    """
    means = np.full((size + 1, 2), np.nan)
    covariance = np.full((size + 1, 2, 2), np.nan)
    weights = np.stack([groups.correct_weight, groups.incorrect_weight], -1)
    for count in range(size + 1):
        # An all-correct group has no incorrect sample, and the other way round.
        sides = [0] * (count > 0) + [1] * (count < size)
        rows = weights[groups.correct == count][:, sides]
        rows = rows[np.isfinite(rows).all(1)]
        if len(rows):
            means[count, sides] = rows.mean(0)
        if len(rows) > 1:
            spread = np.atleast_2d(np.cov(rows, rowvar=False)) / len(rows)
            covariance[np.ix_([count], sides, sides)] = spread
    return means, covariance
