"""Typed settings: trees of frozen dataclasses, from YAML and dotted overrides.

A field is `name: Annotated[type, "help"] = default`. All errors of a config are
reported together, one line each with the dotted path of the field, before anything
expensive starts.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jaxrl_surrogate import yaml_text
from jaxrl_surrogate.errors import (
    Collected,
    FieldError,
    nearest_or_all,
    unknown,
)
from jaxrl_surrogate.typed_fields import converted, type_name


def load(
    cls: type,
    path: Path,
    overrides: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Read settings from a YAML file and apply overrides.

    Args:
      cls: dataclass at the root; every field has a default.
      path: YAML file; `extends: other.yaml` names a base file, relative to this one,
        whose sections and options it is merged into. Options given as null are
        emptied.
      overrides: command-line arguments, `--section.field=value` or
        `--section.field value`; the last one for a field counts.
      defaults: values for fields that the file leaves out.

    Returns:
      An instance of `cls`.

    Raises:
      FieldErrors: a file cannot be read, or a field is unknown, has the wrong type or
        does not fit the others.
    """
    values = _merge(dict(defaults or {}), _read(path))
    kinds = {where: kind for where, kind, _, _ in fields(cls)}
    with Collected() as collected:
        for word, where, text in _pairs(overrides):
            collected.call("", _override, values, word, where, text, kinds)
        made = collected.call("", _made, cls(), values)
    return made


def from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """Build settings from nested dicts; fields that they leave out have defaults.

    Raises:
      FieldErrors: one error for each field that is unknown or has an invalid value.
    """
    return _made(cls(), values)


def updated(settings: Any, values: Mapping[str, Any], path: str = "") -> Any:
    """Return settings, or any dataclass of typed fields, with some values replaced.

    Args:
      settings: instance to start from; it is not changed.
      values: nested dicts of new values.
      path: dotted path that errors put in front of a field.

    Raises:
      FieldErrors: one error for each field that is unknown or has an invalid value.
    """
    return _made(settings, values, path)


def to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as nested dicts of plain values, which `from_dict` reads."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


def to_yaml(settings: Any) -> str:
    """Return YAML of all fields, including those at their defaults."""
    return yaml_text.dump(to_dict(settings))


def difference(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return (dotted path, old value, new value) of each field that differs.

    An option that one side lacks has the value None on that side.
    """
    before, after = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    return [
        (path, before.get(path), after.get(path))
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]


def help_text(cls: type, section: str = "") -> str:
    """Return help with one line per field: dotted path, help, type and default.

    Args:
      cls: dataclass at the root.
      section: dotted path of the section to describe. If empty, the text has the
        fields outside of sections, and one line for each section.

    Raises:
      FieldError: there is no such section.
    """
    inner = _section_of(cls(), section)
    prefix = f"{section}." if section else ""
    rows = {
        path: f"{text} ({type_name(kind)}, default {_shown(default)})"
        for path, kind, default, text in _leaves(inner, prefix)
        if section or "." not in path
    }
    for name, value in _sections(inner):
        if not section:
            rows[f"{name}.*"] = type(value).__doc__.splitlines()[0]
    left = max(map(len, rows))
    return "\n".join(f"  --{path:<{left}}  {text}" for path, text in rows.items())


def _section_of(settings: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        sections = dict(_sections(settings))
        if name not in sections:
            raise unknown("--help", path, sections, "section")
        settings = sections[name]
    return settings


def _sections(settings: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield field.name, value


def fields(cls: type) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (dotted path, type, default, help) of every field that is no section."""
    yield from _leaves(cls(), "")


def _leaves(settings: Any, prefix: str) -> Iterator[tuple[str, Any, Any, str]]:
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, *_unwrap(hints[field.name], value)


def _unwrap(hint: Any, default: Any) -> tuple[Any, Any, str]:
    if get_origin(hint) is typing.Annotated:
        kind, text, *_ = get_args(hint)
        return kind, default, text
    return hint, default, ""


def _read(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read the values of a file, merged into those of the file that it extends.

    `below` holds the files that extend this one, to detect a cycle.
    """
    path = path.resolve() if below else path
    if path.resolve() in below:
        raise FieldError(str(path), problem="extends itself")
    try:
        values = yaml_text.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted(str(other) for other in path.parent.glob("*.yaml"))
        near = difflib.get_close_matches(str(path), others, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise FieldError(str(path), problem="no such file", remedy=hint) from None
    except (OSError, ValueError) as error:
        raise FieldError(str(path), problem=f"cannot be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise FieldError(str(path), expected=f"sections, got {values!r}")
    base = values.pop("extends", None)
    if base is None:
        return values
    return _merge(_read(path.parent / str(base), (*below, path.resolve())), values)


def _merge(base: dict, over: Mapping) -> dict:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield (argument, dotted path, text) for each `--path=text` or `--path text`.

    The text is None if the argument has no value.
    """
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        where, equals, text = word.removeprefix("--").partition("=")
        if not equals and word.startswith("--") and rest and rest[0][:2] != "--":
            text, equals = rest.pop(0), "="
        yield word, where, text if equals else None


def _override(
    values: dict, word: str, where: str, text: str | None, kinds: Mapping[str, Any]
) -> None:
    """Set the value that `text` spells at the dotted path `where`, in place."""
    if text is None:
        raise FieldError(word, expected="--section.field=value")
    if any(path.startswith(f"{where}.") for path in kinds):
        example = f"--{where}.field=value"
        raise FieldError(where, problem="is a section", expected=example)
    try:
        value = text if _is_text(kinds.get(where), text) else yaml_text.load(text)
    except ValueError as error:
        raise FieldError(where, text, problem=f"cannot be read: {error}") from error
    *sections, key = where.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[key] = value


def _is_text(kind: Any, text: str) -> bool:
    """Return whether a command-line value is plain text for this type, not YAML."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return str in get_args(kind) and text not in ("null", "~", "")
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind is str


def _made(
    base: Any, values: Any, path: str = "", known: Sequence[str] | None = None
) -> Any:
    """Return `base` with `values`; `known` has the paths of all fields of the tree."""
    if values is None:  # an empty section, such as one with comments only
        values = {}
    if not isinstance(values, Mapping):
        raise FieldError(path, problem=f"expected a section, got {values!r}")
    if known is None:
        known = [] if path else [where for where, *_ in _leaves(base, "")]
    hints = typing.get_type_hints(type(base), include_extras=True)
    names = [field.name for field in dataclasses.fields(base)]
    made = {}
    with Collected() as collected:
        for name, value in values.items():
            where = f"{path}.{name}" if path else str(name)
            section = getattr(base, name) if name in names else None
            if name not in names:
                collected.call("", _refuse, where, names, known)
            elif dataclasses.is_dataclass(section):
                made[name] = collected.call("", _made, section, value, where, known)
            else:
                kind, *_ = _unwrap(hints[name], None)
                made[name] = collected.call("", converted, kind, value, where)
    with Collected() as collected:
        return collected.call(path, dataclasses.replace, base, **made)


def _refuse(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise the error of an unknown field, with the fields that may be meant."""
    section, dot, name = where.rpartition(".")
    elsewhere = [path for path in known if path.rpartition(".")[2] == name]
    hints = {"remedy": f"did you mean {' or '.join(elsewhere)}?"}
    if not elsewhere:
        hints = nearest_or_all(where, [f"{section}{dot}{name}" for name in names])
    raise FieldError(where, problem="unknown field", **hints)


def _shown(value: Any) -> str:
    """Return a default as one would write it in YAML."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _flat(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
