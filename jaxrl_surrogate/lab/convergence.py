"""Writes docs/convergence.md: how fast methods approach their surrogates in M.

python -m jaxrl_surrogate.lab.convergence docs/convergence.md            # write it
python -m jaxrl_surrogate.lab.convergence docs/convergence.md --check    # current?
"""

import sys

import numpy as np

from jaxrl_surrogate.lab import stored
from jaxrl_surrogate.objectives import (
    Surrogate,
    WeightTable,
    advantages,
    from_surrogate,
    induced_surrogate,
    surrogates,
)

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


def value_distance(
    table: WeightTable, surrogate: Surrogate, low: float = 0.0, same_at: str = "low"
) -> float:
    """Return sup |h_M - h| over [low, 1], after a shift of both to 0 at one end.

    Args:
      table: weight table with the objective h_M.
      surrogate: the surrogate h.
      low: lower end of the interval.
      same_at: end at which both are 0, "low" or "high".

    >>> identity = surrogates.get("identity")
    >>> value_distance(advantages.table("rloo", 4), identity) < 1e-12
    True
    """
    # Dense at both ends, where the slopes of h are largest.
    t = low + (1 - low) * (1 - np.cos(np.linspace(0, np.pi, 4001))) / 2
    off = induced_surrogate(table).value(t) - surrogate.value(t)
    return float(np.abs(off - off[0 if same_at == "low" else -1]).max())


def distances(group_size: int) -> tuple[float, ...]:
    """Return one row of the table, `value_distance` of five methods.

    They are GRPO and the Kantorovich weights to arcsin on [0, 1], rejection sampling
    and MaxRL to log on [0.1, 1], and rejection sampling to log on [0.01, 1].
    """
    arcsin, log = surrogates.get("arcsin"), surrogates.get("log")
    rejection = advantages.table("rejection_sampling", group_size)
    return (
        value_distance(advantages.table("grpo", group_size), arcsin),
        value_distance(from_surrogate(arcsin, group_size), arcsin),
        value_distance(rejection, log, 0.1, "high"),
        value_distance(advantages.table("maxrl", group_size), log, 0.1, "high"),
        value_distance(rejection, log, 0.01, "high"),
    )


_PAGE = """\
# How fast methods near their surrogates

sup |h_M - h| for groups of M. arcsin is 2 arcsin √p on [0, 1], both objectives 0 at
p = 0; log is compared for p ≥ 0.1 and p ≥ 0.01, both 0 at p = 1. Made by
`python -m jaxrl_surrogate.lab.convergence docs/convergence.md`.

| M | `grpo`, arcsin | `--from arcsin`, arcsin | `rejection_sampling`, log, p ≥ 0.1 \
| `maxrl`, log, p ≥ 0.1 | `rejection_sampling`, log, p ≥ 0.01 |
|---|---|---|---|---|---|
{rows}

GRPO nears arcsin as 1 / √M, because the ends are reached late: its slope at p = 0 is
√(M - 1), where that of arcsin is infinite. Weights that `from_surrogate` makes for
arcsin are five to six times nearer at every M. Rejection sampling nears log like
(1 - p)^M: at once where p is well above 1 / M, not at all below.
"""


def text() -> str:
    """Return the Markdown of the page."""
    rows = [
        "| " + " | ".join([str(size), *map(_short, distances(size))]) + " |"
        for size in SIZES
    ]
    return _PAGE.format(rows="\n".join(rows))


def _short(distance):
    # Smaller distances are rounding errors.
    return f"{distance:.2g}" if distance > 1e-9 else "< 1e-9"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page; return the exit status, 1 if it is out of date."""
    return stored.main(__doc__.splitlines()[0], text, arguments)


if __name__ == "__main__":
    sys.exit(main())
