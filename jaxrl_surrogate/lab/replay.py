"""Compares the weights of another rule on a run's groups, without new rollouts."""

import dataclasses

import numpy as np

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.lab.groups import Groups
from jaxrl_surrogate.objectives import WeightTable


@dataclasses.dataclass(frozen=True)
class Replayed:
    """How the weights of a rule on logged groups compare with those of the run."""

    cosine: float  # between its weights and those of the run's rule, over all samples
    wasted: float  # share of samples with weight 0
    # Share of the sum of |weight| in groups with no correct answer, up to a quarter, up
    # to three quarters, more but not all, and all correct.
    mass: dict[str, float]


def replay(groups: Groups, nominal: WeightTable, other: WeightTable) -> Replayed:
    """Apply another rule to the groups of a run.

    Args:
      groups: groups of the run; groups that lost samples are ignored.
      nominal: weight table of the run, group size M.
      other: weight table of the other rule, of the same group size.

    Raises:
      FieldError: the group sizes differ, or every group lost samples.
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
        """Return the weights (N,) of correct and of incorrect samples by group."""
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
