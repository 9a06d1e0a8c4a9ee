"""Header lines: what http.client sends and reads, made in another way."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinkex.http._headers import Reply, header_line, parse_headers

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=30)
LINES = st.one_of(
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]}: {pair[1]}".encode("iso-8859-1")),
    st.binary(max_size=20),
    st.sampled_from([b" folded", b"\tfolded", b"no colon", b": no name", b"name : space", b"X:1", b"X:  two  "]),
)


def read(parse, raw: bytes):
    """Return the headers with all that a reader can see of them, or the error."""
    stream = io.BytesIO(raw)
    try:
        message = parse(stream)
    except http.client.HTTPException as error:
        return type(error), str(error)
    return message.items(), message.get_payload(), [type(defect) for defect in message.defects], stream.read()


@given(st.lists(LINES, max_size=8), st.sampled_from([b"\r\n", b"\n"]))
@example([b"X: a\rb", b"Y: 1"], b"\r\n")
@example([b"X: \r"], b"\r\n")
@example([b"nocolon", b"Y: 1"], b"\r\n")
@example([b": no name", b"Y: 1"], b"\r\n")
@example([b"X\xe9: 1", b"Y: 1"], b"\r\n")
@example([b"X\x7f: 1", b"Y: 1"], b"\r\n")
@example([b"X:\xa0a \xe4 "], b"\r\n")
@example([b"name : space", b"Y: 1"], b"\r\n")
@example([b"X: 1", b" folded"], b"\r\n")
@example([b"X: 1", b"no colon", b": no name", b"Y: 1"], b"\r\n")
def test_any_headers_are_read_as_http_client_reads_them(lines, end):
    """Well-formed or not, folded, cut off, and no further than their end."""
    raw = end.join([*lines, b"", b"body"])
    assert read(parse_headers, raw) == read(http.client.parse_headers, raw)


@pytest.mark.parametrize("raw", [b"X: " + b"a" * 70_000, b"X: 1\r\n" * 101, b"X: 1\r\n" * 99 + b"\r\n", b"X: 1", b""])
def test_the_limits_are_those_of_http_client(raw):
    """A server can't fill the memory with headers."""
    assert read(parse_headers, raw) == read(http.client.parse_headers, raw)


def test_an_answer_is_read_with_them():
    """The method of http.client finds this function under the name that it looks for."""
    assert Reply.begin.__globals__["parse_headers"] is parse_headers
    assert "parse_headers" in http.client.HTTPResponse.begin.__code__.co_names


@pytest.mark.parametrize(("name", "value"), [("X", "1"), ("Content-Type", "a b"), ("X-A", "ä")])
def test_a_header_is_written_as_http_client_writes_it(name, value):
    """Latin-1, name and value as they are."""
    assert header_line(name, value) == f"{name}: {value}".encode("iso-8859-1")


@pytest.mark.parametrize(("name", "value"), [("X", "a\r\nY: b"), ("X\n", "1"), ("X Y", "a\nb"), ("", "1")])
def test_a_header_cannot_break_out_of_its_line(name, value):
    """As http.client sees to."""
    with pytest.raises(ValueError, match="Invalid header"):
        header_line(name, value)
