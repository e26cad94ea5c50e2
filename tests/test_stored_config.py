"""The config of a run: no byte of it changes unnoticed, and who edits it may."""

import numpy as np
import pytest

from jaxrl_surrogate import assembly, settings
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldErrors
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints


@pytest.fixture
def stored(tmp_path):
    """A config and the run directory that holds it, with a state."""
    config = TrainConfig(run_dir=str(tmp_path / "run"), seed=12)
    directory = assembly.open_directory(config)
    with RunCheckpoints(directory / "checkpoints") as store:
        meta = {"config": settings.to_dict(config)}
        store.save_update(3, {"x": np.zeros(2)}, meta)
    return config, directory


def test_any_byte_that_changed_is_noticed(stored, random):
    config, directory = stored
    path = directory / "config.yaml"
    content = path.read_bytes()
    assert assembly.load_stored(directory) == config
    for place in random.choice(len(content), 100, replace=False):
        bad = bytearray(content)
        bad[place] ^= 1 << random.integers(8)
        path.write_bytes(bad)
        try:
            assert assembly.load_stored(directory) == config  # the digest's own words
        except FieldErrors as error:
            assert f"{path}: " in str(error) and "is damaged, or" in str(error)
    for size in random.integers(0, len(content) - 1, 30):
        path.write_bytes(content[:size])
        try:
            assert assembly.load_stored(directory) == config
        except FieldErrors as error:
            assert f"remove {path} to go on" in str(error)


def test_who_edits_it_takes_its_last_line_out(stored):
    directory = stored[1]
    path = directory / "config.yaml"
    edited = path.read_text().replace("seed: 12", "seed: 13")
    path.write_text(edited)
    with pytest.raises(FieldErrors, match="take out its last line"):
        assembly.load_stored(directory)
    path.write_text("".join(edited.splitlines(keepends=True)[:-1]))
    assert assembly.load_stored(directory).seed == 13
    path.write_text("seed: 14")  # of which the most is gone
    with pytest.raises(FieldErrors, match="damaged"):
        assembly.load_stored(directory)


def test_an_earlier_version_is_named_where_a_field_is_missing(stored):
    directory = stored[1]
    path = directory / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines[:-1] if "verify_max_failures" not in line]
    assert len(kept) == len(lines) - 2
    path.write_text("".join(kept))
    with pytest.raises(FieldErrors, match="an earlier version wrote it"):
        assembly.load_stored(directory)


def test_where_it_is_gone_the_newest_state_knows_it(stored):
    config, directory = stored
    (directory / "config.yaml").unlink()
    assert assembly.check_directory(config) == directory
    other = TrainConfig(run_dir=config.run_dir, seed=13)
    with pytest.raises(FieldErrors, match=r"seed=13: .* was started with 12"):
        assembly.check_directory(other)
