"""Which number a text settles on: the edge list, by hand."""

import time
from fractions import Fraction

import pytest

from jaxrl_surrogate.tasks.answers import answer_text, final_number

NUMBERS = {
    # GSM8K's own form
    "#### 42": 42,
    "####42": 42,
    "6 * 7 is 42\n#### 42": 42,
    "#### 42.0": 42,
    "#### 42.": 42,
    "#### 1,234": 1234,
    "#### 1,234,567.5": Fraction("1234567.5"),
    "#### $1234": 1234,
    "#### $ 1,234.00.": 1234,
    "#### €7": 7,
    "#### -5": -5,
    "#### -$5": -5,
    "#### $-5": -5,
    "#### \u22127": -7,
    "#### +7": 7,
    "#### 42 apples in 3 boxes": 42,
    "#### 42kg": 42,
    "#### 42%": 42,
    "#### 42 %": 42,
    "#### **42**": 42,
    "#### x = 42": 42,
    "#### 6*7=42": 42,
    "#### The answer is 42": 42,
    "#### $42/day": 42,
    "#### 3/4": Fraction(3, 4),
    "#### 2 1/2": Fraction(5, 2),
    "#### .5": Fraction(1, 2),
    "#### 1e3": 1000,
    "####\n42": 42,
    "####\u00a042": 42,
    # TeX
    r"\boxed{42}": 42,
    r"\boxed {42}": 42,
    r"\fbox{42}": 42,
    r"\boxed{{42}}": 42,
    r"\boxed{\$42}": 42,
    r"\boxed{42\%}": 42,
    r"\boxed{10\,000}": 10000,
    r"\boxed{10{,}000}": 10000,
    r"\boxed{\text{about } 42 \text{ kg}}": 42,
    r"\boxed{x = 42}": 42,
    r"\boxed{\frac{1}{2}}": Fraction(1, 2),
    r"\boxed{1\dfrac{1}{2}}": Fraction(3, 2),
    r"$\boxed{-42}$.": -42,
    r"#### $\boxed{42}$": 42,
    # tags
    "<answer>42</answer>": 42,
    "<answer> $42 </answer> or 43": 42,
    r"<answer>\boxed{42}</answer>": 42,
    # the last statement counts
    "#### 3\n#### 4": 4,
    r"\boxed{3}, no wait, \boxed{4}": 4,
    "#### 3 so \\boxed{4}": 4,
    "\\boxed{3} so #### 4": 4,
    "<answer>3</answer> <answer>4</answer>": 4,
    "#### 42\nThat was 7 steps.": 42,
    # a box cut off states nothing, what came before it stands
    r"\boxed{3} then \boxed{4": 3,
    # no statement: the last number
    "so 42.": 42,
    "42 eggs": 42,
    "10-5": 5,
    "a total of 3-5": 5,
    "1,2,3": 3,
    "US$42": 42,
    "2 + 2 = 4, not 5": 5,
    "loses -3": -3,
}
NOTHING = [
    "",
    "no number",
    "####",
    "3 #### none",
    r"3 \boxed{}",
    r"\boxed{\text{two}}",
    r"\boxed{10^{3}}",
    r"\boxed{2^5}",
    "10^3",
    "H2O",
    "v1.5",
    "#### 1/0",
    "9" * 100,
    "٤٢",  # digits, but not 0-9
    "#### ４２",
    "#### nan",
    "#### inf",
]


@pytest.mark.parametrize("text", NUMBERS)
def test_reads_the_final_number(text):
    assert final_number(text) == NUMBERS[text]


@pytest.mark.parametrize("text", NOTHING)
def test_reads_nothing(text):
    assert final_number(text) is None


def test_last_number_only_where_asked():
    assert final_number("so 42.", last_number=False) is None
    assert final_number("#### 42", last_number=False) == 42
    # An answer that is stated but is no number is wrong, whatever else is there.
    assert final_number("42 #### many") is None


def test_random_numbers_in_every_dress(random):
    for _ in range(200):
        cents = int(random.integers(-(10**9), 10**9))
        value = Fraction(cents, 100)
        sign, size = ("-" if cents < 0 else ""), abs(cents) / 100
        plain, grouped = f"{sign}{size:.2f}", f"{sign}{size:,.2f}"
        dollars = f"{sign}${size:,.2f}"
        tex = plain.replace("-", "\u2212")
        for text in (
            f"#### {plain}",
            f"#### {grouped} dollars",
            f"so 7 of them\n#### {dollars}.",
            f"\\boxed{{\\${plain}}}",
            f"\\boxed{{{grouped.replace(',', '{,}')} \\text{{ m}}}}",
            f"<answer>{tex}</answer>",
            f"12 of 3 make {dollars}!",
        ):
            assert final_number(text) == value, text


def test_answer_text():
    assert answer_text(" (1+2)*3 \n") == "(1+2)*3"
    assert answer_text("I think <answer> a b </answer>.") == "a b"
    assert answer_text("<answer>a</answer> <answer>b") == "b"
    assert answer_text(r"so \boxed{\{1, 2\}} it is") == r"\{1, 2\}"
    # Walls of a maze are no statement.
    assert answer_text("####\n#  #") == "####\n#  #"


PIECES = r"9|1,|\boxed{|####|<answer>|9 |{|1,234|-|^|9^|$ |/ 1|\frac{1|1 1/|=|0.|e9"


@pytest.mark.parametrize("piece", [*PIECES.split("|"), " ", "\\", "####\n"])
def test_long_texts_take_linear_work(piece):
    def seconds(length):
        text = piece * (length // len(piece))
        start = time.process_time()
        final_number(text), answer_text(text)
        return time.process_time() - start

    # Quadratic work on the longer one would take minutes; no time is asserted finely.
    seconds(1_000)
    assert seconds(400_000) < 20
