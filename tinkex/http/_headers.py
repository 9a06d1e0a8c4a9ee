"""Header lines, written and read without doing again for each request what was done for the one before.

``http.client`` checks and encodes each header of each request, and reads those of an answer with the parser for e-mail.
With some twenty headers out and ten in, that is a good part of what a small request costs.
"""

from __future__ import annotations

import functools
import http.client
import types
from email.parser import Parser
from typing import Any, BinaryIO

from typing_extensions import override

__all__ = ["Reply", "header_line", "parse_headers"]

# The limits of http.client.
_LONGEST_LINE = 65536
_MOST_LINES = 100


class _Lines(http.client.HTTPConnection):
    """Collects the lines that would be sent."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        super().__init__("localhost")
        self.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)

    def _output(self, line: bytes) -> None:
        self.lines.append(line)


@functools.lru_cache(maxsize=1024)
def header_line(name: str, value: str) -> bytes:
    """Return a header as ``http.client`` sends it.

    Raises:
        ValueError: A character in it would break out of its line.
    """
    writer = _Lines()
    writer.putheader(name, value)
    return writer.lines[-1]


def parse_headers(stream: BinaryIO, *_args: Any, **_options: Any) -> http.client.HTTPMessage:
    """Read the headers of an answer, as the function of this name in ``http.client`` does.

    Raises:
        http.client.HTTPException: There are too many, or one is too long.
    """
    lines = []
    while True:
        line = stream.readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE:
            raise http.client.LineTooLong("header line")
        lines.append(line)
        if len(lines) > _MOST_LINES:
            raise http.client.HTTPException(f"got more than {_MOST_LINES} headers")
        if line in (b"\r\n", b"\n", b""):
            break
    message = http.client.HTTPMessage()
    message.set_payload("")
    for line in lines[:-1]:
        name, _, value = line.decode("iso-8859-1").partition(":")
        value = value.lstrip(" ").removesuffix("\n").removesuffix("\r")
        if not (name and name.isascii() and " " not in name and name.isprintable() and value.isprintable()):
            # Folded, without a colon, or not as it should be: the parser for e-mail knows what to make of it.
            return Parser(_class=http.client.HTTPMessage).parsestr(b"".join(lines).decode("iso-8859-1"))
        message.set_raw(name, value)
    return message


class Reply(http.client.HTTPResponse):
    """An answer whose headers are read by :func:`parse_headers`."""

    # The method of http.client as it is, looking up this one name here.
    begin = override(
        types.FunctionType(
            http.client.HTTPResponse.begin.__code__, {**vars(http.client), "parse_headers": parse_headers}, "begin"
        )
    )
