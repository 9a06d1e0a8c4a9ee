"""Archives of checkpoints: links that work for a while, and a tar.gz that is written while it is sent."""

from __future__ import annotations

import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

import attrs

from tinkex.local.problems import Problem

__all__ = ["ArchiveLinks", "tar_gz"]

_CHUNK = 1 << 18
_COMPLETE = "checkpoint_complete"
_MOST_LINKS = 1000
# A gzip stream with no name and no time in its header, so that the same files make the same bytes.
_GZIP_WINDOW = 31


@attrs.frozen(kw_only=True, slots=True)
class _Link:
    files: tuple[Path, ...]
    expires: datetime


class ArchiveLinks:
    """Random names under which an archive can be fetched without a key, once, for a limited time.

    Used from the HTTP thread only.
    """

    def __init__(self, lifetime_s: float, now: Callable[[], datetime]) -> None:
        """Start empty."""
        self._lifetime_s = lifetime_s
        self._now = now
        self._links: dict[str, _Link] = {}

    def make(self, files: Sequence[Path]) -> tuple[str, datetime]:
        """Return a new name for these files, and until when it works."""
        self._drop_old()
        token = secrets.token_urlsafe(32)
        link = _Link(files=tuple(files), expires=self._now() + timedelta(seconds=self._lifetime_s))
        self._links[token] = link
        return token, link.expires

    def files(self, token: str) -> tuple[Path, ...]:
        """Return the files behind a name.

        Raises:
            Problem: 404, the name is unknown, was used or is too old.
        """
        self._drop_old()
        link = self._links.get(token)
        if link is None:
            raise Problem(404, "this download link is unknown, was used or has expired; ask for the archive again")
        return link.files

    def used(self, token: str) -> None:
        """Make a name unknown; called when all bytes were sent, so that a broken download can be repeated."""
        self._links.pop(token, None)

    def _drop_old(self) -> None:
        now = self._now()
        live = [(token, link) for token, link in self._links.items() if link.expires > now]
        self._links = dict(live[-_MOST_LINKS:])


def tar_gz(files: Sequence[Path]) -> Iterator[bytes]:
    """Write files and an empty ``checkpoint_complete`` as a tar.gz, piece by piece.

    The same files give the same bytes: names are sorted, and times, owners and modes are fixed.
    """
    packer = zlib.compressobj(wbits=_GZIP_WINDOW)
    for piece in _tar(files):
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()


def _tar(files: Sequence[Path]) -> Iterator[bytes]:
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as stream:
            size = path.stat().st_size
            yield _header(path.name, size)
            yield from _pieces(stream)
            yield bytes(-size % tarfile.BLOCKSIZE)
    yield _header(_COMPLETE, 0)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_CHUNK):
        yield piece


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf()
