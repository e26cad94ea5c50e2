"""Read and write the logs of a run: files with one JSON object ("row") per line.

Every line is parsed alone, so a damaged line does not affect the others. A last line
that a kill cut short is dropped and does not count as damage.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from jaxrl_surrogate.storage.digests import json_digest

_SEAL = "seal"
_DIGITS = 16  # of a seal
_LISTS = ("correct", "verified", "correct_weight", "incorrect_weight")


def sealed(row: dict) -> dict:
    """Return the row with a digest of itself as its last field, "seal"."""
    return row | {_SEAL: json_digest(row)[:_DIGITS]}


def append_row(path: Path, row: dict) -> None:
    """Append a row to a log; floats that are not finite become null.

    The line is written by one write. A reader sees half a line only if this process was
    killed, and `keep_rows` drops such a line.
    """
    # JSON has no NaN; readers other than Python's refuse it.
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite) + "\n")


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a log in order, without seals; empty if there is no file.

    Damaged lines are left out.
    """
    if not path.exists():
        return []
    found = (_row(line, path.name) for line in path.read_bytes().split(b"\n"))
    return [row for row in found if row is not None]


def keep_rows(path: Path, keep: Callable[[dict], bool], aside: Path) -> list[int]:
    """Keep the selected rows of a log, and move its damaged lines to another file.

    Args:
      path: the log; it is replaced atomically, and only if it changes.
      keep: whether to keep a row; all other rows are removed.
      aside: a directory, in which a file of the same name collects damaged lines.

    Returns:
      The numbers of the lines that were damaged, from 1.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    *lines, rest = content.split(b"\n")
    rows = [_row(line, path.name) for line in lines]
    # The last line counts if it is a complete row that lacks only its line end.
    lines, rows = [*lines, rest], [*rows, _row(rest, path.name)]
    damaged = [n for n, row in enumerate(rows[:-1], 1) if row is None]
    if damaged:
        aside.mkdir(exist_ok=True)
        with (aside / path.name).open("ab") as file:
            file.writelines(lines[number - 1] + b"\n" for number in damaged)
    kept = b"".join(
        line + b"\n"
        for line, row in zip(lines, rows, strict=True)
        if row is not None and keep(row)
    )
    if kept != content:
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(kept)
        os.replace(temporary, path)
    return damaged


def _row(line: bytes, name: str) -> dict | None:
    """Return the row in a line of a log, or None if the line is damaged."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    seal = row.pop(_SEAL, None)
    if seal is not None and seal != json_digest(row)[:_DIGITS]:
        return None
    return row if _FITS.get(name, lambda row: True)(row) else None


def _is_metrics(row: dict) -> bool:
    return all(value is None or type(value) in (int, float) for value in row.values())


def _is_groups(row: dict) -> bool:
    lists = [row.get(name) for name in _LISTS]
    return (
        all(isinstance(one, list) for one in lists) and len(set(map(len, lists))) == 1
    )


def _is_digests(row: dict) -> bool:
    return all(isinstance(row[name], dict) for name in row.keys() - {"step"})


def _is_event(row: dict) -> bool:
    known = isinstance(row.get("event"), str)
    return known and isinstance(row.get("environment", {}), dict)


# Checks of the fields other than "step" that the readers of each log rely on.
_FITS = {
    "metrics.jsonl": _is_metrics,
    "groups.jsonl": _is_groups,
    "digests.jsonl": _is_digests,
    "events.jsonl": _is_event,
}
