"""Downloads: links that work for a while without a key, and a tar.gz that is written while it is sent."""

from __future__ import annotations

import hashlib
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

import attrs

from tinkex.local.problems import Problem

__all__ = ["Download", "DownloadLinks", "archive_of", "content_of", "file_of", "tar_gz"]

_CHUNK = 1 << 18
_COMPLETE = "checkpoint_complete"
_MOST_LINKS = 10_000
# A gzip stream with no name and no time in its header, so that the same files make the same bytes.
_GZIP_WINDOW = 31


@attrs.frozen(kw_only=True, slots=True)
class Download:
    """What a link leads to.

    Attributes:
        name: Name of the file that it becomes.
        media_type: Its media type.
        size: How many bytes it has.
        sha256: Its SHA-256 as hexadecimal digits, by which a client knows that it goes on with the same bytes.
        is_there: Tells whether it still exists.
        read: Gives its bytes from one position up to another, in pieces.
    """

    name: str
    media_type: str
    size: int
    sha256: str
    is_there: Callable[[], bool]
    read: Callable[[int, int], Iterator[bytes]]


@attrs.frozen(kw_only=True, slots=True)
class _Link:
    download: Download
    expires: datetime


class DownloadLinks:
    """Random names under which something can be fetched without a key, once, for a limited time.

    Used from the HTTP thread only.
    """

    def __init__(self, lifetime_s: float, now: Callable[[], datetime]) -> None:
        """Start empty."""
        self._lifetime_s = lifetime_s
        self._now = now
        self._links: dict[str, _Link] = {}

    def make(self, download: Download) -> tuple[str, datetime]:
        """Return a new name for a download, and until when it works."""
        self._drop_old()
        token = secrets.token_urlsafe(32)
        link = _Link(download=download, expires=self._now() + timedelta(seconds=self._lifetime_s))
        self._links[token] = link
        return token, link.expires

    def find(self, token: str) -> Download:
        """Return the download behind a name.

        Raises:
            Problem: 404, the name is unknown, was used or is too old, or what it leads to was deleted.
        """
        self._drop_old()
        link = self._links.get(token)
        if link is None:
            raise Problem(
                404,
                "this download link is unknown, was used or has expired; ask for the archive again, or for new links",
            )
        if not link.download.is_there():
            raise Problem(404, "the checkpoint behind this download link was deleted")
        return link.download

    def used(self, token: str) -> None:
        """Make a name unknown; called when the last byte was sent, so that a broken download can be resumed."""
        self._links.pop(token, None)

    def _drop_old(self) -> None:
        now = self._now()
        live = [(token, link) for token, link in self._links.items() if link.expires > now]
        self._links = dict(live[-_MOST_LINKS:])


def archive_of(files: Sequence[Path]) -> Download:
    """Offer files as one tar.gz. It is made anew for each reader; it is made once here, for its size and digest."""
    size, sha256 = _measure(tar_gz(files))
    return Download(
        name="checkpoint.tar.gz",
        media_type="application/gzip",
        size=size,
        sha256=sha256,
        is_there=lambda: all(path.is_file() for path in files),
        read=lambda start, stop: _cut(tar_gz(files), start, stop),
    )


def file_of(path: Path) -> Download:
    """Offer a file as it is."""

    def read(start: int, stop: int) -> Iterator[bytes]:
        with path.open("rb") as stream:
            stream.seek(start)
            yield from _pieces(stream, stop - start)

    size = path.stat().st_size
    return Download(
        name=path.name,
        media_type="application/octet-stream",
        size=size,
        sha256=_measure(read(0, size))[1],
        is_there=path.is_file,
        read=read,
    )


def content_of(name: str, media_type: str, content: bytes) -> Download:
    """Offer bytes that are held in memory."""
    return Download(
        name=name,
        media_type=media_type,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        is_there=lambda: True,
        read=lambda start, stop: iter((content[start:stop],)),
    )


def _measure(pieces: Iterator[bytes]) -> tuple[int, str]:
    """Return how many bytes there are, and their SHA-256."""
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


def _cut(pieces: Iterator[bytes], start: int, stop: int) -> Iterator[bytes]:
    """Give the bytes from one position up to another."""
    position = 0
    for piece in pieces:
        part = piece[max(0, start - position) : max(0, stop - position)]
        position += len(piece)
        if part:
            yield part


def tar_gz(files: Sequence[Path]) -> Iterator[bytes]:
    """Write files and an empty ``checkpoint_complete`` as a tar.gz, piece by piece.

    The same files give the same bytes: names are sorted, and times, owners and modes are fixed.
    """
    # Weights do not compress; trying would cost more time than sending them.
    packer = zlib.compressobj(level=0, wbits=_GZIP_WINDOW)
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
            yield from _pieces(stream, size)
            yield bytes(-size % tarfile.BLOCKSIZE)
    yield _header(_COMPLETE, 0)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _pieces(stream: IO[bytes], left: int) -> Iterator[bytes]:
    while piece := stream.read(min(_CHUNK, left)):
        left -= len(piece)
        yield piece


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf()
