"""A file from a link to the disk: resumed where it broke off, and checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import requests
import urllib3.exceptions

from tinkex.config import RetryPolicy
from tinkex.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    TinkexError,
    error_from_status,
)
from tinkex.http import retry
from tinkex.http._causes import explain

__all__ = ["Downloader", "sha256_of"]

_PIECE = 1 << 16
"""What is read at once; when a connection breaks, less than this is lost."""
_LINK_ENDED = frozenset({401, 403, 404, 410})
"""What servers of files answer for a link that has expired."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


@attrs.frozen(kw_only=True, slots=True)
class _Marks:
    """What a server says of a file, kept beside the part of it that is there.

    Attributes:
        tag: Names the bytes, for ``If-Range``; without one a download cannot be resumed.
        size: Bytes of the whole, if told.
        sha256: Hexadecimal digits, if told.
    """

    tag: str | None = None
    size: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int | None) -> _Marks:
        tag = headers.get("etag")
        strong = tag if tag and not tag.startswith("W/") else headers.get("last-modified")
        return cls(tag=strong, size=size, sha256=_read_digest(headers))

    @classmethod
    def load(cls, path: Path) -> _Marks:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()


def _read_digest(headers: Mapping[str, str]) -> str | None:
    """Find a SHA-256: ``Repr-Digest`` of RFC 9530, or what Amazon S3 sends."""
    told = _SHA256.search(headers.get("repr-digest", ""))
    text = told[1] if told else headers.get("x-amz-checksum-sha256", "")
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == hashlib.sha256().digest_size else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@attrs.frozen(kw_only=True, slots=True)
class Downloader:
    """Fetches files from links that need no credential.

    Attributes:
        retry: How often to go on after a break; the count begins anew whenever bytes have come.
        stop: Ends waits and downloads.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next bytes.
    """

    retry: RetryPolicy
    stop: threading.Event = attrs.field(factory=threading.Event)
    connect_timeout: float = 5.0
    read_timeout: float = 60.0

    def fetch(
        self,
        locate: Callable[[], str],
        target: Path,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Path:
        """Fetch a file; what is there of it from an earlier try, ``<target>.part``, is not fetched again.

        Args:
            locate: Returns a link to the file. Asked again when a link has expired.
            target: Where the file goes; it appears when it is complete and checked.
            progress: Called with the bytes that are there and those of the whole, if known, as they come.

        Returns:
            The target.

        Raises:
            APIConnectionError: The link broke too often; a later call goes on from there.
            APIStatusError: The server of the file refused.
            APIResponseValidationError: What came is not what the server announced; it was deleted.
            ClientClosedError: ``stop`` was set.
        """
        fetching = _Fetching(self, locate, target, progress or _ignore)
        while not retry.call(
            self.retry, fetching.attempt, stop=self.stop, operation=f"download {target.name}", retryable=_may_go_on
        ):
            pass
        fetching.check()
        fetching.part.replace(target)
        fetching.notes.unlink(missing_ok=True)
        return target


def _ignore(_done: int, _whole: int | None) -> None:
    pass


def _may_go_on(error: TinkexError) -> bool:
    return error.retryable


@attrs.define(slots=True)
class _Fetching:
    """One file on its way."""

    rules: Downloader
    locate: Callable[[], str]
    target: Path
    progress: Callable[[int, int | None], None]
    marks: _Marks = attrs.field(factory=_Marks)
    link: str | None = None

    def __attrs_post_init__(self) -> None:
        self.marks = _Marks.load(self.notes)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def notes(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def attempt(self, _: int) -> bool:
        """Fetch what is missing; False if some of it came, so that it is worth going on at once."""
        had = self._had()
        if had and had == self.marks.size:
            return True
        is_old = self.link is not None
        self.link = self.link or self.locate()
        try:
            self._receive(self.link, had)
        except APIStatusError as error:
            self.link = None
            if not is_old or error.status_code not in _LINK_ENDED:
                raise
            return False
        except APIConnectionError:
            if self._had() > had:
                return False
            raise
        return True

    def check(self) -> None:
        """Compare size and digest with what the server announced."""
        size, marks = self._had(), self.marks
        if marks.size not in (None, size):
            self._refuse(f"{size} bytes came, the server announced {marks.size}")
        if marks.sha256 not in (None, sha256_of(self.part)):
            self._refuse("its SHA-256 is not the one that the server announced")

    def _had(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, link: str, had: int) -> None:
        asked = {"Accept-Encoding": "identity"}
        if had and self.marks.tag:
            asked |= {"Range": f"bytes={had}-", "If-Range": self.marks.tag}
        origin, path = "://".join(urlsplit(link)[:2]), urlsplit(link).path
        context: dict[str, Any] = {"method": "GET", "path": path}
        timeout = self.rules.connect_timeout, self.rules.read_timeout
        try:
            with requests.Session() as session:
                session.auth = _no_credentials  # else requests looks for some in the user's netrc
                with session.get(link, headers=asked, stream=True, timeout=timeout) as reply:
                    self._store(reply, had if "Range" in asked else 0, context)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            connect_s, read_s = timeout
            # Not "from error", which has the whole link in it, signature and all.
            raise explain(error, base_url=origin, connect_timeout=connect_s, read_timeout=read_s, **context) from None

    def _store(self, reply: requests.Response, had: int, context: dict[str, Any]) -> None:
        if reply.status_code == 416:
            # What is there is not part of what the server has now.
            self.part.unlink()
            raise APIConnectionError("the file has changed, so it is fetched anew", **context)
        if reply.status_code not in (200, 206):
            raise error_from_status(
                f"the server of the file answered HTTP {reply.status_code}", status_code=reply.status_code, **context
            )
        start, whole = self._place(reply, had, context)
        self.marks = _Marks.of(reply.headers, whole)
        self.notes.write_text(json.dumps(attrs.asdict(self.marks)))
        with self.part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            self.progress(start, whole)
            for piece in reply.iter_content(_PIECE):
                stream.write(piece)
                self.progress(stream.tell(), whole)
                if self.rules.stop.is_set():
                    raise APIConnectionError("the download was stopped", **context)

    def _place(self, reply: requests.Response, had: int, context: dict[str, Any]) -> tuple[int, int | None]:
        """Return where the bytes of a reply belong, and how many the whole has."""
        if reply.status_code == 200:
            length = reply.headers.get("content-length", "")
            return 0, int(length) if length.isdecimal() else None
        given = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
        if given is None or int(given[1]) != had:
            raise APIResponseValidationError(f"bytes from {had} on were asked for, others came", **context)
        return had, None if given[3] == "*" else int(given[3])

    def _refuse(self, fact: str) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        raise APIResponseValidationError(
            f"{self.target.name} was not downloaded whole: {fact}; it was deleted, try again",
            method="GET",
            path=urlsplit(self.link or "").path,
        )


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
