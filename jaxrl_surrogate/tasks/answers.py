"""Extraction of final answers from free text.

The regular expressions here take time linear in the text: a completion may be any text,
and must not be able to block its verifier.
"""

import re
from fractions import Fraction

_TAG, _END_TAG = "<answer>", "</answer>"
_MARK = re.compile(r"####|\\(?:boxed|fbox)\s{0,9}\{|<answer>")
_BRACE = re.compile(r"[{}]")
# TeX commands in and around numbers, and the text that replaces them.
_TEX = (
    (re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}"), r" \1/\2"),
    (re.compile(r"\\[,;:!]|[\u00a0\u2009\u202f]"), ""),  # spaces inside 10\,000
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)(?=\{)"), ""),
    (re.compile(r"\u2212"), "-"),
    # A power is not read as a number: its base alone would be incorrect.
    (re.compile(r"(?<![0-9.,])[0-9][0-9.,]*\s{0,9}\^[\s({-]{0,9}[0-9]+"), " "),
    (_BRACE, " "),
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?<![0-9]\.)"  # not the 2 of H2O, not the 5 of v1.5
    r"(?P<sign>(?:(?<!\))[-+])?)"  # (3)-5 subtracts
    r"(?:[$€£¥] ?(?P<inner>[-+]?))?"
    r"(?:(?P<whole>[0-9]+) (?=[0-9]+/[0-9]))?"  # 1 1/2
    r"(?P<number>(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2}(?![A-Za-z0-9]))?)"
    r"(?: ?/ ?(?P<below>[0-9]+)(?![0-9]*\.[0-9]))?"
)
_LONGEST = 64  # digits of a number


def final_number(text: str, *, last_number: bool = True) -> Fraction | None:
    """Return the number that a solution gives as its answer, or None.

    The answer is in the last mark of the form `#### x`, `\\boxed{x}` or
    `<answer>x</answer>`. Equals signs split the mark's first line with a number into
    parts; the answer is the first number of the last part that has one. In a text
    without a mark, the answer is the last number if `last_number` is true.

    Numbers may be written as 42, -42, 1,234, 42.0, .5, 3/4, 1 1/2 or 1e3, with currency
    signs, percent signs (50% is 50), units, words, points and TeX around them (\\$,
    \\%, \\text, \\frac, 10\\,000 and 10{,}000). Powers and digits inside words are not
    read as numbers.

    Args:
      text: the completion.
      last_number: whether the last number counts in a text without a mark.

    Examples:
      >>> final_number("She has 3. #### $1,234.00 a year")
      Fraction(1234, 1)
      >>> final_number(r"\\boxed{3}, no wait, \\boxed{\\$4 \\text{ per egg}}")
      Fraction(4, 1)
      >>> final_number("6 times 7 makes 42.")
      Fraction(42, 1)
    """
    stated = _last_statement(text, ("####", "\\", _TAG))
    if stated is None:
        return _last_number(_plain(text)) if last_number else None
    for line in _plain(stated).splitlines():
        for piece in reversed(line.split("=")):
            if match := _NUMBER.search(piece):
                return _value(match)
    return None


def answer_text(text: str) -> str:
    """Return the answer that a completion states, without outer white space.

    It is the content of the last `<answer>...</answer>` or `\\boxed{...}`, whichever
    comes last, or the whole completion if there is neither. The content of a tag that
    is not closed reaches to the end.
    """
    stated = _last_statement(text, ("\\", _TAG))
    return (text if stated is None else stated).strip()


def _last_statement(text: str, kinds: tuple[str, ...]) -> str | None:
    """Return the content of the last mark, or None. Boxes without an end are skipped.

    Args:
      text: the completion.
      kinds: how a mark may begin.
    """
    end = len(text)
    for mark in reversed(list(_MARK.finditer(text))):
        if not mark.group().startswith(kinds):
            continue
        if mark.group() == _TAG:
            return text[mark.end() : end].partition(_END_TAG)[0]
        if mark.group() == "####":
            return text[mark.end() : end]
        depth = 1
        for brace in _BRACE.finditer(text, mark.end(), end):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                return text[mark.end() : brace.start()]
        # The text from this mark on has been searched. Searching it again for every
        # earlier mark would take quadratic time in a text of open boxes.
        end = mark.start()
    return None


def _plain(text: str) -> str:
    for pattern, meaning in _TEX:
        text = pattern.sub(meaning, text)
    return text


def _last_number(text: str) -> Fraction | None:
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007
        pass
    return None if last is None else _value(last)


def _value(match: re.Match) -> Fraction | None:
    if len(match.group()) > _LONGEST:
        return None
    value = Fraction(match["number"].replace(",", ""))
    if match["below"]:
        if int(match["below"]) == 0:
            return None
        value /= int(match["below"])
    value += int(match["whole"] or 0)
    return -value if "-" in (match["sign"], match["inner"]) else value
