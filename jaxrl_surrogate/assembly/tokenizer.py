"""Builds the tokenizer of a run; `bpe:SIZE` is trained on the task's training texts.

The trained tokenizer.json has its SHA-256 in a file beside it, in the format of
`sha256sum`, because the stored parameters are useless with any other tokenizer.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxrl_surrogate import tasks
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.tasks import Task, Tokenizer


def build_tokenizer(
    name: str, task: Task, directory: Path, own: Callable[[], object] | None = None
) -> Tokenizer:
    """Return a tokenizer by name; train it if the run's own is missing.

    Args:
      name: value of `task.tokenizer`.
      task: task whose training texts a `bpe:SIZE` tokenizer is trained on.
      directory: run directory, where a trained tokenizer is stored as tokenizer.json.
      own: acquires the lock of the run directory. The first host calls it and trains
        a missing tokenizer, while the other hosts wait. None: this process only reads,
        and writes nothing.

    Raises:
      FieldError: the name is unknown, a process that only reads finds no stored
        tokenizer, the stored one is damaged, or the training texts have changed.
    """
    if not name.startswith("bpe:"):
        return tasks.tokenizers.get(name)
    size = name.removeprefix("bpe:")
    if not size.isdecimal() or int(size) < 257:
        raise FieldError("tokenizer", name, "bpe:SIZE with SIZE at least 257")
    path = directory / "tokenizer.json"
    if own is None and not path.exists():
        raise FieldError(
            "tokenizer",
            name,
            problem=f"there is no {path}, where the run keeps it",
            remedy="put it back, or let `jaxrl train` make it again",
        )
    # All hosts decide together: a late host could find the file and skip the wait.
    if own is not None and hosts.any_of(not path.exists()):
        if hosts.is_first():
            own()
            if not path.exists():  # the previous holder of the lock may have trained it
                _train(name, task, int(size), path)
        hosts.wait_for_all("tokenizer")
    if _stored_digest(path) != _digest(path):
        raise FieldError(
            "tokenizer",
            name,
            problem=f"{path} or {_beside(path)} is damaged. Remove {path} to have "
            "`jaxrl train` make it again from the same texts",
        )
    return tasks.tokenizers.get(str(path))


def _train(name: str, task: Task, size: int, path: Path) -> None:
    """Train and store the tokenizer; equal texts give an equal file, byte for byte."""
    fresh = path.with_name("tokenizer.fresh.json")
    tasks.tokenizers.train_bpe(_texts(task), size, fresh)
    before = _stored_digest(path)
    if before is None:  # written first: a tokenizer without a digest is not trusted
        _beside(path).write_text(f"{_digest(fresh)}  {path.name}\n", encoding="utf-8")
    elif before != _digest(fresh):
        fresh.unlink()
        raise FieldError(
            "tokenizer",
            name,
            problem=f"the texts give another {path} than the run was started with, "
            f"whose digest is in {_beside(path)}. Put that file back",
            remedy=f"or, if it is the digest that is damaged, remove {_beside(path)} "
            "to go on",
        )
    fresh.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stored_digest(path: Path) -> str | None:
    """Return the digest stored beside a file; None if it is missing or malformed."""
    try:
        words = _beside(path).read_bytes().decode("ascii").split()
    except (OSError, ValueError):
        return None
    return words[0] if words and len(words[0]) == 64 else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _texts(task: Task) -> Iterator[str]:
    for index in range(min(len(task.train), 20_000)):
        problem = task.train[index]
        yield problem.prompt + (problem.completion or "")
