"""JSON results with long lists of numbers, each of which stays text until its tensor is read.

Parsing all of a result at once makes a Python float of every number before the first is packed: more memory than the
text has, all of it new to the process, which costs as much time as the parsing. List by list, it is the same memory
again and again. What is left of the text is parsed as usual, with a mark in the place of each list.
"""

from __future__ import annotations

import os
from typing import Any

import orjson

from tinkex.errors import InvalidInputError

__all__ = ["NumberText", "parse_around"]

_KEY = b'"data":'
_LONG = 2048
"""Bytes of a list from which on it is left as text."""
_MARK = os.urandom(16).hex()
"""How a mark begins, which no server can know."""


class NumberText:
    """A list of numbers that is still text."""

    __slots__ = ("_text",)

    def __init__(self, text: memoryview) -> None:
        """Take the text, with its brackets."""
        self._text = text

    def numbers(self) -> Any:
        """Parse it.

        Raises:
            InvalidInputError: It is not JSON.
        """
        try:
            return orjson.loads(self._text)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(f"not JSON: {error}") from error


def parse_around(data: bytes) -> Any:
    """Parse JSON in which the lists of tensors are long.

    Args:
        data: The text.

    Returns:
        As ``orjson.loads`` does, but where an object has a long list of numbers as its ``data``, that may be a
        :class:`NumberText`.

    Raises:
        orjson.JSONDecodeError: The text, or what is left of it, is not JSON.
    """
    places, rest = _cut(data)
    if places:
        value = orjson.loads(rest)
        if _put_back(value, places):
            return value
    return orjson.loads(data)


def _cut(data: bytes) -> tuple[dict[str, memoryview], bytes]:
    """Return the long lists by their marks, and the text with the marks instead of them."""
    view = memoryview(data)
    places: dict[str, memoryview] = {}
    rest: list[bytes | memoryview] = []
    kept = at = 0
    while (at := data.find(_KEY, at)) >= 0:
        at += len(_KEY)
        start = at + 1 if data[at : at + 1] == b" " else at
        end = data.find(b"]", start) + 1
        if data[start : start + 1] != b"[" or end - start < _LONG or not _is_flat(data, start + 1, end):
            continue
        mark = f"{_MARK}{len(places)}"
        places[mark] = view[start:end]
        rest += [view[kept:start], f'"{mark}"'.encode()]
        kept = at = end
    return places, b"".join([*rest, view[kept:]])


def _is_flat(data: bytes, start: int, end: int) -> bool:
    """Return True if there is no list and no text in a list, so that it ends where it seems to."""
    return data.find(b"[", start, end) < 0 and data.find(b'"', start, end) < 0


def _put_back(value: Any, places: dict[str, memoryview]) -> bool:
    """Put each list where its mark stands; False if one does not stand where the list of a tensor does."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            text = places.pop(item["data"], None) if isinstance(item.get("data"), str) else None
            if text is not None:
                item["data"] = NumberText(text)
            left += item.values()
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            left += item
    return not places
