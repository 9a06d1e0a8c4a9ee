"""Packed arrays, and messages that are put together without copying them."""

from __future__ import annotations

import functools
import struct
from array import array
from typing import Any, Union

from tinkex.errors import InvalidInputError
from tinkex.types._numbers import loaded

__all__ = [
    "At",
    "Buffer",
    "Message",
    "head",
    "joined",
    "nbytes",
    "pack",
    "pack_list",
    "take_out",
    "unpack",
    "view",
    "widen_bfloat16",
    "widen_int32",
]

Buffer = Union[bytes, "array[Any]", Any]
"""What ``bytes.join`` takes: bytes, ``array.array``, a NumPy array."""

_NUMPY = {"f": "<f4", "q": "<i8", "i": "<i4"}


class Message:
    """A message under construction.

    Protobuf copies an array once when it is set and again when the message is written. Here an array is copied once,
    when the request is sent; that is what makes a batch of megabytes cheap in time and in memory.

    Attributes:
        parts: What it is made of, in order.
        size: Bytes of all of it.
    """

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        # Small bytes at every even place, and what is not copied between them.
        self.parts: list[Any] = [b""]
        self.size = 0

    def put(self, value: Buffer, *numbers: int) -> Message:
        """Add a field of bytes, which may be nested in others that hold nothing else."""
        size = nbytes(value)
        return self.frame(head(size, *numbers), value, size)

    def frame(self, before: bytes, value: Buffer, size: int, after: bytes = b"") -> Message:
        """Add ``value``, which has ``size`` bytes, between fields or parts of fields that are written already."""
        self.parts[-1] += before
        self.parts += (value, after)
        self.size += len(before) + size + len(after)
        return self

    def nest(self, number: int, inner: Message) -> Message:
        """Add a field that holds a message."""
        before = head(inner.size, number)
        self.parts[-1] += before + inner.parts[0]
        self.parts += inner.parts[1:]
        self.size += len(before) + inner.size
        return self

    def append(self, fields: bytes) -> Message:
        """Add fields that are written already."""
        self.parts[-1] += fields
        self.size += len(fields)
        return self

    def join(self) -> bytes:
        """Return the bytes of the message."""
        return b"".join(self.parts)


def nbytes(value: Buffer) -> int:
    """Return how many bytes a buffer has."""
    return len(value) if isinstance(value, bytes) else memoryview(value).nbytes


# Most messages of a batch have the same few sizes.
@functools.lru_cache(maxsize=4096)
def head(size: int, *numbers: int) -> bytes:
    """Return what stands before a field of ``size`` bytes, which is all that is in the fields around it.

    Args:
        size: Bytes of the value.
        numbers: The field, after those that it is nested in. Each is written as number and wire type 2
            ("length-delimited"), and the length.
    """
    written = b""
    for number in reversed(numbers):
        left = size + len(written)
        field = bytearray([number << 3 | 2])
        while left > 127:
            field.append(left & 127 | 128)
            left >>= 7
        field.append(left)
        written = bytes(field) + written
    return written


_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types "64 bits" and "32 bits"."""


def take_out(raw: memoryview, number: int) -> tuple[bytes, list[memoryview]]:
    """Split a message into the values of one of its fields, where they are, and all others, for protobuf to read.

    Protobuf copies an array twice before a program sees it: into the message, and out of it.

    Args:
        raw: The message.
        number: A field of bytes or of messages.

    Returns:
        The message without the field, and the values of the field.

    Raises:
        InvalidInputError: It is no message.
    """
    kept, values = bytearray(), []
    at = 0
    while at < len(raw):
        start = at
        tag, at = _varint(raw, at)
        kind, size = tag & 7, 0
        if kind == 2:
            size, at = _varint(raw, at)
        elif kind == 0:
            _, at = _varint(raw, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise InvalidInputError(f"not a message in binary form: a field has the unknown wire type {kind}")
        end = at + size
        if end > len(raw):
            raise InvalidInputError(f"not a message in binary form: a field ends {end - len(raw)} bytes too late")
        if tag == number << 3 | 2:
            values.append(raw[at:end])
        else:
            kept += raw[start:end]
        at = end
    return bytes(kept), values


def joined(values: list[memoryview]) -> memoryview:
    """Make one value of those of a field that should be there once: protobuf does so with messages."""
    return values[0] if len(values) == 1 else memoryview(b"".join(values))


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, min(len(raw), at + 10)):
        value |= (raw[place] & 0x7F) << shift
        shift += 7
        if raw[place] < 0x80:
            return value, place + 1
    raise InvalidInputError("not a message in binary form: it ends within a number")


def pack_list(values: list[Any], code: str) -> bytes:
    """Return the numbers of a list as packed bytes.

    Args:
        values: The numbers.
        code: Their type: ``i`` (int32), ``q`` (int64) or ``f`` (float32).

    Raises:
        InvalidInputError: One does not fit the type.
    """
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError) as error:
        raise InvalidInputError(f"a number has no binary form: {error}") from error


def pack(values: Any, code: str) -> Buffer:
    """Return numbers as packed bytes, without a Python loop over them; otherwise like :func:`pack_list`."""
    if isinstance(values, list):
        return pack_list(values, code)
    if isinstance(values, array):
        return values if values.typecode == code else array(code, values)
    return values.astype(_NUMPY[code], copy=False)


def unpack(raw: bytes | memoryview, code: str, field: str) -> array[Any]:
    """Read packed bytes.

    Raises:
        InvalidInputError: They are no whole number of numbers.
    """
    values = array(code)
    if len(raw) % values.itemsize:
        message = f"{field} has {len(raw)} bytes, which is no multiple of {values.itemsize}"
        raise InvalidInputError(message, field=field)
    values.frombytes(raw)
    return values


def view(raw: bytes | memoryview, code: str, field: str) -> Any:
    """Read packed bytes where they are if the program uses NumPy, else into an array; otherwise like :func:`unpack`."""
    numpy = loaded("numpy")
    if numpy is None or not raw or len(raw) % numpy.dtype(_NUMPY[code]).itemsize:
        return unpack(raw, code, field)
    return numpy.frombuffer(raw, _NUMPY[code])


def widen_int32(raw: bytes | memoryview) -> array[Any]:
    """Read packed int32 as int64."""
    return array("q", unpack(raw, "i", "data"))


def widen_bfloat16(raw: bytes | memoryview) -> array[Any]:
    """Read packed bfloat16, which is the upper half of a float32, as float32."""
    halves, wide = unpack(raw, "H", "data").tobytes(), bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = halves[0::2], halves[1::2]
    return unpack(bytes(wide), "f", "data")


class At:
    """Put the place before what goes wrong there."""

    __slots__ = ("_index", "_key", "_name")

    def __init__(self, name: str, key: int | str | None = None, index: int | None = None) -> None:
        """Name the place.

        Args:
            name: A field.
            key: Index or key in it.
            index: Index of the datum, if that is the place.
        """
        self._name = name
        self._key = key
        self._index = index

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, InvalidInputError):
            place = self._name if self._key is None else f"{self._name}[{self._key!r}]"
            field = f"{place}.{error.field}" if error.field else place
            index = error.index if self._index is None else self._index
            raise InvalidInputError(f"{place}: {error.message}", field=field, index=index) from error
