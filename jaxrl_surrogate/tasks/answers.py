"""Final answers in free text: where a solution states its answer, and which number.

Regular expressions here are linear in the text: a completion is whatever a policy
wrote, and must not be able to hold up its verifier.
"""

import re
from fractions import Fraction

_TAG, _END_TAG = "<answer>", "</answer>"
_MARK = re.compile(r"####|\\(?:boxed|fbox)\s{0,9}\{|<answer>")
_BRACE = re.compile(r"[{}]")
# TeX that stands in and around numbers, and what it means.
_TEX = (
    (re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}"), r" \1/\2"),
    (re.compile(r"\\[,;:!]|[\u00a0\u2009\u202f]"), ""),  # spaces inside 10\,000
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)(?=\{)"), ""),
    (re.compile(r"\u2212"), "-"),
    # A power is no number: the base alone would be a wrong reading.
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
    """The number that a solution settles on, exactly, or None.

    The last statement of an answer counts: `#### x`, `\\boxed{x}` or
    `<answer>x</answer>`, whichever comes last. Of its first line with a number, the
    first number after the last equals sign is read. If nothing is stated so, and
    `last_number`, it is the last number of the text.

    Read as numbers: 42, -42, 1,234, 42.0, .5, 3/4, 1 1/2, 1e3, with currency signs,
    percent signs (50% is 50), units, TeX (\\$, \\%, \\text, \\frac, 10\\,000 and
    10{,}000), words and points around them. Not read: powers and digits inside words.

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
    """The answer that a completion states, as text without outer white space.

    What stands in the last `<answer>...</answer>` or `\\boxed{...}`, whichever comes
    last (a tag left open reaches to the end); the whole completion if there is neither.
    """
    stated = _last_statement(text, ("\\", _TAG))
    return (text if stated is None else stated).strip()


def _last_statement(text: str, kinds: tuple[str, ...]) -> str | None:
    """What the last mark says. A box that is never closed states nothing."""
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
        # The text from here on was searched: going over it again for every mark before
        # it would be quadratic in a text of open boxes.
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
