"""The order of the layers, read from the imports: each knows only layers before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxrl_surrogate"
LAYERS = (
    "objectives", "losses", "models", "tasks", "parallel", "rollout", "training",
    "storage", "telemetry", "loop", "lab",
)  # fmt: skip
# What every layer may import; each of these imports only those before it.
OPEN = ("errors", "resolve", "rng", "batch", "terminal", "typed_fields")
# What meets the user, from the ground up; `lab` and the layers below know none of it.
# A command of the program that needs a run's config lives in `commands`.
TOP = (
    "yaml_text", "settings", "config", "faults", "assembly", "commands", "output",
    "cli", "__main__",
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def _layer(path):
    """The layer of a file; "" for the package's own __init__."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def _imported(path):
    """Top-level modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *inner = name.split(".")
            if package == PACKAGE.name and inner:
                yield inner[0], node.lineno


def _allowed(layer):
    if layer in OPEN:
        return {*OPEN[: OPEN.index(layer) + 1]}
    if layer in LAYERS:
        return {*OPEN, *LAYERS[: LAYERS.index(layer) + 1]}
    if layer in TOP:
        return {*OPEN, *LAYERS, *TOP[: TOP.index(layer) + 1], "__version__"}
    return {"objectives"}  # the package itself


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    layer = _layer(path)
    assert layer in {"", *OPEN, *LAYERS, *TOP}, f"{layer}: give it a place in the order"
    for imported, line in _imported(path):
        assert imported in _allowed(layer), f"{path}:{line}: {layer} imports {imported}"


def test_objectives_are_mathematics_alone():
    for path in (PACKAGE / "objectives").rglob("*.py"):
        assert {layer for layer, _ in _imported(path)} <= {"errors", "objectives"}, path


def test_only_assembly_and_the_program_know_config_and_rooms():
    known = {_layer(path) for path in FILES if "config" in dict(_imported(path))}
    assert known <= {"assembly", "commands", "cli", "faults"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
