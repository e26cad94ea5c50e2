"""The config in a run directory, with a digest of itself in its last line.

A byte that changed may leave YAML that means something else. Where the line is not that
of the text above, the file is refused; who edits it takes the line out.
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
    """The config that a run directory holds.

    Args:
      directory: of the run; it has a config.yaml.
      overrides: see `settings.load`.

    Raises:
      FieldErrors: it is damaged, or see `settings.load`.
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
    """The config of the newest stored state, for a run whose config.yaml is gone.

    None where no state has one.
    """
    stored = StateReader(directory).newest_meta().get("config")
    return stored and settings.from_dict(TrainConfig, stored)


def config_text(config: TrainConfig) -> str:
    """What `load_stored` reads."""
    text = settings.to_yaml(config)
    return text + (_SEAL + _digest(text.encode()) + b"\n").decode()


def _is_complete(content: bytes) -> bool:
    """Whether a file that the line was taken out of has all fields, as stored."""
    try:
        values = yaml_text.load(content.decode("utf-8"))
        for path, *_ in settings.fields(TrainConfig):
            functools.reduce(operator.getitem, path.split("."), values)
    except (ValueError, KeyError, TypeError):
        return False
    return content.endswith(b"\n")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
