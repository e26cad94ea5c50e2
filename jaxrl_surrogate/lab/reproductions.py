"""Draws the figures of two papers from exact objectives.

python -m jaxrl_surrogate.lab.reproductions docs/figures            # all
python -m jaxrl_surrogate.lab.reproductions docs/figures grpo_arcsin

effective_weights  arXiv 2510.23049, figure 1: group weights of Pass@K methods
rejection_log      arXiv 2510.13651: rejection sampling tends to log as groups grow
grpo_arcsin        arXiv 2510.13651: GRPO tends to arcsin in group size and epsilon

The objectives are those of the weight tables that training uses; nothing is sampled.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxrl_surrogate.lab.figures import Curve, Panel, check_path, draw
from jaxrl_surrogate.objectives import (
    WeightTable,
    advantages,
    induced_surrogate,
    surrogates,
)

_NEAR_ZERO = np.geomspace(1e-3, 0.05, 40)
_RATES = np.concatenate([_NEAR_ZERO, np.linspace(0.06, 0.94, 89), 1 - _NEAR_ZERO[::-1]])


def effective_weights() -> list[Panel]:
    """Return panels of the effective weight t A+(m) against t = m / N, for three K.

    In a group of N samples with success rate t, the update of a method whose weights
    sum to zero is t A+ times the difference between the mean scores of correct and of
    incorrect answers. The dashed curve is the limit t (1 - t) F'(t).
    """
    panels = []
    for k in (1, 4, 8):
        curves = []
        for name, label in (
            ("plugin_pass_at_k", "RLOO, plug-in"),
            ("centred_pass_at_k", "RLOO, unbiased"),
            ("grpo_pass_at_k", "GRPO"),
        ):
            for size in (16, 64) if name != "plugin_pass_at_k" else (16,):
                rates, weights = effective_weight(advantages.table(name, size, k=k))
                kind = "points" if size == 16 else "line"
                curves.append(Curve(rates, weights, f"{label}, N={size}", kind))
        for surrogate in ("pass_at_k", "arcsin_pass_at_k"):
            slope = surrogates.get(surrogate, k=k).slope(_RATES)
            limit = _RATES * (1 - _RATES) * slope
            curves.append(Curve(_RATES, limit, "limits", "reference"))
        panels.append(
            Panel(
                curves,
                title=f"K = {k}",
                x_label="success rate of the group",
                y_label="effective weight",
            )
        )
    return panels


def effective_weight(table: WeightTable) -> tuple[np.ndarray, np.ndarray]:
    """Return t = m / M and t A+(m), both (M + 1,), of a table that sums to zero."""
    size = table.group_size
    rates = np.arange(size + 1) / size
    return rates, rates * np.append(0.0, np.asarray(table.correct))


def rejection_log() -> list[Panel]:
    """Return panels of rejection sampling: h_M(p) - h_M(1), and its error to log p."""
    values, errors = [], []
    log = np.log(_RATES)
    for size in (2, 4, 16, 64, 256):
        h = induced_surrogate(advantages.table("rejection_sampling", size))
        value = h.value(_RATES) - h.value(1.0)
        values.append(Curve(_RATES, value, f"M = {size}"))
        errors.append(Curve(_RATES, np.maximum(value - log, 1e-12), f"M = {size}"))
    values.append(Curve(_RATES, log, "log p", "reference"))
    return [
        Panel(
            values, "rejection sampling", "p", "h_M(p) - h_M(1)", y_range=(-5.5, 0.2)
        ),
        Panel(
            errors,
            "distance from log p",
            "p",
            "h_M - h_M(1) - log p",
            log_x=True,
            log_y=True,
            y_range=(1e-6, 10),
        ),
    ]


def grpo_arcsin() -> list[Panel]:
    """Return panels of GRPO's h_M and 2 arcsin sqrt p, by group size and by epsilon."""
    arcsin = surrogates.get("arcsin").value(_RATES)
    reference = Curve(_RATES, arcsin, "2 arcsin √p", "reference")

    def curve(label, size, **params):
        h = induced_surrogate(advantages.table("grpo", size, **params))
        return Curve(_RATES, h.value(_RATES), label)

    sizes = [curve(f"M = {size}", size) for size in (2, 4, 16, 64, 256)]
    epsilons = [
        curve(f"epsilon = {epsilon:g}", 256, epsilon=epsilon)
        for epsilon in (1.0, 0.3, 0.1, 0.01)
    ]
    return [
        Panel([*sizes, reference], "GRPO, epsilon = 0", "p", "h_M(p)"),
        Panel([*epsilons, reference], "GRPO, M = 256", "p", "h_M(p)"),
    ]


FIGURES: dict[str, Callable[[], Sequence[Panel]]] = {
    figure.__name__: figure
    for figure in (effective_weights, rejection_log, grpo_arcsin)
}


def main(arguments: list[str] | None = None) -> int:
    """Write figures and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where NAME.svg is written")
    parser.add_argument("names", nargs="*", help=f"default {', '.join(FIGURES)}")
    args = parser.parse_args(arguments)
    for name in args.names:
        if name not in FIGURES:
            parser.error(f"{name!r}: expected one of {', '.join(FIGURES)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.names or FIGURES:
        path = args.folder / f"{name}.svg"
        try:
            check_path(path)
        except ValueError as error:
            parser.error(str(error))
        draw(FIGURES[name](), path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
