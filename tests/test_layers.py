"""The order of the layers, read from the imports: each knows only layers before it."""

import ast
from pathlib import Path

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
    "yaml_text", "settings", "config", "assembly", "commands", "output",
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


def test_imports_go_one_way():
    backward = []
    for path in FILES:
        layer = _layer(path)
        assert layer in {"", *OPEN, *LAYERS, *TOP}, f"{path}: give {layer} a place"
        backward += [
            f"{path.relative_to(PACKAGE)}:{line}: {layer} imports {imported}"
            for imported, line in _imported(path)
            if imported not in _allowed(layer)
        ]
    assert not backward, "\n".join(backward)


def test_objectives_are_mathematics_alone():
    for path in (PACKAGE / "objectives").rglob("*.py"):
        assert {layer for layer, _ in _imported(path)} <= {"errors", "objectives"}, path


def test_only_assembly_and_the_program_know_config_and_layers():
    known = {_layer(path) for path in FILES if "config" in dict(_imported(path))}
    assert known <= {"assembly", "commands", "cli"}


def test_files_stay_small():
    lengths = {
        str(path.relative_to(PACKAGE)): len(
            path.read_text(encoding="utf-8").splitlines()
        )
        for path in FILES
    }
    assert not {name: length for name, length in lengths.items() if length > 400}


def _module(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(node):
    """Import statements below a node, in functions too, but for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for part in child.orelse for found in _imports(part))
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from _imports(child)


def _graph():
    """Every file of the package, and the files that it imports from.

    A name taken from a package is an edge to its __init__, a submodule one to that
    file alone: that Python runs the __init__ of a package first is no edge.
    """
    modules = {_module(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        edges = set()
        for node in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                edges |= {alias.name for alias in node.names}
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                edges.add(inner if inner in modules else node.module)
        graph[module] = edges & modules.keys()
    return graph


def _circle(graph):
    """Files that import each other in a circle, the first one at both ends; or None."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        path.append(module)
        found = next(filter(None, map(visit, sorted(graph[module]))), None)
        path.pop()
        done.add(module)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


def test_no_file_imports_itself_through_others():
    graph = _graph()
    assert "jaxrl_surrogate.tasks.task" in graph["jaxrl_surrogate.tasks.judging"]
    assert _circle(graph) is None
    # The search finds one that is closed by hand.
    graph["jaxrl_surrogate.tasks.task"].add("jaxrl_surrogate.tasks.verification")
    assert {"jaxrl_surrogate.tasks.task"} < {*_circle(graph)}
