"""Public names are documented, and `__all__` says what there is."""

import ast
import importlib
import inspect
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "jaxrl_surrogate"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__main__"  # importing it runs the program
)


def _public(tree):
    """Definitions of a module that a reader may use, methods included."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name.startswith("_"):
                continue
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_":
                        yield f"{node.name}.{inner.name}", inner


def test_public_names_have_docstrings():
    missing = []
    for name in MODULES:
        path = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        empty = path.stem == "__init__" and not tree.body
        if not empty and not ast.get_docstring(tree):
            missing.append(name)
        missing += [
            f"{name}.{what}"
            for what, node in _public(tree)
            if not ast.get_docstring(node)
        ]
    assert not missing, f"no docstring: {', '.join(missing)}"


def test_what_is_exported_is_there_and_documented():
    bad = []
    for name in MODULES:
        module = importlib.import_module(name.removesuffix(".__init__"))
        exported = getattr(module, "__all__", ())
        if list(exported) != sorted(set(exported)):
            bad.append(f"{name}.__all__ is not sorted")
        for public in exported:
            thing = getattr(module, public, None)
            code = inspect.isclass(thing) or inspect.isfunction(thing)
            if not hasattr(module, public) or (code and not inspect.getdoc(thing)):
                bad.append(f"{name}.{public} is not there or has no docstring")
    assert not bad, "\n".join(bad)


def test_names_that_the_documentation_promises():
    from jaxrl_surrogate import objectives

    promised = (
        "WeightTable tabulate from_surrogate induced_surrogate group_advantages "
        "surrogates.get surrogates.names advantages.get advantages.names"
    )
    for name in promised.split():
        thing = objectives
        for part in name.split("."):
            thing = getattr(thing, part)
        assert callable(thing)
