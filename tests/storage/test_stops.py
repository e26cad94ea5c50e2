"""A file that cannot grow, by whatever limit, is said with its directory."""

import os
import resource
import signal

import pytest

from jaxrl_surrogate.storage.stops import NoRoom, no_room, room_in


def test_a_full_disk_names_the_directory(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    said = rf"^{tmp_path}: No space left on device; .* Make room and start again"
    with (
        pytest.raises(NoRoom, match=said),
        room_in(tmp_path),
        open("/dev/full", "w") as full,
    ):
        full.write("x")


def test_a_limit_on_the_size_of_files_does_too(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(NoRoom, match=r"too large"), room_in(tmp_path):
            (tmp_path / "log").write_text("x" * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), room_in(tmp_path):
        (tmp_path / "none").read_text()
    assert no_room(ValueError("RESOURCE_EXHAUSTED: write failed")) is not None
    assert no_room(RuntimeError("x: Disk quota exceeded y")) == "Disk quota exceeded"
    assert no_room(RuntimeError("no quota of anything")) is None
