"""Manifests: a digest of every file of a checkpoint, to find files that are damaged.

The manifest STEP.files.json lies beside the checkpoint's directory. A background thread
writes it atomically once the checkpoint is complete. A process that is killed before
this leaves a checkpoint without a manifest. Its arrays are still checked against the
digests stored with them (`checkpoint`), but an error cannot name the damaged file.
"""

import hashlib
import json
import os
import threading
from pathlib import Path

_PIECE = 1 << 20


def manifest_path(checkpoint: Path) -> Path:
    """Return the path of the manifest of a checkpoint's directory."""
    return checkpoint.with_name(f"{checkpoint.name}.files.json")


def write_manifest(checkpoint: Path) -> None:
    """Hash every file of a checkpoint's directory and write the manifest atomically."""
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
    """Return a message for each file of a checkpoint that is missing or damaged.

    The list is empty for a checkpoint without a manifest. If the manifest itself is
    damaged, the only message says so.
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
        """Write the manifest in the background, once the directory exists."""
        self.finish()
        self._given_up.clear()
        self._thread = threading.Thread(
            target=self._run, args=(checkpoint,), name="manifest", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Wait until the manifest is written; its checkpoint's save must have ended."""
        if self._thread is not None:
            # If the directory does not exist now, its save failed: stop waiting for it.
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
