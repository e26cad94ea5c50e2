"""Text and tables on standard output: no name is cut, at any width.

On a terminal a cell that is too wide goes on in the next line, those of the first
column last. Where standard output is no terminal, nothing says how wide a reader is,
and lines are as long as they need.
"""

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

_UNLIMITED = 100_000  # columns


def console(**options) -> Console:
    """A console with lines of any length; options as `rich.console.Console`."""
    return Console(soft_wrap=True, **options)


def table(*headings: str, title: str | None = None) -> Table:
    """A table whose cells are folded where they do not fit, and never cut."""
    return Table(
        *(Column(name, overflow="fold") for name in headings),
        title=title,
        # Two spaces between columns and no frame: more of them fit.
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def print_table(screen: Console, made: Table) -> None:
    """Print a table, as wide as it needs to be where there is no terminal."""
    # A cell is text and no markup: names may hold brackets.
    if screen.is_terminal:
        first = made.columns[0]
        widest = max(cell_len(str(cell)) for cell in (first.header, *first.cells))
        first.width = min(widest, max(1, screen.width // 3))
        screen.print(made, markup=False)
    else:
        width, screen.width = screen.width, _UNLIMITED
        screen.print(made, markup=False)
        screen.width = width
    screen.print()  # without a frame, what follows would look like a row
