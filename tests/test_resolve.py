"""resolve: objects of files and modules by name, and errors that say what was found."""

import pickle
import subprocess
import sys

import pytest

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.resolve import (
    absolute,
    resolve,
    source_digest,
    source_file,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


def _write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_and_modules(folder):
    path = _write(folder, "inner/resolved_file.py", "from beside import ten\nx = ten\n")
    _write(folder, "inner/beside.py", "ten = 10\n")
    _write(folder, "resolved_package/rules.py", "def double(x):\n    return 2 * x\n")
    for spec in ("inner/resolved_file.py:x", f"{path}:x"):
        assert resolve(spec) == 10
        assert source_file(spec) == path
    assert resolve("resolved_package.rules:double")(4) == 8
    assert resolve("math:pi") > 3 and source_file("sys:path") is None
    assert absolute("inner/resolved_file.py:x") == f"{path}:x"
    assert absolute("json:dumps") == "json:dumps"
    once = source_digest(f"{path}:x")
    path.write_text("x = 11\n")
    assert source_digest(f"{path}:x") != once  # of the file, as it is now
    assert resolve(f"{path}:x") == 10  # imported once


def test_a_spawned_process_imports_the_same(folder):
    _write(folder, "resolved_class.py", "class Mine:\n    value = 3\n")
    made = pickle.dumps(resolve("resolved_class.py:Mine")())
    program = (
        "import pickle, sys; sys.path[:] = eval(sys.argv[1]); "
        "print(pickle.loads(bytes.fromhex(sys.argv[2])).value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, repr(sys.path), made.hex()],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3\n"


def test_a_folder_does_not_hide_libraries(folder):
    _write(folder, "resolved_last.py", "y = 1\n")
    resolve("resolved_last.py:y")
    assert sys.path[-1] == str(folder) and sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("reward", "expected module:attribute or file.py:attribute"),
        ("rewards.py:", "expected module:attribute"),
        (":x", "expected module:attribute"),
        ("rewards.py:a-b", "expected module:attribute"),
        ("folder/rewards:x", "folder/rewards is no Python file"),
        ("nowhere.py:x", r"there is no file .*nowhere\.py; Python files there: .*rew"),
        ("no_such_module:x", "no module 'no_such_module' can be imported from"),
        ("os.no_such:x", r"no module 'os\.no_such'"),
        ("my-rewards.py:x", "is no name of a module; rename my-rewards.py"),
        ("json.py:x", r"another module has that name: .*json.*; rename the file"),
        ("sys.py:x", "another module has that name: a part of Python; rename"),
        ("pydoc.py:x", r"another module has that name: .*pydoc.py; rename the file"),
        ("rewards.py:exact_mach", r"has no 'exact_mach'; it has other, exact_match; "
         r"did you mean exact_match\?"),
        ("broken_line.py:x", r"importing broken_line raised KeyError: 'k' "
         r"\(.*broken_line\.py:2\)"),
        ("broken_call.py:x", r"raised JSONDecodeError: .*broken_call\.py:3\)"),
        ("broken_form.py:x", r"importing broken_form failed: .*broken_form\.py:1\)"),
        ("broken_need.py:x", r"raised ModuleNotFoundError: No module named "
         r"'absent_library' \(.*broken_need\.py:1\)"),
        ("broken_exit.py:x", r"raised SystemExit: 3 \(.*broken_exit\.py:1\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_with_what_was_found(folder, spec, said):
    for name, text in {
        "rewards.py": "import os\n_hidden = other = 1\ndef exact_match(): pass\n",
        "my-rewards.py": "x = 1\n",
        "json.py": "x = 1\n",
        "sys.py": "x = 1\n",
        "pydoc.py": "x = 1\n",
        "broken_line.py": "x = 1\n{}['k']\n",
        "broken_call.py": "import json\nx = 1\njson.loads('{')\n",
        "broken_form.py": "def x(:\n",
        "broken_need.py": "import absent_library\n",
        "broken_exit.py": "raise SystemExit(3)\n",
    }.items():
        _write(folder, name, text)
    with pytest.raises(FieldError, match=said) as raised:
        resolve(spec, "task.name")
    assert str(raised.value).startswith(f"task.name={spec!r}: ")
    assert raised.value.value == spec
