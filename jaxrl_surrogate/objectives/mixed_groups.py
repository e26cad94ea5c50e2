"""What a table ascends where groups that are all correct or all incorrect are left out.

Dynamic sampling (DAPO, arXiv 2503.14476) puts mixed groups of other prompts in the
place of groups whose samples are all correct or all incorrect. A prompt then
contributes what its mixed groups do, times one constant that all prompts share:

    h'(p) - b_{M-1} p^(M-1) + a_0 (1-p)^(M-1)

is the slope of what is ascended, h' the table's own: an all-correct group would have
given b_{M-1} to each sample, an all-incorrect one a_0. That is the objective of the
same table with a 0 in these two places. Where both are 0 already, as in all centred
rules, nothing changes; elsewhere it does, and may turn the sign: without the
all-correct groups, `pkpo` pushes easy prompts down.
"""

import dataclasses
from typing import TypeVar

import numpy as np

from jaxrl_surrogate.objectives.induced import induced_surrogate
from jaxrl_surrogate.objectives.weight_table import TableFamily, WeightTable

Tables = TypeVar("Tables", WeightTable, TableFamily)

# Slopes below this share of the largest entry are rounding.
_ROUNDING = 1e-12


def mixed_only(tables: Tables) -> Tables:
    """The same weights with 0 for all-correct and all-incorrect groups, of every size.

    Args:
      tables: a table or a family, of NumPy arrays.

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
    """How leaving out groups that are not mixed changes the slope of an objective."""

    p: float  # of 0.05, 0.10 .. 0.95, where p (1 - p) |h_mixed' - h'| is largest
    before: float  # h' there
    after: float  # h_mixed' there
    lowest_at: float  # where h_mixed' is lowest on [0, 1]
    lowest: float  # h_mixed' there; exactly 0 where rounding makes it negative

    @property
    def falls(self) -> bool:
        """Whether h_mixed falls somewhere: there it trains against correct answers."""
        return self.lowest < 0


def change(table: WeightTable) -> Change | None:
    """The change that `mixed_only` makes to a table's objective; None for none.

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
    # The ends too: a slope of degree M - 1 may be negative within 1 / M of one only.
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
