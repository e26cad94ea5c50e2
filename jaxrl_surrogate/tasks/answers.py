"""Final answers in free text: find the number that a solution ends with."""

import re
from fractions import Fraction

_NUMBER = r"[-+]?\$?\s?(?:[0-9][0-9,]*)?\.?[0-9]+"
_MARKED = re.compile(r"####\s*(.*)")
_BOXED = re.compile(r"\\boxed\s*\{")


def final_number(text: str, *, last_number: bool = True) -> Fraction | None:
    """The number a solution settles on, exactly, or None.

    The last `#### x` decides; without one the last `\\boxed{x}`; without one, and if
    `last_number`, the last number in the text. Dollar signs, thousands separators,
    percent signs, trailing words and points are passed over.
    """
    marked = _MARKED.findall(text)
    if marked:
        return _first_number(marked[-1])
    boxed = _last_boxed(text)
    if boxed is not None:
        return _first_number(boxed)
    if last_number:
        numbers = re.findall(_NUMBER, text)
        return _parse(numbers[-1]) if numbers else None
    return None


def _first_number(text: str) -> Fraction | None:
    text = text.replace("\\$", "").replace("\\,", "").replace("{,}", ",")
    found = re.search(_NUMBER, text)
    return None if found is None else _parse(found.group())


def _parse(text: str) -> Fraction | None:
    try:
        return Fraction(re.sub(r"[$,\s]", "", text)[:64])
    except (ValueError, ZeroDivisionError):
        return None


def _last_boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{...}`, nested braces included."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for position in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[starts[-1] : position]
    return None
