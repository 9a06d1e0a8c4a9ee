"""Bodies of requests: bytes, or pieces that are not joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

__all__ = ["SENDALL_BYTES", "Block", "Body", "Pieces"]

SENDALL_BYTES = 256 * 1024
"""What one ``sendall()`` is given at most: its time limit, which is that for connecting, is one for all of it, so a
large body on a slow line would never get through."""
_BLOCK_BYTES = 1024 * 1024
_BLOCK_BUFFERS = 512
"""A system call takes 1024 buffers on most machines."""


class Block(list[Any]):
    """Buffers for one system call.

    A list, because a connection that knows nothing of blocks, such as one to a proxy, sends what it iterates over.

    Attributes:
        size: Bytes in all of them.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        """Make an empty one."""
        super().__init__()
        self.size = 0


class Pieces:
    """A body made of buffers, such as ``bytes`` and arrays, which must not change until it is sent.

    It iterates over its blocks; any number of times, because a request may be sent again.
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

    def __iter__(self) -> Iterator[Block]:
        """Return the blocks."""
        block = Block()
        for buffer in self._buffers:
            whole = len(buffer) if isinstance(buffer, bytes) else memoryview(buffer).nbytes
            for part in [buffer] if whole <= _BLOCK_BYTES else _cut(buffer):
                size = whole if part is buffer else len(part)
                if block and (block.size + size > _BLOCK_BYTES or len(block) == _BLOCK_BUFFERS):
                    yield block
                    block = Block()
                block.append(part)
                block.size += size
        if block:
            yield block


Body = Union[bytes, Pieces]


def _cut(buffer: Any) -> list[memoryview]:
    view = memoryview(buffer).cast("B")
    return [view[start : start + _BLOCK_BYTES] for start in range(0, len(view), _BLOCK_BYTES)]
