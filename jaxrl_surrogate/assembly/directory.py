"""The run directory: its path, its stored config, and whether a config fits it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxrl_surrogate import settings
from jaxrl_surrogate.assembly.continuation import role
from jaxrl_surrogate.assembly.stored_config import (
    config_text,
    load_stored,
    lost_config,
)
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError, FieldErrors
from jaxrl_surrogate.storage import lock
from jaxrl_surrogate.storage.state_reader import StateReader

Change = tuple[str, object, object]  # dotted path, old value, new value


def run_directory(config: TrainConfig) -> Path:
    """Return the path of the run directory: `run_dir` with {name} filled in."""
    return Path(config.run_dir.replace("{name}", config.name))


def check_directory(
    config: TrainConfig, changes: Sequence[Change] | None = None
) -> Path:
    """Return the run directory after checking that the config fits the run in it.

    A directory without a run always fits.

    Args:
      config: config to continue the run with.
      changes: result of `config_changes(config)`; None computes it here.

    Raises:
      FieldErrors: the path cannot be a directory, or the config changes a field that
        the stored results depend on (role "kept", see `continuation`).
      OtherFormat: another version of this package wrote the run.
    """
    directory = run_directory(config)
    changes = config_changes(config) if changes is None else changes
    StateReader(directory).check_format()
    refused = [
        FieldError(
            name,
            new,
            problem=f"{directory} was started with {old!r}",
            remedy=f"give it back, or start another run with {_elsewhere(config)}",
        )
        for name, old, new in changes
        if role(name) == "kept" or _changes_state(config, name, old, new)
    ]
    if refused:
        raise FieldErrors(refused)
    return directory


def check_continuation(
    config: TrainConfig, changes: Sequence[Change] | None = None
) -> Path:
    """Return the run directory after checking that this config can train in it.

    Args:
      config: config to continue the run with.
      changes: as for `check_directory`.

    Raises:
      FieldErrors: as `check_directory`; or the config changes how steps are computed
        (role "numbers") and the run has no step left to compute.
      OtherFormat: as `check_directory`.
    """
    changes = config_changes(config) if changes is None else changes
    directory = check_directory(config, changes)
    newest = max(StateReader(directory).steps(), default=0)
    changed = [row for row in changes if role(row[0]) == "numbers"]
    if changed and newest and config.train.steps <= newest:
        raise FieldErrors(
            FieldError(
                name,
                new,
                problem=f"{directory} has done {newest} steps with {old!r}, and no "
                "step is left for another value",
                remedy=f"start another run with {_elsewhere(config)}, or go on with "
                f"this one with --train.steps of more than {newest}",
            )
            for name, old, new in changed
        )
    return directory


def config_changes(config: TrainConfig) -> list[Change]:
    """Return the fields in which this config differs from the stored one.

    Returns:
      (dotted path, stored value, new value) of each field that differs, except
      `run_dir` and `name`; empty for a new run.

    Raises:
      FieldErrors: the path cannot be a directory, or its config cannot be read.
    """
    directory = run_directory(config)
    try:
        places = (directory, *directory.parents)
        fault = not next(place for place in places if place.exists()).is_dir()
    except OSError:  # such as a name that is too long or a folder without permission
        fault = True
    if fault:
        raise lock.no_place(directory, "it or a part of it is no folder")
    if (directory / "config.yaml").exists():
        stored = load_stored(directory)
    else:
        stored = lost_config(directory)
    if stored is None:
        return []
    changes = settings.difference(stored, config)
    return [change for change in changes if change[0] not in ("run_dir", "name")]


def open_directory(
    config: TrainConfig, changes: Sequence[Change] | None = None
) -> Path:
    """Create the run directory and store the config in it, unless it has a config.

    An existing run keeps its stored config here; `store_config` replaces it once the
    run has recorded the changes.

    Args:
      config: config to start or continue the run with.
      changes: as for `check_directory`.

    Returns:
      The path of the directory.

    Raises:
      FieldErrors: as `check_continuation`, or the directory cannot be written.
      OtherFormat: as `check_directory`.
    """
    directory = check_continuation(config, changes)
    if not (directory / "config.yaml").exists():
        store_config(config)
    return directory


def store_config(config: TrainConfig) -> None:
    """Write the config to config.yaml, from which the run is resumed later.

    Raises:
      FieldErrors: the file cannot be written.
    """
    directory = run_directory(config)
    # The file is replaced at once, so that a crash cannot leave half of it.
    temporary = directory / "config.yaml.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(config_text(config), encoding="utf-8")
        temporary.replace(directory / "config.yaml")
    except OSError as error:
        raise lock.no_place(directory, str(error)) from error


def _changes_state(config: TrainConfig, name: str, old: object, new: object) -> bool:
    """Return whether a change adds or removes a part of the optimizer's state."""
    momentum = name == "optimizer.b1" and config.optimizer.name == "sgd"
    return momentum and 0 in (old, new)


def _elsewhere(config: TrainConfig) -> str:
    """Return a command-line option that gives the run an unused directory."""
    field = "name" if "{name}" in config.run_dir else "run_dir"
    here = config.name if field == "name" else config.run_dir.rstrip("/")
    free = next(name for name in _numbered(here) if not _taken(config, field, name))
    return f"--{field}={free}"


def _numbered(name: str) -> Iterator[str]:
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _taken(config: TrainConfig, field: str, value: str) -> bool:
    text = config.run_dir.replace("{name}", value) if field == "name" else value
    return Path(text).exists()
