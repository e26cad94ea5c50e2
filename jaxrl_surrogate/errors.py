"""Errors about values that a user gave, with attributes for the field and the value.

A layer raises a `FieldError` that names its own field. The caller, which knows the
section of the config that holds this field, prepends the section with `inside`.
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
    """One or more fields have values that cannot be used; `str` gives a line for each.

    Attributes:
      errors: the `FieldError` of each field, in the order in which they were found.
    """

    def __init__(self, errors: Iterable["FieldErrors"]):
        """Group errors; groups among them are flattened."""
        self.errors = tuple(one for error in errors for one in error.errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        """Return a line for each field."""
        return "\n".join(map(str, self.errors))

    def inside(self, section: str) -> "FieldErrors":
        """Return the same errors with `section.` in front of each field."""
        return FieldErrors(error.inside(section) for error in self.errors)


class FieldError(FieldErrors):
    """A field has a value that cannot be used; also a `FieldErrors` of one error.

    >>> print(FieldError("steps", -1, "at least 0").inside("train"))
    train.steps=-1: expected at least 0

    Attributes:
      field: where the user gave the value: a dotted path in the config, an option of
        the command line, or a file.
      value: the value that was given, or `NO_VALUE` to leave it out of the message.
      expected: a description of the values that are accepted, or "".
      remedy: what the user can do, or "".
      problem: what is wrong with the value if `expected` does not say it, or "".
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
        """Store the parts of the message; see the class for their meaning."""
        self.field, self.value, self.problem = field, value, problem
        self.expected, self.remedy = expected, remedy
        ValueError.__init__(self, field, value, expected, remedy)

    @property
    def errors(self) -> tuple["FieldError", ...]:
        """Return a tuple that holds this error alone."""
        return (self,)

    def __str__(self) -> str:
        """Return `field=value: problem; expected ...; remedy` without empty parts."""
        name = self.field
        if self.value is not NO_VALUE:
            is_scalar = getattr(self.value, "shape", None) == ()  # of an array library
            name = f"{name}={self.value.item() if is_scalar else self.value!r}"
        expected = self.expected and f"expected {self.expected}"
        said = "; ".join(filter(None, (self.problem, expected, self.remedy)))
        return f"{name}: {said}"

    def inside(self, section: str) -> "FieldError":
        """Return the same error with `section.` in front of its field.

        An empty section leaves the field as it is.
        """
        return self.at(f"{section}.{self.field}" if section else self.field)

    def at(self, field: str) -> "FieldError":
        """Return the same error for a field of another name."""
        return FieldError(
            field, self.value, self.expected, self.remedy, problem=self.problem
        )


class Collected:
    """A context that collects the errors of several calls and raises them on exit.

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
        """Raise the collected errors, unless the block itself raised.

        Raises:
          FieldErrors: all collected errors.
        """
        if kind is None and self.errors:
            raise FieldErrors(self.errors)

    def call(
        self, section: str, make: Callable, *arguments: Any, **options: Any
    ) -> Any:
        """Return the result of `make(*arguments, **options)`.

        If it raises `FieldErrors`, collect them with `section.` in front of their
        fields and return None.
        """
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
    """Check that fields of a dataclass are not below their least values.

    Args:
      section: the dataclass instance.
      **least: the least value of each field, by name.

    Raises:
      FieldErrors: an error for each field that is too small.
    """
    errors = [
        FieldError(name, getattr(section, name), f"at least {bound}")
        for name, bound in least.items()
        if not getattr(section, name) >= bound
    ]
    if errors:
        raise FieldErrors(errors)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the most similar known name, or "" for none."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def unknown(field: str, name: str, known: Iterable[str], what: str = "") -> FieldError:
    """Return the error for an unknown name; it shows the most similar name, or all.

    Args:
      field: the field that holds the name.
      name: the name that was given.
      known: the names that are accepted.
      what: the kind of name, such as "task"; "" leaves it out of the message.
    """
    problem = f"unknown {what}".rstrip()
    return FieldError(field, name, problem=problem, **nearest_or_all(name, known))


def nearest_or_all(name: str, known: Iterable[str]) -> dict[str, str]:
    """Return a keyword argument of `FieldError` that suggests known names.

    It is `remedy` with the most similar name, or else `expected` with all names.

    >>> nearest_or_all("rlo", ["rloo", "grpo"]), nearest_or_all("k", ["rloo", "grpo"])
    ({'remedy': 'did you mean rloo?'}, {'expected': 'one of rloo, grpo'})
    """
    known = list(known)
    hint = nearest(str(name), known)
    if hint or not known:
        return {"remedy": hint}
    return {"expected": f"one of {', '.join(known)}"}
