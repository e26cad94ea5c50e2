"""Typed settings: frozen dataclass trees from YAML and dotted overrides.

A field is `name: Annotated[type, "help"] = default`. All that is wrong with a config is
found and reported together, each line with the field's dotted path, before anything
expensive starts.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jaxrl_surrogate import yaml_text
from jaxrl_surrogate.typed_fields import nearest, same, type_name


class SettingsError(ValueError):
    """A config that cannot be used; the message has a line for every fault."""


def load(
    cls: type,
    path: Path,
    overrides: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Read settings from a YAML file and apply overrides.

    Args:
      cls: the dataclass at the root; every field has a default.
      path: a YAML file; `extends: other.yaml` starts from another one beside it.
        Sections and options merge; options given as null are emptied.
      overrides: command-line arguments, `--section.field=value` or
        `--section.field value`.
        The last one for a field counts.
      defaults: values for what the file leaves out.

    Raises:
      SettingsError: what cannot be read, is unknown, ill-typed or does not fit.
    """
    values = _merge(dict(defaults or {}), _read(path))
    faults: list[str] = []
    kinds = {where: kind for where, kind, _, _ in fields(cls)}
    for where, text in _pairs(overrides, faults):
        _override(values, where, text, kinds, faults)
    return _made(cls(), values, "", faults)


def from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """Build settings from nested dicts; what they leave out has its default.

    Raises:
      SettingsError: naming every unknown or ill-typed field.
    """
    return _made(cls(), values, "", [])


def updated(settings: Any, values: Mapping[str, Any], path: str = "") -> Any:
    """Settings, or any dataclass of typed fields, with some values replaced.

    Args:
      settings: what to start from.
      values: nested dicts.
      path: the dotted path that errors put in front of a field.

    Raises:
      SettingsError: naming every unknown or ill-typed field.
    """
    return _made(settings, values, path, [])


def to_dict(settings: Any) -> dict[str, Any]:
    """Nested dicts of plain values; `from_dict` of them gives equal settings."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
    }


def to_yaml(settings: Any) -> str:
    """YAML of all fields, defaults included."""
    return yaml_text.dump(to_dict(settings))


def difference(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Dotted path, old value and new value of all that differs.

    An option that one of the two lacks is None there.
    """
    before, after = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    return [
        (path, before.get(path), after.get(path))
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]


def help_text(cls: type) -> str:
    """A line for every field: dotted path, help, type, default."""
    rows = list(fields(cls))
    left = max(len(path) for path, *_ in rows)
    return "\n".join(
        f"  --{path:<{left}}  {text} ({type_name(kind)}, default {_shown(default)})"
        for path, kind, default, text in rows
    )


def fields(cls: type) -> Iterator[tuple[str, Any, Any, str]]:
    """Dotted path, type, default and help of every leaf field."""
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
    """The values of a file, laid over those of the file that it extends."""
    path = path.resolve() if below else path
    if path.resolve() in below:
        raise SettingsError(f"{path}: extends itself")
    try:
        values = yaml_text.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted(str(other) for other in path.parent.glob("*.yaml"))
        near = difflib.get_close_matches(str(path), others, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"{path}: no such file{hint}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected sections, got {values!r}")
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


def _pairs(argv: Sequence[str], faults: list[str]) -> Iterator[tuple[str, str]]:
    """Dotted paths and their texts, from `--path=text` and `--path text`."""
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        where, equals, text = word.removeprefix("--").partition("=")
        if not equals and word.startswith("--") and rest and rest[0][:2] != "--":
            text, equals = rest.pop(0), "="
        if equals:
            yield where, text
        else:
            faults.append(f"{word}: expected --section.field=value")


def _override(
    values: dict, where: str, text: str, kinds: Mapping[str, Any], faults: list[str]
) -> None:
    """Put the value that `text` stands for at a dotted path."""
    if any(path.startswith(f"{where}.") for path in kinds):
        faults.append(f"{where}: is a section; expected --{where}.field=value")
        return
    try:
        value = text if _is_text(kinds.get(where), text) else yaml_text.load(text)
    except ValueError as error:
        faults.append(f"{where}={text!r}: cannot be read: {error}")
        return
    *sections, key = where.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[key] = value


def _is_text(kind: Any, text: str) -> bool:
    """Whether a word of the command line is meant as it stands, not as YAML."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return str in get_args(kind) and text not in ("null", "~", "")
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind is str


def _made(base: Any, values: Mapping, path: str, faults: list[str]) -> Any:
    paths = [where for where, *_ in _leaves(base, "")] if not path else []
    made = _build(base, values, path, paths, faults)
    if faults:
        raise SettingsError("\n".join(faults))
    return made


def _build(
    base: Any, values: Any, path: str, paths: Sequence[str], faults: list[str]
) -> Any:
    """`base` with `values`, or None and faults. `paths` are all fields there are."""
    if values is None:  # a section of which every line is a comment
        values = {}
    if not isinstance(values, Mapping):
        faults.append(f"{path}: expected a section, got {values!r}")
        return None
    hints = typing.get_type_hints(type(base), include_extras=True)
    known = [field.name for field in dataclasses.fields(base)]
    made, before = {}, len(faults)
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in known:
            faults.append(f"{where}: unknown field; {_meant(where, known, paths)}")
        elif dataclasses.is_dataclass(getattr(base, key)):
            made[key] = _build(getattr(base, key), value, where, paths, faults)
        else:
            kind, *_ = _unwrap(hints[key], None)
            made[key] = _convert(kind, value, where, faults)
    if len(faults) > before:
        return None
    try:
        return dataclasses.replace(base, **made)
    except ValueError as error:
        prefix = f"{path}." if path else ""
        faults += [f"{prefix}{line}" for line in str(error).splitlines()]
        return None


def _meant(where: str, known: Sequence[str], paths: Sequence[str]) -> str:
    """What an unknown field may stand for: one near by, or one of another section."""
    section, dot, key = where.rpartition(".")
    elsewhere = [path for path in paths if path.rpartition(".")[2] == key]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return nearest(where, [f"{section}{dot}{name}" for name in known])


def _convert(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    """`value` as `kind`, or a fault."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
        return _convert(kind, value, where, faults)
    if origin is Literal:
        if any(value is choice or same(value, choice) for choice in arguments):
            return value
        hint = nearest(str(value), list(map(str, arguments)))
        also = f"; {hint}" if hint.startswith("did") else ""
        faults.append(f"{where}={value!r}: expected {type_name(kind)}{also}")
        return None
    if origin is dict:
        if value is None:
            return {}
        if isinstance(value, Mapping) and all(map(_scalar, value.values())):
            return {str(key): item for key, item in value.items()}
    elif origin in (tuple, list):
        if isinstance(value, list | tuple):
            items = enumerate(value)
            return origin(
                _convert(arguments[0], item, f"{where}[{i}]", faults)
                for i, item in items
            )
    elif kind in (int, float):
        number = _number(value)
        if kind is int and isinstance(number, float) and number.is_integer():
            number = int(number)  # 1e3 steps
        if isinstance(number, int if kind is int else int | float):
            return kind(number)
    elif isinstance(value, kind):
        return value
    quote = "; put it in quotes" if kind is str and value is not None else ""
    faults.append(f"{where}={value!r}: expected {type_name(kind)}{quote}")
    return None


def _number(value: Any) -> int | float | None:
    """A number that is one, also from quoted text; None for everything else."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return _number(kind(value))
            except ValueError:
                continue
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return value if usable and not math.isnan(value) else None


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _shown(value: Any) -> str:
    """A default as one would write it in YAML."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _flat(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
