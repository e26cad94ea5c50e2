"""Prints text and tables on standard output without cutting any text.

On a terminal a cell that is too wide continues on the next line; the first column is
the last to be narrowed. If standard output is no terminal, lines have any length.
"""

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

_UNLIMITED = 100_000  # columns


def console(**options) -> Console:
    """Return a console that never breaks lines; options as `rich.console.Console`."""
    return Console(soft_wrap=True, **options)


def table(*headings: str, title: str | None = None) -> Table:
    """Return an empty table that folds cells too wide for it and cuts none.

    Args:
      headings: of the columns.
      title: printed above the table.
    """
    return Table(
        *(Column(name, overflow="fold") for name in headings),
        title=title,
        # Two spaces between columns and no frame leave room for more columns.
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def print_table(screen: Console, made: Table) -> None:
    """Print a table: within the terminal's width, or unlimited without a terminal."""
    # Cells are not parsed as markup, because names may contain brackets.
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
