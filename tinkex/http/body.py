"""Bodies of requests: bytes, or pieces that are not joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

__all__ = ["SENDALL_BYTES", "Body", "Pieces"]

SENDALL_BYTES = 256 * 1024
"""What one ``sendall()`` is given at most: its time limit, which is that for connecting, is one for all of it, so a
large body on a slow line would never get through."""
_BLOCK_BYTES = 1024 * 1024
_BLOCK_BUFFERS = 512
"""A system call takes 1024 buffers on most machines."""


class Pieces:
    """A body made of buffers, such as ``bytes`` and arrays, which must not change until it is sent.

    It iterates over lists of buffers, each small enough for one system call; any number of times, because a request
    may be sent again.
    """

    def __init__(self, buffers: Sequence[Any], size: int) -> None:
        """Take the buffers, and the number of bytes in all of them."""
        self._buffers = buffers
        self._size = size

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._size

    def __bytes__(self) -> bytes:
        """Join them."""
        return b"".join(self._buffers)

    def __iter__(self) -> Iterator[list[Any]]:
        """Return the blocks."""
        block: list[Any] = []
        size = 0
        for buffer in self._buffers:
            more = len(buffer) if isinstance(buffer, bytes) else memoryview(buffer).nbytes
            for part in [buffer] if more <= _BLOCK_BYTES else _cut(buffer):
                more = min(more, _BLOCK_BYTES)
                if block and (size + more > _BLOCK_BYTES or len(block) == _BLOCK_BUFFERS):
                    yield block
                    block, size = [], 0
                block.append(part)
                size += more
        if block:
            yield block


Body = Union[bytes, Pieces]


def _cut(buffer: Any) -> list[memoryview]:
    view = memoryview(buffer).cast("B")
    return [view[start : start + _BLOCK_BYTES] for start in range(0, len(view), _BLOCK_BYTES)]
