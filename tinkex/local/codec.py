"""The one place that chooses between body formats: by Content-Type for what comes in, by Accept for what goes out.

A format is one row of ``FORMATS``. Results are kept as JSON and written in another format when a client asks for it;
errors and "not yet" are always JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from tinkex.local.problems import Problem
from tinkex.types import ForwardBackwardOutput, ForwardBackwardRequest, SampleResponse
from tinkex.wire import json

__all__ = ["FORMATS", "JSON", "PROTOBUF", "Format", "read", "write", "write_result"]

T = TypeVar("T")


@attrs.frozen(kw_only=True, slots=True)
class Format:
    """One way to write bodies.

    Attributes:
        media_type: Its name in Content-Type and Accept.
        decode: Read a request body as a type.
        encode: Write a value.
        requests: Types that it can read; None for all.
        results: Types that it can write; None for all.
    """

    media_type: str
    decode: Callable[[bytes, type[Any]], Any]
    encode: Callable[[Any], bytes]
    requests: frozenset[type[Any]] | None = None
    results: frozenset[type[Any]] | None = None


def _read_binary(body: bytes, _: type[Any]) -> Any:
    # The protobuf library is loaded by the first client that speaks it.
    from tinkex.wire import proto

    return proto.decode_forward_backward(body)


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


def write_result(body: bytes, cls: type[Any], accept: str) -> tuple[bytes, str]:
    """Return a kept result in the format that the client asked for.

    Args:
        body: The result as JSON.
        cls: Its type.
        accept: The Accept header.

    Returns:
        The bytes and their media type; JSON if the client asked for nothing that can hold the type.
    """
    wanted = (media_type(part) for part in accept.split(","))
    chosen = next((FORMATS[name] for name in wanted if name in FORMATS), JSON)
    if chosen is JSON or (chosen.results is not None and cls not in chosen.results):
        return body, JSON.media_type
    return chosen.encode(json.decode(body, cls)), chosen.media_type
