"""Draws figures of curves with matplotlib.

Every curve has its own colour (the palette of Okabe and Ito, 2008) and line style, so
that figures are readable in grey and with any colour vision. The bytes of an SVG depend
only on the data and the version of matplotlib.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrl_surrogate.errors import FieldError

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (8, 2)), "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve of a panel."""

    x: np.ndarray  # (N,)
    y: np.ndarray  # (N,)
    label: str
    # "line"; "points": markers joined by a thin line; "reference": black and dashed
    kind: str = "line"
    error: np.ndarray | None = None  # (N,) half the width of a band around y


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes with its curves."""

    curves: Sequence[Curve]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None


def check_path(path: Path) -> None:
    """Check that a figure can be written, before anything is computed.

    Raises:
      FieldError: the file type is unknown, the folder does not exist, or matplotlib is
        missing.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise FieldError("figure", str(path), "a name in .svg, .png or .pdf")
    if not path.absolute().parent.is_dir():
        raise FieldError("figure", str(path), problem=f"{path.parent} is not a folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FieldError(
            "figure",
            problem="needs matplotlib",
            remedy="in the checkout: pip install -e '.[plots]'",
        ) from error


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels side by side into an SVG, PNG or PDF file.

    Raises:
      ValueError: as `check_path`.
    """
    check_path(path)
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text is not converted to paths: small and searchable
        "svg.hashsalt": "jaxrl_surrogate",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.1 * len(panels), 3.3), layout="constrained")
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(places, panels, strict=True):
            _draw_panel(axes, panel)
        # Panels with the same labels share one legend.
        shared = len({tuple(c.label for c in panel.curves) for panel in panels}) == 1
        shared = shared and len(panels) > 1
        for axes in places[: 1 if shared else None]:
            named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
            where = {"loc": "outside lower center", "ncols": 6} if shared else {}
            (figure if shared else axes).legend(
                named.values(), named.keys(), fontsize=8, handlelength=2.8, **where
            )
        # Without a date, equal data give equal files.
        dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(path, dpi=150, metadata=dated.get(path.suffix))


def _draw_panel(axes, panel):
    turn = 0
    for curve in panel.curves:
        if curve.kind == "reference":
            axes.plot(
                curve.x, curve.y, color="black", lw=1.2, ls=(0, (3, 2)), zorder=5,
                label=curve.label,
            )  # fmt: skip
            continue
        colour, marker = _COLOURS[turn % 6], _MARKERS[turn % 6]
        if curve.kind == "points":
            look = {"lw": 0.7, "ls": "-", "marker": marker, "ms": 3}
        else:
            look = {"lw": 1.5, "ls": _STYLES[turn % 6]}
        axes.plot(curve.x, curve.y, color=colour, label=curve.label, **look)
        if curve.error is not None:
            low, high = curve.y - curve.error, curve.y + curve.error
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.2, lw=0)
        turn += 1
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
