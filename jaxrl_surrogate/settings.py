"""Typed settings: frozen dataclass trees from YAML and dotted overrides.

A field is `name: Annotated[type, "help"] = default`. All that is wrong with a config is
found and reported together, each line with the field's dotted path, before anything
expensive starts.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml


class SettingsError(ValueError):
    """A config that cannot be used; the message has a line for every fault."""


def load(cls: type, path: Path, overrides: Sequence[str] = ()) -> Any:
    """Read settings from a YAML file and apply overrides.

    Args:
      cls: the dataclass at the root.
      path: a YAML file; `extends: other.yaml` starts from another one beside it.
      overrides: "--section.field=value" or "section.field=value", values in YAML.

    Raises:
      SettingsError: what cannot be read, is unknown, ill-typed or does not fit.
    """
    values = _read(path)
    for override in overrides:
        dotted, equals, text = override.removeprefix("--").partition("=")
        if not equals:
            raise SettingsError(f"{override}: expected --section.field=value")
        _assign(values, dotted.split("."), yaml.safe_load(text) if text else "")
    return from_dict(cls, values)


def from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """Build settings from nested dicts.

    Raises:
      SettingsError: naming every unknown or ill-typed field.
    """
    faults: list[str] = []
    made = _build(cls, values, "", faults)
    if faults:
        raise SettingsError("\n".join(faults))
    return made


def to_dict(settings: Any) -> dict[str, Any]:
    """Nested dicts of plain values; `from_dict` of them gives equal settings."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


def to_yaml(settings: Any) -> str:
    """YAML of all fields, defaults included."""
    return yaml.safe_dump(to_dict(settings), sort_keys=False)


def help_text(cls: type) -> str:
    """A line for every field: dotted path, type, default, help."""
    rows = [
        (f"--{path}", _type_name(kind), default, text)
        for path, kind, default, text in fields(cls)
    ]
    left = max(len(row[0]) for row in rows)
    return "\n".join(
        f"  {path:<{left}}  {text} ({kind}, default {default!r})"
        for path, kind, default, text in rows
    )


def fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Dotted path, type, default and help of every leaf field."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        kind, text = _unwrap(hints[field.name])
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind):
            yield from fields(kind, f"{path}.")
        else:
            yield path, kind, _default(field), text


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.yaml"))
        near = difflib.get_close_matches(path.name, others, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SettingsError(f"{path}: no such file{hint}")
    if path in seen:
        raise SettingsError(f"{path}: extends itself")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected sections, got {type(values).__name__}")
    if base := values.pop("extends", None):
        return _merge(_read(path.parent / base, (*seen, path)), values)
    return values


def _merge(base: dict, over: dict) -> dict:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def _assign(values: dict, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[keys[-1]] = value


def _build(cls: type, values: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping):
        faults.append(f"{path}: expected a section, got {values!r}")
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {field.name for field in dataclasses.fields(cls)}
    made, before = {}, len(faults)
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in known:
            faults.append(f"{where}: unknown field{_nearest(str(key), path, known)}")
            continue
        kind, _ = _unwrap(hints[key])
        if dataclasses.is_dataclass(kind):
            made[key] = _build(kind, value, where, faults)
        else:
            made[key] = _convert(kind, value, where, faults)
    if len(faults) > before:
        return None
    try:
        return cls(**made)
    except ValueError as error:
        prefix = f"{path}." if path else ""
        faults += [f"{prefix}{line}" for line in str(error).splitlines()]
        return None


def _convert(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    """`value` as `kind`, or a fault."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
        return _convert(kind, value, where, faults)
    if origin is Literal:
        if value in arguments:
            return value
        hint = difflib.get_close_matches(str(value), list(map(str, arguments)), n=1)
        also = f"; did you mean {hint[0]!r}?" if hint else ""
        choices = ", ".join(map(repr, arguments))
        faults.append(f"{where}={value!r}: expected one of {choices}{also}")
        return None
    if origin is dict:
        if isinstance(value, Mapping) and all(_scalar(item) for item in value.values()):
            return {str(key): _number(item) for key, item in value.items()}
    elif origin in (tuple, list):
        if isinstance(value, list | tuple):
            return origin(_convert(arguments[0], v, where, faults) for v in value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is float:
        value = _number(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind is int:
        number = _number(value)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    elif kind is str and isinstance(value, str | int | float) and value is not True:
        return str(value)
    faults.append(f"{where}={value!r}: expected {_type_name(kind)}")
    return None


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; nobody who writes it means text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _unwrap(hint: Any) -> tuple[Any, str]:
    if get_origin(hint) is typing.Annotated:
        kind, text, *_ = get_args(hint)
        return kind, text
    return hint, ""


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and get_origin(kind) is None:
        return {
            "int": "integer",
            "float": "number",
            "str": "text",
            "bool": "true or false",
        }.get(kind.__name__, kind.__name__)
    return str(kind).replace("typing.", "")


def _nearest(key: str, path: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    prefix = f"{path}." if path else ""
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    return f"; expected one of {', '.join(sorted(known))}"
