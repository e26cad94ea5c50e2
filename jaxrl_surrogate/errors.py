"""Errors about what a user gave: values with fields, which no code has to parse.

A layer raises a `FieldError` that names its own field. Whoever knows in which section
of the config that field stands puts the section in front, with `inside`.
"""

import contextlib
import difflib
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class _NoValue(enum.Enum):
    NO_VALUE = enum.auto()


NO_VALUE = _NoValue.NO_VALUE


class FieldErrors(ValueError):
    """One or more fields hold what cannot be used; `str` has a line for each.

    Attributes:
      errors: the `FieldError` of each field, in the order in which they were found.
    """

    def __init__(self, errors: Iterable["FieldErrors"]):
        """Group errors; groups among them are taken apart."""
        self.errors = tuple(one for error in errors for one in error.errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        """A line for each field."""
        return "\n".join(map(str, self.errors))

    def inside(self, section: str) -> "FieldErrors":
        """The same errors with `section.` in front of each field."""
        return FieldErrors(error.inside(section) for error in self.errors)


class FieldError(FieldErrors):
    """A field holds what cannot be used: a group of one.

    >>> print(FieldError("steps", -1, "at least 0").inside("train"))
    train.steps=-1: expected at least 0

    Attributes:
      field: what the user gave the value by: a dotted path, an option of the command
        line, or a file.
      value: what was given, or `NO_VALUE` where the field alone says it.
      expected: what would have been taken, or "".
      remedy: what to do, or "".
      problem: what is wrong with the value where `expected` does not say it, or "".
    """

    def __init__(
        self,
        field: str,
        value: Any = NO_VALUE,
        expected: str = "",
        remedy: str = "",
        *,
        problem: str = "",
    ):
        """Take the parts of the sentence."""
        self.field, self.value, self.problem = field, value, problem
        self.expected, self.remedy = expected, remedy
        ValueError.__init__(self, field, value, expected, remedy)

    @property
    def errors(self) -> tuple["FieldError", ...]:
        """The error itself."""
        return (self,)

    def __str__(self) -> str:
        """`field=value: problem; expected ...; remedy`, without what is absent."""
        name = self.field
        if self.value is not NO_VALUE:
            is_scalar = getattr(self.value, "shape", None) == ()  # of an array library
            name = f"{name}={self.value.item() if is_scalar else self.value!r}"
        expected = self.expected and f"expected {self.expected}"
        said = "; ".join(filter(None, (self.problem, expected, self.remedy)))
        return f"{name}: {said}"

    def inside(self, section: str) -> "FieldError":
        """The same error with `section.` in front of its field, if there is one."""
        return self.at(f"{section}.{self.field}" if section else self.field)

    def at(self, field: str) -> "FieldError":
        """The same error about a field of another name."""
        return FieldError(
            field, self.value, self.expected, self.remedy, problem=self.problem
        )


class Collected:
    """Collects what several calls refuse; on leaving, raises all of it together.

    >>> with Collected() as collected:
    ...     seed = collected.call("", int, "7")
    >>> seed
    7
    """

    def __init__(self):
        """Start with no errors."""
        self.errors: list[FieldErrors] = []

    def __enter__(self) -> "Collected":
        """Start collecting."""
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        """Raise what was collected.

        Raises:
          FieldErrors: all of it.
        """
        if kind is None and self.errors:
            raise FieldErrors(self.errors)

    def call(
        self, section: str, make: Callable, *arguments: Any, **options: Any
    ) -> Any:
        """What `make` returns, or None and its errors with `section.` in front."""
        try:
            return make(*arguments, **options)
        except FieldErrors as error:
            self.errors.append(error.inside(section))
            return None


@contextlib.contextmanager
def inside(section: str) -> Iterator[None]:
    """Put `section.` in front of each field of the errors that a block raises."""
    try:
        yield
    except FieldErrors as error:
        raise error.inside(section) from error


def at_least(section: Any, **least: float) -> None:
    """Refuse every field of a dataclass that is below its least value.

    Raises:
      FieldErrors: an error for each.
    """
    errors = [
        FieldError(name, getattr(section, name), f"at least {bound}")
        for name, bound in least.items()
        if not getattr(section, name) >= bound
    ]
    if errors:
        raise FieldErrors(errors)


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean ...?" with the known name that is most like this one, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def unknown(field: str, name: str, known: Iterable[str], what: str = "") -> FieldError:
    """The error about a name that is none of those known: the nearest one, or all.

    Args:
      field: that holds the name.
      name: what was given.
      known: names that are taken.
      what: what is unknown, such as "task"; "" says unknown alone.
    """
    problem = f"unknown {what}".rstrip()
    return FieldError(field, name, problem=problem, **nearest_or_all(name, known))


def nearest_or_all(name: str, known: Iterable[str]) -> dict[str, str]:
    """What an error says of names: `remedy`, the nearest, or `expected`, all of them.

    >>> nearest_or_all("rlo", ["rloo", "grpo"]), nearest_or_all("k", ["rloo", "grpo"])
    ({'remedy': 'did you mean rloo?'}, {'expected': 'one of rloo, grpo'})
    """
    known = list(known)
    hint = nearest(str(name), known)
    if hint or not known:
        return {"remedy": hint}
    return {"expected": f"one of {', '.join(known)}"}
