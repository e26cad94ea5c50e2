"""Split parameters by their paths into trainable and frozen ones.

A path names a parameter in the nested dict of a model: "layers/mlp/up/kernel".
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_surrogate.errors import FieldError

Tree = dict[str, Any]  # nested dicts; every value that is not a dict is a leaf
IsFrozen = Callable[[str], bool]  # from a parameter's path to whether it is frozen


def none_frozen(path: str) -> bool:
    """Return False for every path, so that every parameter is trained."""
    del path
    return False


def split(params: Tree, is_frozen: IsFrozen) -> tuple[Tree, Tree]:
    """Split a tree with one leaf per parameter into its trainable and frozen parts.

    Args:
      params: nested dict; its leaves may be arrays, shapes, shardings or logical axes.
      is_frozen: whether the parameter of a path is frozen.

    Returns:
      Two nested dicts with the trainable and the frozen leaves, each under its original
      path. Dicts that become empty are left out.
    """
    trainable, frozen = {}, {}

    def walk(node, prefix, parts):
        for name, child in node.items():
            path = f"{prefix}{name}"
            if isinstance(child, dict):
                inner = {}, {}
                walk(child, f"{path}/", inner)
                for part, found in zip(parts, inner, strict=True):
                    if found:
                        part[name] = found
            else:
                parts[bool(is_frozen(path))][name] = child

    walk(params, "", (trainable, frozen))
    return trainable, frozen


def merge(trainable: Tree, frozen: Tree) -> Tree:
    """Return the tree of all parameters, the inverse of `split`.

    Raises:
      ValueError: both parts have a leaf under one path.
    """
    merged = dict(trainable)
    for name, child in frozen.items():
        if name not in merged:
            merged[name] = child
        elif isinstance(child, dict) and isinstance(merged[name], dict):
            merged[name] = merge(merged[name], child)
        else:
            raise ValueError(f"{name}: is both trainable and frozen; expected one")
    return merged


def leaf_paths(params: Tree) -> list[str]:
    """Return the paths of all parameters, in the order of the dicts."""
    found = []

    def note(path):
        found.append(path)
        return False

    split(params, note)
    return found


def freeze(patterns: Sequence[str], params: Tree) -> IsFrozen:
    """Return the rule that freezes every parameter whose path matches a pattern.

    Args:
      patterns: regular expressions, searched for anywhere in a path. An empty sequence
        freezes nothing.
      params: the model's parameters, or a tree of their shapes.

    Returns:
      A function from a path to whether its parameter is frozen.

    Raises:
      FieldError: for the field `freeze`; a pattern is not a regular expression or
        matches no path, or the patterns together match every path.
    """
    paths = leaf_paths(params)
    known = f"the parameters are {', '.join(paths)}"
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise FieldError(
                "freeze", pattern, "a regular expression", problem=str(error)
            ) from error
        if not found:
            raise FieldError(
                "freeze",
                pattern,
                "a regular expression that is found in the path of a parameter",
                known,
                problem="matches no parameter",
            )

    def is_frozen(path):
        return any(re.search(pattern, path) for pattern in patterns)

    if all(map(is_frozen, paths)):
        raise FieldError(
            "freeze",
            list(patterns),
            "to leave some parameters to train",
            known,
            problem="matches every parameter",
        )
    return is_frozen
