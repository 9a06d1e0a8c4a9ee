"""A folder of this process inside the data folder: for saves in progress and for weights that have no name."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import uuid
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

__all__ = ["Scratch", "lock_file"]

_LOCK = "lock"
_SETTLED_S = 60.0


def lock_file(handle: IO[bytes]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process has it, or if there are no locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Scratch:
    """Folders that vanish when the server stops; what a killed process left is removed at the next start.

    It lies on the same file system as the checkpoints, so that files can be linked and renamed between them.
    """

    def __init__(self, root: Path) -> None:
        """Make the folder and lock it."""
        base = root / "scratch"
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        self.folder = base / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir()
        self._numbers = itertools.count()
        self._handle = (self.folder / _LOCK).open("wb")
        lock_file(self._handle)

    def new_folder(self, purpose: str) -> Path:
        """Make an empty folder."""
        folder = self.folder / f"{purpose}-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def copy(self, files: Iterable[Path], purpose: str) -> Path:
        """Make a folder with the same files; they are linked, not copied, where that is possible."""
        folder = self.new_folder(purpose)
        for path in files:
            try:
                os.link(path, folder / path.name)
            except OSError:
                shutil.copyfile(path, folder / path.name)
        return folder

    def close(self) -> None:
        """Remove everything."""
        self._handle.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove the folders whose process has ended, which is known by the lock it no longer holds."""
    for folder in base.iterdir():
        with contextlib.suppress(OSError), (folder / _LOCK).open("rb") as handle:
            # A process that is just starting may not have its lock yet.
            age_s = datetime.now(timezone.utc).timestamp() - os.fstat(handle.fileno()).st_mtime
            if age_s > _SETTLED_S and lock_file(handle):
                shutil.rmtree(folder, ignore_errors=True)
