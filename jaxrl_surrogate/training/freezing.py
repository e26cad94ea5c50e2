"""Which parameters the optimizer moves and which stay as they are, by their paths.

A path names a parameter in the nested dict of a model: "layers/mlp/up/kernel".
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_surrogate.errors import FieldError

Tree = dict[str, Any]  # nested dicts; everything that is no dict is a leaf
IsFrozen = Callable[[str], bool]  # of a parameter's path


def none_frozen(path: str) -> bool:
    """The rule under which every parameter is trained."""
    del path
    return False


def split(params: Tree, is_frozen: IsFrozen) -> tuple[Tree, Tree]:
    """Split a tree of parameters, or of anything that belongs to them.

    Args:
      params: nested dict; its leaves may be arrays, shapes, shardings or logical axes.
      is_frozen: of a path.

    Returns:
      The trainable and the frozen leaves, each under the path that it had. Dicts that
      nothing is left of are left out.
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
    """The tree that `split` took apart: what a forward pass needs.

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
    """The paths of all parameters, in the order of the dicts."""
    found = []

    def note(path):
        found.append(path)
        return False

    split(params, note)
    return found


def freeze(patterns: Sequence[str], params: Tree) -> IsFrozen:
    """The rule that freezes every parameter whose path a pattern is found in.

    Args:
      patterns: regular expressions, searched for anywhere in a path; none: nothing is
        frozen.
      params: the model's parameters, or a tree of their shapes.

    Raises:
      FieldError: of `freeze`. A pattern is no regular expression or is found in no
        path, or together they leave nothing to train.
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
