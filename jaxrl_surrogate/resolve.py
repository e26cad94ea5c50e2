"""Import objects of the user's own code by name.

    resolve("rewards.py:exact_match")      # a file, relative to the working directory
    resolve("my_package.rewards:exact")    # a module that can be imported from there

A file is imported as the module of its stem, and its folder is appended to `sys.path`.
Spawned processes import it in the same way, so objects that it defines can be pickled.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxrl_surrogate.errors import FieldError, nearest


def is_file_spec(spec: str) -> bool:
    """Return whether a spec names a file, as in `folder/file.py:attribute`."""
    return spec.rpartition(":")[0].endswith(".py")


def absolute(spec: str) -> str:
    """Return a file's spec with an absolute path, and a module's spec unchanged.

    >>> absolute("package.module:attribute")
    'package.module:attribute'
    """
    if not is_file_spec(spec):
        return spec
    place, _, attribute = spec.rpartition(":")
    return f"{Path(place).expanduser().absolute()}:{attribute}"


def resolve(spec: str, field: str = "spec") -> Any:
    """Return the object that a spec names.

    A process imports a file or module once; later edits of the file have no effect in
    that process.

    Args:
      spec: `module:attribute`, where the module can be imported from the working
        directory, or `file.py:attribute`.
      field: the name of the field that holds the spec, for error messages.

    Raises:
      FieldError: the spec has another form, the file, module or attribute does not
        exist, the import fails (the message has file and line), or another module
        already has the name under which the file would be imported.

    Examples:
      >>> resolve("json:dumps")([1])
      '[1]'
    """
    try:
        module = _module(spec)
        attribute = spec.rpartition(":")[2]
        if not hasattr(module, attribute):
            raise _missing(spec, module, attribute)
    except FieldError as error:
        raise error.at(field) from error.__cause__
    return getattr(module, attribute)


def source_file(spec: str) -> Path | None:
    """Return the file of the module that a spec names, or None for a built-in module.

    Raises:
      FieldError: as `resolve`.
    """
    path = getattr(_module(spec), "__file__", None)
    return None if path is None else Path(path).absolute()


def source_digest(spec: str) -> str | None:
    """Return the SHA-256 of the `source_file` of a spec, or None if it has no file.

    The digest covers the current content of this file, but not of files it imports.

    Raises:
      FieldError: as `resolve`.
    """
    path = source_file(spec)
    if path is None or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line_that_raised(error: BaseException, file: str = "") -> str:
    """Return the place in the code that raised an error, as file:line.

    Args:
      error: the error, with its traceback.
      file: the end of a path. The result is the innermost line of the traceback in a
        file whose path ends so, or the innermost line of all if there is no such file.
    """
    lines = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [place for place in lines if place[0].endswith(file)]
    return ":".join(map(str, (own or lines)[-1]))


def _module(spec: str) -> ModuleType:
    place, colon, attribute = spec.rpartition(":")
    if not (colon and place and attribute.isidentifier()):
        raise FieldError(
            "spec", spec, "module:attribute or file.py:attribute, such as my.py:MyTask"
        )
    if is_file_spec(spec):
        return _file_module(spec, Path(place).expanduser().absolute())
    if "/" in place:
        raise FieldError(
            "spec", spec, "file.py:attribute", problem=f"{place} is no Python file"
        )
    _append_to_path(os.getcwd())
    return _import(spec, place)


def _file_module(spec: str, path: Path) -> ModuleType:
    """Import a file as the module of its stem, unless another module has that name."""
    if not path.is_file():
        files = ", ".join(str(other) for other in sorted(path.parent.glob("*.py"))[:8])
        remedy = f"Python files there: {files}" if files else ""
        raise FieldError(
            "spec", spec, problem=f"there is no file {path}", remedy=remedy
        )
    name = path.stem
    if not name.isidentifier():
        raise FieldError(
            "spec",
            spec,
            problem=f"{name!r} is no name of a module",
            remedy=f"rename {path.name} to letters, digits and _",
        )
    _append_to_path(str(path.parent))
    other = _file_of(name)
    if other is None or not os.path.exists(other) or not os.path.samefile(other, path):
        raise FieldError(
            "spec",
            spec,
            problem=f"{path.name} would be imported as {name!r}, and another module "
            f"has that name: {other or 'a part of Python'}",
            remedy="rename the file",
        )
    return _import(spec, name)


def _file_of(name: str) -> str | None:
    """Return the file from which a module of this name is or would be imported."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None)
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if found is None else found.origin


def _import(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise FieldError("spec", spec, problem=_raised(name, error)) from error
        raise FieldError(
            "spec",
            spec,
            problem=f"no module {error.name!r} can be imported from {os.getcwd()}",
            remedy="name a file with its ending, as my.py:attribute",
        ) from error
    except (Exception, SystemExit) as error:
        raise FieldError("spec", spec, problem=_raised(name, error)) from error


def _raised(name: str, error: BaseException) -> str:
    """Return a message with the error of an import and the line that raised it."""
    if isinstance(error, SyntaxError):
        return f"importing {name} failed: {error.msg} ({error.filename}:{error.lineno})"
    where = line_that_raised(error, f"{os.sep}{name.replace('.', os.sep)}.py")
    return f"importing {name} raised {type(error).__name__}: {error} ({where})"


def _missing(spec: str, module: ModuleType, attribute: str) -> FieldError:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    shown = ", ".join(own[:12]) + ", ..." * (len(own) > 12)
    file = getattr(module, "__file__", None) or module.__name__
    return FieldError(
        "spec",
        spec,
        problem=f"{file} has no {attribute!r}; it has {shown or 'nothing public'}",
        remedy=nearest(attribute, own),
    )


def _append_to_path(folder: str) -> None:
    """Append a folder to `sys.path`, so that no user file shadows a library."""
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
