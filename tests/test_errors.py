"""Errors are values: their fields, their places and what is printed of them."""

import dataclasses
import pickle

import pytest

from jaxrl_surrogate.errors import (
    NO_VALUE,
    Collected,
    FieldError,
    FieldErrors,
    at_least,
    nearest,
    unknown,
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FieldError("steps", -1, "at least 0"), "steps=-1: expected at least 0"),
        (FieldError("name", "x", "a or b", "take a"),
         "name='x': expected a or b; take a"),
        (FieldError("c.yaml", problem="cannot be read"), "c.yaml: cannot be read"),
        (FieldError("k", None, "a number", problem="is absent"),
         "k=None: is absent; expected a number"),
        (unknown("name", "rlo", ["rloo", "grpo"]),
         "name='rlo': unknown; did you mean rloo?"),
        (unknown("name", "xyz", ["rloo", "grpo"], "rule"),
         "name='xyz': unknown rule; expected one of rloo, grpo"),
    ],
)  # fmt: skip
def test_a_line_says_field_value_and_what_was_expected(error, line):
    assert str(error) == line
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == line and again.errors == (again,)
    assert (again.value is NO_VALUE) == (error.value is NO_VALUE)


def test_sections_are_put_in_front_of_every_field():
    inner = FieldErrors([FieldError("a", 1, "2", "do"), FieldError("b", problem="no")])
    outer = FieldErrors([inner.inside("x"), FieldError("c", 3, "4")]).inside("y")
    assert [error.field for error in outer.errors] == ["y.x.a", "y.x.b", "y.c"]
    first = outer.errors[0]
    assert (first.value, first.expected, first.remedy) == (1, "2", "do")
    assert str(outer).splitlines()[1] == "y.x.b: no"
    assert str(pickle.loads(pickle.dumps(outer))) == str(outer)
    assert FieldError("a").inside("").field == "a"


def test_what_calls_refuse_is_raised_together():
    def refuse(name):
        raise FieldError(name, 1, "2")

    with pytest.raises(FieldErrors) as caught, Collected() as collected:
        assert collected.call("x", max, 1, 2) == 2
        assert collected.call("x", refuse, "a") is None
        assert collected.call("y.z", refuse, name="b") is None
    assert [error.field for error in caught.value.errors] == ["x.a", "y.z.b"]
    with pytest.raises(KeyError), Collected() as collected:  # a mistake of ours
        collected.call("x", refuse, "a")
        collected.call("x", {}.__getitem__, "a")


def test_lower_bounds_are_held_for_all_fields():
    @dataclasses.dataclass
    class Section:
        steps: int = 0
        rate: float = float("nan")

    with pytest.raises(FieldErrors) as caught:
        at_least(Section(), steps=1, rate=0)
    assert [(e.field, e.expected) for e in caught.value.errors] == [
        ("steps", "at least 1"),
        ("rate", "at least 0"),
    ]
    at_least(Section(2, 0.5), steps=1, rate=0)


def test_nearest_is_empty_where_nothing_is_near():
    assert nearest("rlo", iter(["rloo"])) == "did you mean rloo?"
    assert nearest("xyz", ["rloo"]) == ""
