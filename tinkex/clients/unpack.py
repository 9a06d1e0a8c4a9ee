"""Files out of an archive that somebody else has made, and nothing but files."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path
from typing import IO

from tinkex.errors import APIResponseValidationError

__all__ = ["safe_name", "unpack"]

_MOST_FILES = 10_000
_LARGEST_RATIO = 50
"""Weights hardly compress; an archive that unpacks to more than this many times its size is none of weights."""
_SPARE = 16 << 20
# Neither separators of other systems, nor drives, nor what a terminal would act on.
_PART = re.compile(r"[^\\:\x00-\x1f\x7f]+")


def safe_name(name: str) -> Path:
    """Return a name from elsewhere as a relative path that stays where it is put.

    Raises:
        APIResponseValidationError: It would lead out of the folder.
    """
    parts = [part for part in name.split("/") if part != "."]
    if name.startswith("/") or not parts or not all(_PART.fullmatch(part) and part != ".." for part in parts):
        raise APIResponseValidationError(f"the download names a file {name!r:.200}, which could lead out of the folder")
    return Path(*parts)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, compressed or not.

    Directories and plain files only: owners, times and modes are not taken over, and anything else is refused.

    Args:
        archive: The archive.
        folder: An empty folder.

    Raises:
        APIResponseValidationError: The archive is broken, holds a link, a device or a name that leads out of the
            folder, names a file twice, or is far larger unpacked than packed.
    """
    room = archive.stat().st_size * _LARGEST_RATIO + _SPARE
    try:
        with tarfile.open(archive, "r:*") as tar:
            for number, member in enumerate(tar):
                room -= member.size
                if number >= _MOST_FILES or room < 0:
                    raise APIResponseValidationError(
                        "the archive unpacks to far more than a checkpoint holds; it was left alone"
                    )
                _take(tar, member, folder)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise APIResponseValidationError(f"the archive cannot be unpacked: {error}") from error


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    if member.isdir() and member.name.strip("./") == "":
        return
    target = folder / safe_name(member.name.rstrip("/"))
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content: IO[bytes] | None = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise APIResponseValidationError(f"the archive holds {member.name!r:.200}, which is neither file nor folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
