"""Command line of modules that write a page of docs/, or check that it is current."""

import argparse
from collections.abc import Callable
from pathlib import Path


def main(about: str, make_text: Callable[[], str], arguments: list[str] | None) -> int:
    """Write or check a page; return the exit status, 1 if it is out of date.

    Args:
      about: description of the program in its help.
      make_text: returns the text of the page.
      arguments: PATH, and --check to only compare; None: `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("path", type=Path)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(arguments)
    text = make_text()
    if not args.check:
        args.path.write_text(text, encoding="utf-8")
        return 0
    if args.path.is_file() and args.path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{args.path} is not current: run this again without --check")
    return 1
