"""Estimates the objective that a run really ascended from the weights it applied.

The theory gives h_M for the first update after sampling, without clipping. Ratios,
clipping, KL and length normalisation in the loss change a sample's weight. The run logs
the applied weight (`losses.applied_weights`): the mean over a sample's tokens of the
factor of each token's score. Averages over all groups with m correct answers form a
weight table again, A+(m) and A-(m), with standard errors. Its induced surrogate is the
effective objective, which is comparable with the nominal one up to one factor.

The estimate ignores how the weight is spread over the tokens of a sample, that later
epochs see scores at other parameters, and the scaling by Adam.
"""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable, induced_surrogate
from jaxrl_surrogate.objectives.bernstein import basis


@dataclasses.dataclass(frozen=True)
class Effective:
    """Nominal and applied weights by count of correct answers, and their slopes.

    For counts that never occurred, the applied weight is the nominal one times `scale`,
    and the standard error of the gap is infinite.

    The standard errors account, to first order, for two correlations. A group with m
    correct answers has both A+(m), part of gap m - 1, and A-(m), part of gap m, so
    neighbouring gaps are correlated. `scale` is estimated from the same groups.
    """

    nominal: WeightTable
    applied: WeightTable  # (M,) means of what was applied
    scale: float  # the factor of the nominal weights that fits the applied ones best
    groups: np.ndarray  # (M + 1,) int, number of groups with m = 0 .. M correct answers
    # By m; the last axes are correct, incorrect samples:
    means: np.ndarray  # (M + 1, 2) mean weights; NaN if there is none
    covariance: np.ndarray  # (M + 1, 2, 2) of these means; NaN if it is not known
    share: np.ndarray  # (M + 1, 2) coefficients: scale = sum(share * means)

    @property
    def gap_error(self) -> np.ndarray:
        """Standard errors (M,) of the applied gap; inf where they are not known."""
        right, wrong = self.covariance[1:, 0, 0], self.covariance[:-1, 1, 1]
        return np.nan_to_num(np.sqrt(right + wrong), nan=np.inf)

    def departure(self) -> tuple[np.ndarray, np.ndarray]:
        """Return applied gap / (scale * nominal gap) - 1 and its standard error.

        Both have shape (M,); they are NaN where the nominal gap is 0.
        """
        size = self.nominal.group_size
        nominal = np.where(self.nominal.gap == 0, np.nan, self.nominal.gap)
        error = self._error_over_scale(np.eye(size)) / np.abs(nominal)
        error = np.where(np.isfinite(self.gap_error), error, np.inf)
        return self.applied.gap / (self.scale * nominal) - 1, error

    def slopes(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return slopes of the objective at success rates p (N,).

        Returns:
          Nominal h_M', effective h_M' / scale, and the standard error of the latter,
          each of shape (N,).
        """
        nominal = induced_surrogate(self.nominal).slope(p)
        effective = induced_surrogate(self.applied).slope(p) / self.scale
        error = self._error_over_scale(basis(self.nominal.group_size - 1, p))
        return nominal, effective, error

    def _error_over_scale(self, factors):
        """Return standard errors (N,) of factors (N, M) @ gap / scale."""
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
        """Return the covariances; a count with one group gets the pooled one."""
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
    """Estimate the objective that a run ascended.

    Args:
      groups: groups of the run or of some of its steps; groups that lost samples are
        ignored.
      nominal: weight table that the run was given, group size M.
      mixed_only: whether dynamic sampling replaced all-correct and all-incorrect
        groups; if none of these is left, their weights are known to be 0.

    Raises:
      FieldError: the group sizes differ, or no mixed group kept all its samples.
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
    """Return mean weights (M + 1, 2) of correct and incorrect samples by count.

    The second result is their covariances (M + 1, 2, 2). Means are NaN without a group,
    covariances with fewer than two.
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
