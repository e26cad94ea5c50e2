"""Reads and writes the config.yaml of a run directory, protected by a digest.

Its last line is the SHA-256 of the lines above, because a damaged file may still be
valid YAML with another meaning. A file that does not match its digest is refused; a
user who edits the file removes that line.
"""

import functools
import hashlib
import operator
from collections.abc import Sequence
from pathlib import Path

from jaxrl_surrogate import settings, yaml_text
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.storage.state_reader import StateReader

_SEAL = b"# sha256 of the lines above: "


def load_stored(directory: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the config that a run directory holds.

    Args:
      directory: run directory with a config.yaml.
      overrides: see `settings.load`.

    Raises:
      FieldErrors: the file cannot be read, is damaged or was edited without removing
        the digest; or as `settings.load`.
    """
    path = directory / "config.yaml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FieldError(str(path), problem=f"cannot be read: {error}") from error
    text, mark, seal = content.rpartition(_SEAL)
    remedy = (
        f"remove {path} to go on with the config file and options that the run was "
        "started with"
    )
    if mark and seal.strip() != _digest(text):
        raise FieldError(
            str(path),
            problem="is damaged, or was edited. If you edited it, take out its last "
            "line, a digest of the others",
            remedy=f"if not, {remedy}",
        )
    if not mark and (directory / "checkpoints").exists() and not _is_complete(content):
        raise FieldError(
            str(path),
            problem="has neither all fields nor a digest in its last line: it is "
            "damaged, or an earlier version wrote it. Read such a run with that "
            "version",
            remedy=f"if it is damaged, {remedy}",
        )
    return settings.load(TrainConfig, path, overrides)


def lost_config(directory: Path) -> TrainConfig | None:
    """Return the config in the newest stored state, for a run without config.yaml.

    It is None if the newest state holds no config, or there is no state.
    """
    stored = StateReader(directory).newest_meta().get("config")
    return stored and settings.from_dict(TrainConfig, stored)


def config_text(config: TrainConfig) -> str:
    """Return the text of config.yaml, with its digest, as `load_stored` reads it."""
    text = settings.to_yaml(config)
    return text + (_SEAL + _digest(text.encode()) + b"\n").decode()


def _is_complete(content: bytes) -> bool:
    """Return whether a file without a digest has all fields and a last newline."""
    try:
        values = yaml_text.load(content.decode("utf-8"))
        for path, *_ in settings.fields(TrainConfig):
            functools.reduce(operator.getitem, path.split("."), values)
    except (ValueError, KeyError, TypeError):
        return False
    return content.endswith(b"\n")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
