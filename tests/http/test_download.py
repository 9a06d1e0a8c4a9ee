"""Downloads over a real socket: whole, broken off and resumed, changed meanwhile, wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tinkex.config import RetryPolicy
from tinkex.errors import (
    APIConnectionError,
    APIResponseValidationError,
    ClientClosedError,
    NotFoundError,
)
from tinkex.http import Downloader

CONTENT = bytes(range(256)) * 20_000
CUT = 15 << 16  # after 15 of the pieces that are read at once
QUICK = Downloader(retry=RetryPolicy(max_attempts=3, initial_wait_s=0.001), read_timeout=5.0)


@attrs.define
class FileServer:
    """Serves one file; each request first takes a line of the plan.

    A line may say after how many bytes to cut the connection (``cut``), or which status to answer (``status``).
    """

    content: bytes = CONTENT
    tag: str | None = '"one"'
    digest: str | None = None
    plan: list[dict[str, int]] = attrs.field(factory=list)
    asked: list[str | None] = attrs.field(factory=list)
    url: str = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a GET."""
        line = self.plan.pop(0) if self.plan else {}
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        if "status" in line:
            handler.send_error(line["status"])
            return
        ranged = asked if handler.headers.get("If-Range") == self.tag else None
        start = int(re.fullmatch(r"bytes=(\d+)-", ranged)[1]) if ranged else 0
        handler.send_response(206 if ranged else 200)
        if ranged:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.tag:
            handler.send_header("ETag", self.tag)
        if self.digest:
            handler.send_header("Repr-Digest", f"sha-256=:{self.digest}:")
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        with contextlib.suppress(OSError):  # the reader has left
            handler.wfile.write(self.content[start : start + line["cut"] if "cut" in line else None])


@pytest.fixture
def files() -> Iterator[FileServer]:
    """A server of one file."""
    served = FileServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}/file?signature=secret"
        yield served
        server.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    """The digest as the header has it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def fetch(files: FileServer, tmp_path: Path, **options: object) -> bytes:
    """Fetch the file and return what lies on the disk."""
    return QUICK.fetch(lambda: files.url, tmp_path / "file", **options).read_bytes()


def test_a_file_arrives_whole(files, tmp_path):
    """Its bytes lie under its name, the progress ends at its size, and nothing else is left."""
    files.digest = sha256(CONTENT)
    seen = []
    assert CONTENT == fetch(files, tmp_path, progress=lambda done, whole: seen.append((done, whole)))
    assert ((0, len(CONTENT)), (len(CONTENT), len(CONTENT))) == (seen[0], seen[-1])
    assert sorted(seen) == seen
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


def test_a_broken_download_goes_on_where_it_stopped(files, tmp_path):
    """However often it breaks, as long as bytes come; and no byte is fetched twice."""
    files.plan = [{"cut": CUT}] * 5
    assert CONTENT == fetch(files, tmp_path)
    assert [None, *(f"bytes={n * CUT}-" for n in range(1, 6))] == files.asked


def test_a_later_program_goes_on_with_the_part(files, tmp_path):
    """What was fetched before the program ended is kept, with what is needed to go on."""
    files.plan = [{"cut": CUT}, *[{"status": 503}] * 3]
    with pytest.raises(Exception, match="503"):
        fetch(files, tmp_path)
    assert CONTENT == fetch(files, tmp_path)
    assert f"bytes={CUT}-" == files.asked[-1]


def test_a_file_that_changed_meanwhile_is_fetched_anew(files, tmp_path):
    """Bytes of the old one and of the new one are never mixed."""
    files.plan = [{"cut": CUT}, *[{"status": 503}] * 3]
    with pytest.raises(Exception, match="503"):
        fetch(files, tmp_path)
    files.content, files.tag = CONTENT[::-1], '"two"'
    assert files.content == fetch(files, tmp_path)


def test_a_part_that_cannot_be_told_from_another_file_is_not_used(files, tmp_path):
    """Without a tag, or with a weak one, the download begins anew."""
    for tag in (None, 'W/"weak"'):
        files.tag, files.plan, files.asked = tag, [{"cut": CUT}], []
        assert CONTENT == fetch(files, tmp_path)
        assert [None, None] == files.asked


def test_a_part_longer_than_the_file_is_thrown_away(files, tmp_path):
    """416 means that what is there is of another file."""
    files.plan = [{"cut": CUT}, {"status": 416}]
    assert CONTENT == fetch(files, tmp_path)
    assert [None, f"bytes={CUT}-", None] == files.asked


def test_a_link_that_expires_is_replaced(files, tmp_path):
    """A refusal in the middle asks for another link once; a refusal of a fresh link is final."""
    links = []

    def locate() -> str:
        links.append(files.url)
        return files.url

    files.plan = [{"cut": CUT}, {"status": 403}]
    assert CONTENT == QUICK.fetch(locate, tmp_path / "file").read_bytes()
    assert 2 == len(links)
    files.plan = [{"status": 404}]
    with pytest.raises(NotFoundError):
        QUICK.fetch(locate, tmp_path / "other")
    assert 3 == len(links)


def test_bytes_that_are_not_those_announced_are_deleted(files, tmp_path):
    """A wrong digest is an error, and the next download starts with nothing."""
    files.digest = sha256(b"something else")
    with pytest.raises(APIResponseValidationError, match="SHA-256"):
        fetch(files, tmp_path)
    assert [] == list(tmp_path.iterdir())


def test_a_server_that_never_sends_a_byte_is_given_up(files, tmp_path):
    """Attempts without progress count; the error hides the signature of the link."""
    files.plan = [{"cut": 0}] * 9
    with pytest.raises(APIConnectionError) as failure:
        fetch(files, tmp_path)
    assert 3 == len(files.asked)
    assert "secret" not in f"{failure.value}{failure.value.__cause__}"


def test_a_stopped_download_ends(files, tmp_path):
    """Closing the client ends it between two pieces."""
    downloader = attrs.evolve(QUICK, stop=threading.Event())
    with pytest.raises(ClientClosedError):
        downloader.fetch(lambda: files.url, tmp_path / "file", lambda done, whole: downloader.stop.set())
