"""Objectives that change during a run: a table family for every step, on the host.

The compiled step takes its family as an argument, so another family needs no new
compilation. A mixture of families is a family whose objective is the mixture of their
objectives. A schedule is a function of the step alone, counted from 1, so a resumed run
continues it where it stopped.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.objectives import surrogates
from jaxrl_surrogate.objectives.inverse import from_surrogate
from jaxrl_surrogate.objectives.names import check_parameters
from jaxrl_surrogate.objectives.weight_table import TableFamily, table_family

Shape = Literal["linear", "cosine", "hold"]


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """A function of the step: families at given steps, and mixtures between them.

    Up to the first given step it returns the first family, and from the last on the
    last. All families have one group size. Mixtures have the shapes and types of the
    families, and a family itself is returned without a copy.
    """

    families: tuple[TableFamily, ...]
    steps: tuple[float, ...]  # increasing: when each family is reached
    shape: Shape = "linear"  # between families: how the share grows, or "hold"

    def __post_init__(self):
        object.__setattr__(self, "families", tuple(self.families))
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.families or len(self.families) != len(self.steps):
            raise FieldError(
                "steps",
                self.steps,
                f"one for each of the {len(self.families)} families, and at least one",
            )
        ordered = all(math.isfinite(step) for step in self.steps)
        ordered &= self.steps[0] >= 1
        ordered &= all(one < other for one, other in itertools.pairwise(self.steps))
        if not ordered:
            raise FieldError("steps", self.steps, "increasing, from 1 on")
        sizes = {family.group_size for family in self.families}
        if len(sizes) > 1:
            raise ValueError(
                f"families: expected one group size, got {sorted(sizes)}; the compiled "
                "step serves one"
            )
        if self.shape not in ("linear", "cosine", "hold"):
            raise FieldError("shape", self.shape, "'linear', 'cosine' or 'hold'")

    @property
    def group_size(self) -> int:
        """The group size M of every family."""
        return self.families[0].group_size

    def __call__(self, step: int) -> TableFamily:
        """Return the family of a step.

        Args:
          step: 1 or more.

        Raises:
          ValueError: for a step below 1.
        """
        if step < 1:
            raise ValueError(f"step={step}: expected 1 or more, the first step is 1")
        last = bisect.bisect_right(self.steps, step) - 1
        if last < 0:
            return self.families[0]
        if last == len(self.steps) - 1 or self.shape == "hold":
            return self.families[last]
        begin, end = self.steps[last : last + 2]
        share = (step - begin) / (end - begin)
        if share == 0:
            return self.families[last]
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return (1 - share) * self.families[last] + share * self.families[last + 1]


def constant(family: TableFamily) -> Schedule:
    """Return the schedule with the same family at every step."""
    return Schedule((family,), (1,))


def interpolate(
    start: TableFamily,
    end: TableFamily,
    begin_step: int,
    end_step: int,
    shape: Shape = "linear",
) -> Schedule:
    """Return a schedule from one objective to another, such as from log to the mean.

    Args:
      start: the family up to `begin_step`.
      end: the family from `end_step` on.
      begin_step: 1 or more.
      end_step: a step after `begin_step`.
      shape: how the share of `end` grows: "linear", "cosine", or "hold", which jumps
        from 0 to 1 at `end_step`.

    Raises:
      ValueError: for steps out of order, or families of different group sizes.

    >>> from jaxrl_surrogate.objectives import advantages, table_family
    >>> make = lambda name: table_family(advantages.get(name).table, 4)
    >>> schedule = interpolate(make("maxrl"), make("rloo"), 1, 101)
    >>> print(schedule(51).table().gap)
    [2.         1.5        1.16666667 1.        ]
    """
    return Schedule((start, end), (begin_step, end_step), shape)


def piecewise(families: Sequence[TableFamily], steps: Sequence[int]) -> Schedule:
    """Return a schedule of one family after another, without mixtures.

    Args:
      families: families of one group size.
      steps: the first step of each family, increasing, 1 or more.

    Raises:
      ValueError: for steps out of order, or families of different group sizes.
    """
    return Schedule(tuple(families), tuple(steps), "hold")


def anneal_k(
    group_size: int,
    start: int,
    end: int,
    begin_step: int,
    end_step: int,
    shape: Shape = "linear",
    make_family: Callable[[int], TableFamily] | None = None,
) -> Schedule:
    """Return a schedule of pass@k objectives whose k moves from one value to another.

    Every k between the two is reached, at equal distances in steps. Between two values
    of k the families are mixed; with "hold", k jumps.

    Args:
      group_size: M.
      start: k up to `begin_step`.
      end: k from `end_step` on.
      begin_step: 1 or more.
      end_step: a step after `begin_step`.
      shape: "linear", "cosine" (slow near each k) or "hold".
      make_family: a function of k to a family. The default gives the unbiased weights
        of pass@k with the leave-one-out baseline, for k up to M.

    Raises:
      FieldError: for a k that the group size does not support, and as `Schedule`.

    >>> schedule = anneal_k(8, start=4, end=1, begin_step=1, end_step=31)
    >>> [float(schedule(step).table().gap[0].round(6)) for step in (1, 6, 11, 31, 99)]
    [4.0, 3.5, 3.0, 1.0, 1.0]
    """
    for name, k in (("start", start), ("end", end)):
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise FieldError(name, k, "an integer of 1 or more")
    if make_family is None:
        make_family = functools.partial(_pass_at_k, group_size)
    values = range(start, end + 1) if start <= end else range(start, end - 1, -1)
    families = tuple(make_family(k) for k in values)
    if len(values) == 1:
        return constant(families[0])
    steps = np.linspace(begin_step, end_step, len(values)).tolist()
    return Schedule(families, steps, shape)


def get(name: str, **params) -> Schedule:
    """Return the schedule of a registered name with its parameters.

    Raises:
      ValueError: for an unknown name or parameter (the message names the nearest), for
        a missing parameter, or for values that the schedule does not accept.
    """
    if name not in _SCHEDULES:
        raise unknown("name", name, names(), "schedule")
    check_parameters(_SCHEDULES[name], name, params)
    return _SCHEDULES[name](**params)


def names() -> tuple[str, ...]:
    """Return the registered names of schedules."""
    return tuple(_SCHEDULES)


_SCHEDULES = {
    make.__name__: make for make in (constant, interpolate, piecewise, anneal_k)
}


@functools.lru_cache(maxsize=256)
def _pass_at_k(group_size, k):
    surrogate = surrogates.get("pass_at_k", k=k)
    return table_family(
        lambda size: from_surrogate(surrogate, size, method="exact"), group_size
    )
