"""The objective of a table when only mixed groups are used.

Dynamic sampling (DAPO, arXiv 2503.14476) replaces groups whose samples are all correct
or all incorrect by mixed groups of other prompts. A prompt then contributes the update
of its mixed groups, times a constant that all prompts share. Up to that constant, the
slope of the objective is

    h'(p) - b_{M-1} p^(M-1) + a_0 (1-p)^(M-1)

where h' is the slope of the table itself, b_{M-1} the weight of each sample of an
all-correct group and a_0 that of an all-incorrect one. This is the objective of the
same table with 0 in these two entries. Centred rules have both entries 0 already, so
nothing changes. For other rules the slope changes and may become negative: without
all-correct groups, `pkpo` trains against correct answers on easy prompts.
"""

import dataclasses
from typing import TypeVar

import numpy as np

from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.weight_table import TableFamily, WeightTable

Tables = TypeVar("Tables", WeightTable, TableFamily)

# Slopes below this fraction of the largest entry are rounding.
_ROUNDING = 1e-12


def mixed_only(tables: Tables) -> Tables:
    """Return the same weights with 0 for all-correct and all-incorrect groups.

    Args:
      tables: a table, or a family (changed at every group size), of NumPy arrays.

    >>> from jaxrl_surrogate.objectives import advantages
    >>> mixed = mixed_only(advantages.table("pkpo", 8, k=2))
    >>> print(round(induced_surrogate(mixed).slope(0.9), 3))
    -0.757
    """
    incorrect, correct = np.array(tables.incorrect), np.array(tables.correct)
    incorrect[..., 0] = 0
    if correct.ndim == 1:
        correct[-1] = 0
    else:  # row n - 1 is of groups of n
        np.fill_diagonal(correct, 0)
    return dataclasses.replace(tables, incorrect=incorrect, correct=correct)


@dataclasses.dataclass(frozen=True)
class Change:
    """The change of an objective's slope when only mixed groups are used."""

    p: float  # of 0.05, 0.10 .. 0.95, where p (1 - p) |h_mixed' - h'| is largest
    before: float  # h' there
    after: float  # h_mixed' there
    lowest_at: float  # where h_mixed' is lowest on [0, 1]
    lowest: float  # h_mixed' there; exactly 0 where rounding makes it negative

    @property
    def falls(self) -> bool:
        """Whether h_mixed decreases somewhere and so trains against correct answers."""
        return self.lowest < 0


def change(table: WeightTable) -> Change | None:
    """Return how `mixed_only` changes a table's objective, or None if it does not.

    Args:
      table: of group size M.
    """
    mixed = mixed_only(table)
    pairs = ((mixed.incorrect, table.incorrect), (mixed.correct, table.correct))
    if all(np.array_equal(one, other) for one, other in pairs):
        return None
    p = np.arange(1, 20) / 20
    before = induced_surrogate(table).slope(p)
    after = induced_surrogate(mixed).slope(p)
    place = int(np.argmax(p * (1 - p) * np.abs(after - before)))
    # The mesh is dense at the ends: a slope of degree M - 1 may be negative within
    # 1 / M of one end only.
    fine = np.concatenate([[0.0], np.geomspace(1e-4, 0.5, 400)])
    fine = np.concatenate([fine, 1 - fine[::-1]])
    slope = induced_surrogate(mixed).slope(fine)
    lowest = int(np.argmin(slope))
    scale = max(np.abs(mixed.gap).max(), np.abs(table.gap).max())
    rounding = abs(slope[lowest]) <= _ROUNDING * scale
    return Change(
        p=float(p[place]),
        before=float(before[place]),
        after=float(after[place]),
        lowest_at=float(fine[lowest]),
        lowest=0.0 if rounding else float(slope[lowest]),
    )
