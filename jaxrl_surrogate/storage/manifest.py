"""Are the files of a checkpoint those that were written? A digest of every file.

A manifest lies beside the checkpoint's directory, STEP.files.json, and is written last
and whole: by a background thread, once the directory has its name. A process killed
before that leaves a checkpoint without one; its arrays are still checked against the
digests stored with them (`checkpoint`), only the file at fault cannot be named then.
"""

import hashlib
import json
import os
import threading
from pathlib import Path

_PIECE = 1 << 20


def manifest_path(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint's directory lies."""
    return checkpoint.with_name(f"{checkpoint.name}.files.json")


def write_manifest(checkpoint: Path) -> None:
    """Hash every file of a directory; the manifest appears whole or not at all."""
    files = {
        str(path.relative_to(checkpoint)): [path.stat().st_size, _digest(path)]
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    body = json.dumps(files, indent=0, sort_keys=True)
    text = json.dumps({"sha256": _of_text(body), "files": files}, sort_keys=True)
    temporary = manifest_path(checkpoint).with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(manifest_path(checkpoint))


def file_faults(checkpoint: Path) -> list[str]:
    """What is wrong with the files of a checkpoint, each named; empty: nothing.

    A checkpoint without a manifest has no known fault; a manifest that is itself
    damaged is one, and says nothing of the files.
    """
    path = manifest_path(checkpoint)
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        files = stored["files"]
        whole = stored["sha256"] == _of_text(
            json.dumps(files, indent=0, sort_keys=True)
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        return [f"{path} is damaged"]
    faults = []
    for name, (size, digest) in files.items():
        file = checkpoint / name
        if not file.is_file():
            faults.append(f"{file} is missing")
        elif file.stat().st_size != size:
            faults.append(
                f"{file} has {file.stat().st_size} bytes, {size} were written"
            )
        elif _digest(file) != digest:
            faults.append(f"{file} holds other bytes than were written")
    return faults


class ManifestWriter:
    """Writes the manifest of one checkpoint at a time, in the background."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()

    def start(self, checkpoint: Path) -> None:
        """Write the manifest as soon as the directory has its name."""
        self.finish()
        self._given_up.clear()
        self._thread = threading.Thread(
            target=self._run, args=(checkpoint,), name="manifest", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Return when it is written; the save it belongs to must have ended."""
        if self._thread is not None:
            # A directory that is not there now never will be: its save failed.
            self._given_up.set()
            self._thread.join()
            self._thread = None

    def _run(self, checkpoint: Path) -> None:
        while not checkpoint.is_dir():
            if self._given_up.wait(0.02) and not checkpoint.is_dir():
                return
        try:
            write_manifest(checkpoint)
        except FileNotFoundError:
            return  # deleted meanwhile by the retention policy


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
