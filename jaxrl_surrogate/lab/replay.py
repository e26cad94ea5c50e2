"""What other rules would have made of the groups of a run, without new rollouts."""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable


@dataclasses.dataclass(frozen=True)
class Replayed:
    """One rule on the logged counts."""

    cosine: float  # of its weights with those of the run's own rule, over all samples
    wasted: float  # share of samples with weight 0
    # share of sum |Z| in groups with no correct answer, up to a quarter, up to three
    # quarters, more but not all, and all correct
    mass: dict[str, float]


def replay(groups: Groups, nominal: WeightTable, other: WeightTable) -> Replayed:
    """Weigh the run's groups by another rule.

    Args:
      groups: of the run; those that lost samples are left out.
      nominal: the rule the run was trained with, group size M.
      other: the rule asked about, of the same group size.

    Raises:
      FieldError: another group size, or no whole group.
    """
    size = nominal.group_size
    if other.group_size != size:
        raise FieldError(
            "group_size", other.group_size, problem=f"the run has groups of {size}"
        )
    correct = groups.whole.correct
    if not len(correct):
        raise FieldError(
            "groups", problem="every group lost samples", expected="whole ones"
        )
    wrong = size - correct

    def weights(table):
        """(N,) the weight of a correct and of an incorrect sample of each group."""
        right = table.correct[np.maximum(correct - 1, 0)]
        return right, table.incorrect[np.minimum(correct, size - 1)]

    def dot(one, two):
        return (correct * one[0] * two[0] + wrong * one[1] * two[1]).sum()

    own, theirs = weights(nominal), weights(other)
    norm = np.sqrt(dot(own, own) * dot(theirs, theirs))
    mass = correct * np.abs(theirs[0]) + wrong * np.abs(theirs[1])
    unused = correct * (theirs[0] == 0) + wrong * (theirs[1] == 0)
    bins = {
        "none correct": correct == 0,
        "to a quarter": (correct > 0) & (4 * correct <= size),
        "to three quarters": (4 * correct > size) & (4 * correct <= 3 * size),
        "more": (4 * correct > 3 * size) & (correct < size),
        "all correct": correct == size,
    }
    total = max(mass.sum(), np.finfo(np.float64).tiny)
    return Replayed(
        cosine=float(dot(own, theirs) / norm) if norm else float("nan"),
        wasted=float(unused.sum() / (size * len(correct))),
        mass={name: float(mass[chosen].sum() / total) for name, chosen in bins.items()},
    )
