"""`jaxrl objective --from SURROGATE --frontier`: bias and noise of ways to train it."""

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console

from jaxrl_surrogate import terminal
from jaxrl_surrogate.commands.replay import finite
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import Surrogate, baselines, inverse, variance


def show(
    surrogate: Surrogate,
    group_sizes: Sequence[int],
    prior: tuple[float, float] | None,
    as_json: bool,
    console: Console | None = None,
) -> int:
    """Print bias and noise of every way to train a surrogate; return the exit status.

    The ways are all combinations of method, baseline and group size.

    Args:
      surrogate: the surrogate h.
      group_sizes: values of M.
      prior: alpha and beta of the beta distribution of success rates; None: uniform.
      as_json: print JSON instead of text.
      console: where text is printed; None: standard output.

    Raises:
      FieldError: the prior has no density, or a group size is below 1.
    """
    try:
        rows = variance.frontier(
            surrogate, inverse.methods(), group_sizes, baselines.names(), prior
        )
    except ValueError as error:
        raise FieldError("--frontier", problem=str(error)) from error
    if as_json:
        plain = [dataclasses.asdict(row) for row in rows]
        print(json.dumps(finite(plain), indent=2))
        return 0
    console = console or terminal.console()
    table = terminal.table(
        "method", "baseline", "M", "bias", "worst, at p", "noise a sample"
    )
    refused = {}
    for row in rows:
        if row.result is None:
            refused.setdefault(row.refused, f"{row.method}, {row.baseline}")
            continue
        found = row.result
        table.add_row(
            row.method,
            row.baseline,
            str(row.group_size),
            f"{found.rms_bias / found.signal:.1%}",
            f"{found.worst_bias / found.signal:.1%} at {found.worst_bias_at:.3f}",
            f"{found.score_variance * row.group_size:.4f}",
        )
    terminal.print_table(console, table)
    console.print(
        "bias: root mean square of p q (h_M' - h') over that of p q h'; noise: M times "
        "the variance of a group's update from scores, in units of one score's; means "
        f"over p {'uniform' if prior is None else f'from beta{prior}'}",
        highlight=False,
    )
    served = [row for row in rows if row.result is not None]
    for size in dict.fromkeys(row.group_size for row in served):
        console.print(_in_words(size, served), highlight=False, markup=False)
    for reason, where in refused.items():
        console.print(f"refused ({where}): {reason}", highlight=False, markup=False)
    return 0


def _in_words(size: int, rows: Sequence[variance.FrontierRow]) -> str:
    """Name the way that is nearest to the surrogate, and the one with least noise."""
    rows = [row for row in rows if row.group_size == size]
    near = min(rows, key=lambda row: row.result.rms_bias)
    # Among ways that are equally near up to rounding, take the one with least noise.
    near = min(
        (
            row
            for row in rows
            if row.result.rms_bias <= near.result.rms_bias + 1e-9 * near.result.signal
        ),
        key=lambda row: row.result.score_variance,
    )
    calm = min(rows, key=lambda row: row.result.score_variance)

    def shown(row):
        return f"{row.method} with {row.baseline}"

    return (
        f"So in groups of {size} {shown(near)} is nearest to the surrogate (bias "
        f"{near.result.rms_bias / near.result.signal:.1%}), and {shown(calm)} has the "
        f"least noise (bias {calm.result.rms_bias / calm.result.signal:.1%})."
    )
