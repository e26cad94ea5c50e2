"""YAML in which 1e-4 is a number and a repeated key is an error."""

import re
from typing import Any

import yaml


def load(text: str) -> Any:
    """Read plain values from YAML text.

    PyYAML implements YAML 1.1, in which 1e-4 is text. Here it is a number, as in JSON
    and YAML 1.2. Text in quotes stays text.

    >>> load("rate: 1e-4")
    {'rate': 0.0001}

    Raises:
      ValueError: the text is not YAML, or a section holds a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"not YAML in line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def dump(values: Any) -> str:
    """Return YAML text of plain values; keys keep their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """The safe loader, with JSON's numbers and errors for repeated keys."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"{key.value} is given twice, again in line {line}")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes text that the loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )
