"""Where a run lives, and what may continue it."""

from pathlib import Path

from jaxrl_surrogate import settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.settings import SettingsError

# Sections that decide what the numbers of a run mean: a resumed run keeps them.
_FIXED = ("seed", "task", "model", "rollout", "sft", "loss.normalization")


def run_directory(config: TrainConfig) -> Path:
    """Where a run lives."""
    return Path(config.run_dir.replace("{name}", config.name))


def check_directory(config: TrainConfig) -> Path:
    """The run directory, whose config, if it holds one, must be continued by this one.

    Raises:
      SettingsError: the directory holds a run whose results would not be continued.
    """
    directory = run_directory(config)
    path = directory / "config.yaml"
    if path.exists():
        stored = settings.load(TrainConfig, path)
        changed = [
            f"{name}={new!r}: {directory} was started with {old!r}; give it back, or "
            "choose another run_dir"
            for name, old, new in settings.difference(stored, config)
            if any(name == fixed or name.startswith(f"{fixed}.") for fixed in _FIXED)
        ]
        if changed:
            raise SettingsError("\n".join(changed))
    return directory


def config_changes(config: TrainConfig) -> list[tuple[str, object, object]]:
    """Path, old and new value of what a run is continued with; empty for a new run."""
    path = run_directory(config) / "config.yaml"
    if not path.exists():
        return []
    stored = settings.load(TrainConfig, path)
    changes = settings.difference(stored, config)
    return [change for change in changes if change[0] not in ("run_dir", "name")]


def open_directory(config: TrainConfig) -> Path:
    """Make the run directory and store the config in it.

    Raises:
      SettingsError: as `check_directory`, or it cannot be written.
    """
    directory = check_directory(config)
    # Whole or not at all: a run is resumed from this file.
    temporary = directory / "config.yaml.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(settings.to_yaml(config), encoding="utf-8")
        temporary.replace(directory / "config.yaml")
    except OSError as error:
        raise SettingsError(f"run_dir={config.run_dir!r}: {error}") from error
    return directory
