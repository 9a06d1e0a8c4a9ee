"""The one place that chooses between body formats: by Content-Type for what comes in, by Accept for what goes out.

A format is one row of ``FORMATS``. A result is kept in one form and turned into another when a client asks for it: the
output of a loss, which is arrays, in the binary form, anything else as JSON. Errors and "not yet" are always JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from tinkex.errors import InvalidInputError
from tinkex.local.problems import Problem
from tinkex.types import ForwardBackwardOutput, ForwardBackwardRequest, RequestFailedResponse, SampleResponse
from tinkex.wire import json

__all__ = ["FORMATS", "JSON", "PROTOBUF", "Format", "Kept", "decompress", "keep", "read", "write", "write_result"]

T = TypeVar("T")


@attrs.frozen(kw_only=True, slots=True)
class Format:
    """One way to write bodies.

    Attributes:
        media_type: Its name in Content-Type and Accept.
        decode: Read a body as a type.
        encode: Write a value.
        requests: Types of requests that it can read; None for all.
        results: Types that it can write, and read; None for all.
        kept: Types of results that are kept in it.
    """

    media_type: str
    decode: Callable[[bytes, type[Any]], Any]
    encode: Callable[[Any], bytes]
    requests: frozenset[type[Any]] | None = None
    results: frozenset[type[Any]] | None = None
    kept: frozenset[type[Any]] = frozenset()


@attrs.frozen(kw_only=True, slots=True)
class Kept:
    """A result as it is kept: its type, its bytes and their format."""

    cls: type[Any]
    body: bytes
    form: Format


def _read_binary(body: bytes, cls: type[Any]) -> Any:
    # The protobuf library is loaded by the first client that speaks it.
    from tinkex.wire import proto

    if cls is ForwardBackwardRequest:
        return proto.decode_forward_backward(body)
    _, decode = proto.RESULTS[cls]
    return decode(body)


def _write_binary(value: Any) -> bytes:
    from tinkex.wire import proto

    encode, _ = proto.RESULTS[type(value)]
    return encode(value)


JSON = Format(media_type="application/json", decode=json.decode, encode=json.encode)
PROTOBUF = Format(
    media_type="application/x-protobuf",
    decode=_read_binary,
    encode=_write_binary,
    requests=frozenset({ForwardBackwardRequest}),
    results=frozenset({ForwardBackwardOutput, SampleResponse}),
    kept=frozenset({ForwardBackwardOutput}),
)
FORMATS: dict[str, Format] = {chosen.media_type: chosen for chosen in (JSON, PROTOBUF)}


def media_type(header: str) -> str:
    """Return a header's media type without parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


def read(body: bytes, content_type: str, cls: type[T]) -> T:
    """Read a request body.

    Raises:
        Problem: 415, this endpoint does not take the format.
        InvalidInputError: The body does not fit the type; the message has the path of the field.
    """
    chosen = FORMATS.get(media_type(content_type))
    if chosen is None or (chosen.requests is not None and cls not in chosen.requests):
        raise Problem(415, f"Content-Type {content_type!r:.80} is not taken here; send {JSON.media_type}")
    value: T = chosen.decode(body, cls)
    return value


def write(value: Any) -> bytes:
    """Write a value as JSON."""
    return JSON.encode(value)


def keep(value: Any) -> Kept:
    """Write a result as it is to be kept.

    Raises:
        InvalidInputError: It has no such form.
    """
    form = PROTOBUF if type(value) in PROTOBUF.kept else JSON
    return Kept(cls=type(value), body=form.encode(value), form=form)


def write_result(kept: Kept, accept: str) -> tuple[bytes, str]:
    """Return a kept result in the format that the client asked for.

    Args:
        kept: The result.
        accept: The Accept header.

    Returns:
        The bytes and their media type; JSON if the client asked for nothing that can hold the type. A result that has
        no JSON form, because it holds NaN, is a failure to a client that asks for JSON.
    """
    wanted = (media_type(part) for part in accept.split(","))
    chosen = next((FORMATS[name] for name in wanted if name in FORMATS), JSON)
    if chosen.results is not None and kept.cls not in chosen.results:
        chosen = JSON
    if chosen is kept.form:
        return kept.body, chosen.media_type
    try:
        return chosen.encode(kept.form.decode(kept.body, kept.cls)), chosen.media_type
    except InvalidInputError as error:
        failure = RequestFailedResponse(error=f"the result has no JSON form: {error.message}", category="server")
        return JSON.encode(failure), JSON.media_type


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo the Content-Encoding of a request body.

    Args:
        body: The body as it was sent.
        encoding: The header.
        limit: Most bytes that may come out.

    Returns:
        The body itself.

    Raises:
        Problem: 415, the encoding is not taken; 422, the body is not what it says; 413, it is too large.
    """
    if encoding == "identity":
        return body
    if encoding != "zstd":
        raise Problem(415, f"Content-Encoding {encoding!r:.80} is not taken; send the body as it is")
    try:
        import zstandard
    except ImportError:
        raise Problem(
            415, "this server cannot read zstd: send the body as it is, or install tinkex[zstd] on the server"
        ) from None
    try:
        # Not ``decompress``, which believes what the body says of its size.
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            plain: bytes = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Problem(422, f"the body is not zstd: {error}") from error
    if len(plain) > limit:
        raise Problem(413, f"the body has more than {limit} bytes, the limit; split the request into smaller ones")
    return plain
