"""What a model reads: chunks of text tokens, images and audio, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import ALWAYS, FrozenList, Value, bytes_only, one_of, optional, tag, text, whole
from tinkex.types._numbers import Values, copy_ints, shorten, to_list

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DmelChunk",
    "EncodedTextChunk",
    "ImageAssetPointerChunk",
    "ImageChunk",
    "ImageFormat",
    "ModelInput",
    "ModelInputChunk",
]

ImageFormat = Literal["png", "jpeg"]
MAX_TOKEN_ID = 2**31 - 1
"""Token ids travel as int32 in the binary form."""


@attrs.frozen(slots=True, repr=False, eq=False, init=False)
class EncodedTextChunk:
    """A run of text, as token ids. Arrays and lists are copied."""

    # ``Any`` stands for ``Values``, which names NumPy types that cattrs would try to look up.
    _values: Any
    type: Literal["encoded_text"] = tag("encoded_text")

    def __init__(
        self, *, tokens: Sequence[int] | np.ndarray[Any, Any], type: Literal["encoded_text"] = "encoded_text"
    ) -> None:
        """Copy and check.

        Args:
            tokens: Token ids, from 0 to 2**31 - 1.
            type: Constant of the wire.

        Raises:
            InvalidInputError: A token is not a whole number or is out of range.
        """
        self.__attrs_init__(copy_ints(tokens, "tokens", low=0, high=MAX_TOKEN_ID), type)

    @property
    def tokens(self) -> list[int]:
        """The token ids as a list, which is a copy and refuses to be changed."""
        return FrozenList(to_list(self._values))

    @property
    def buffer(self) -> Values:
        """The token ids as they are stored: int32, in ``array.array`` or NumPy. Nobody may change it."""
        values: Values = self._values
        return values

    @property
    def length(self) -> int:
        """How many tokens of context this takes."""
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        """Compare the tokens."""
        return self.tokens == other.tokens if isinstance(other, EncodedTextChunk) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the first tokens."""
        return f"EncodedTextChunk(tokens={shorten(self._values)})"


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ImageChunk:
    """An image in the prompt.

    Attributes:
        data: The bytes of the file (base64 on the JSON wire).
        format: ``"png"`` or ``"jpeg"``.
        expected_tokens: How many tokens you think it takes; a server that disagrees may refuse at once.
    """

    data: bytes = attrs.field(converter=bytes_only)
    format: ImageFormat = attrs.field(validator=one_of("png", "jpeg"))
    expected_tokens: int | None = attrs.field(
        default=None, converter=plain_number, validator=optional(whole(0)), metadata=ALWAYS
    )
    type: Literal["image"] = tag("image")

    @property
    def length(self) -> int:
        """How many tokens of context this takes, by ``expected_tokens``."""
        return _expected(self.expected_tokens, "ImageChunk")

    def __repr__(self) -> str:
        """Show the size, not the bytes."""
        return f"ImageChunk({self.format}, {len(self.data)} bytes, expected_tokens={self.expected_tokens})"


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ImageAssetPointerChunk(Value):
    """An image that the server fetches; for sampling only.

    Attributes:
        location: Path or URL.
        format: ``"png"`` or ``"jpeg"``.
        expected_tokens: How many tokens you think it takes.
    """

    location: str = attrs.field(validator=text)
    format: ImageFormat = attrs.field(validator=one_of("png", "jpeg"))
    expected_tokens: int | None = attrs.field(
        default=None, converter=plain_number, validator=optional(whole(0)), metadata=ALWAYS
    )
    type: Literal["image_asset_pointer"] = tag("image_asset_pointer")

    @property
    def length(self) -> int:
        """How many tokens of context this takes, by ``expected_tokens``."""
        return _expected(self.expected_tokens, "ImageAssetPointerChunk")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class DmelChunk:
    """A piece of audio, as the bytes of a serialized tensor container (base64 on the JSON wire)."""

    dmel: bytes = attrs.field(converter=bytes_only)
    type: Literal["dmel"] = tag("dmel")

    @property
    def length(self) -> int:
        """How many tokens of context this takes: the first dimension in the container's header."""
        return _dmel_length(self.dmel)

    def __repr__(self) -> str:
        """Show the size, not the bytes."""
        return f"DmelChunk({len(self.dmel)} bytes)"


ModelInputChunk = Union[EncodedTextChunk, ImageChunk, ImageAssetPointerChunk, DmelChunk]
_CHUNKS = (EncodedTextChunk, ImageChunk, ImageAssetPointerChunk, DmelChunk)


_BY_FIELD: dict[str, Any] = {
    "tokens": EncodedTextChunk,
    "location": ImageAssetPointerChunk,
    "data": ImageChunk,
    "dmel": DmelChunk,
}


def _of_dict(fields: Mapping[str, Any]) -> Any:
    """Make the chunk that has these fields; the dict itself if none has."""
    cls = next((cls for name, cls in _BY_FIELD.items() if name in fields), None)
    try:
        return fields if cls is None else cls(**fields)
    except TypeError:
        return fields


def _to_chunks(value: Any) -> list[ModelInputChunk]:
    if not isinstance(value, Iterable):
        raise InvalidInputError(f"chunks must be a list, got {value!r:.80}", field="chunks")
    chunks = [_of_dict(chunk) if isinstance(chunk, Mapping) else chunk for chunk in value]
    for position, chunk in enumerate(chunks):
        if not isinstance(chunk, _CHUNKS):
            field = f"chunks[{position}]"
            raise InvalidInputError(
                f"{field} must be a chunk such as EncodedTextChunk, got {chunk!r:.80}; "
                "for token ids use ModelInput.from_ints(tokens)",
                field=field,
            )
    return chunks


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ModelInput(Value):
    """A prompt or a training sequence: chunks that follow one another."""

    chunks: list[ModelInputChunk] = attrs.field(converter=_to_chunks)

    @classmethod
    def from_ints(cls, tokens: Sequence[int] | np.ndarray[Any, Any]) -> ModelInput:
        """Make an input of one text chunk.

        Raises:
            InvalidInputError: A token is not a whole number of at least 0.
        """
        return cls(chunks=[EncodedTextChunk(tokens=tokens)])

    @classmethod
    def empty(cls) -> ModelInput:
        """Make an input of no chunks, to append to."""
        return cls(chunks=[])

    def append(self, chunk: ModelInputChunk) -> ModelInput:
        """Return a new input with one more chunk."""
        return ModelInput(chunks=[*self.chunks, chunk])

    def append_int(self, token: int) -> ModelInput:
        """Return a new input with one more token, joined to the last chunk if that is text."""
        last = self.chunks[-1] if self.chunks else None
        if isinstance(last, EncodedTextChunk):
            return ModelInput(chunks=[*self.chunks[:-1], EncodedTextChunk(tokens=[*last.tokens, token])])
        return self.append(EncodedTextChunk(tokens=[token]))

    def to_ints(self) -> list[int]:
        """Return all token ids.

        Raises:
            InvalidInputError: A chunk is not text.
        """
        tokens: list[int] = []
        for position, chunk in enumerate(self.chunks):
            if not isinstance(chunk, EncodedTextChunk):
                field = f"chunks[{position}]"
                raise InvalidInputError(f"{field} is not text, so it has no token ids", field=field)
            tokens.extend(chunk.tokens)
        return tokens

    @property
    def length(self) -> int:
        """How many tokens of context the chunks take together.

        Raises:
            InvalidInputError: An image does not say its ``expected_tokens``.
        """
        return sum(chunk.length for chunk in self.chunks)


def _expected(tokens: int | None, name: str) -> int:
    if tokens is None:
        raise InvalidInputError(f"the length of an {name} is known only if expected_tokens is given")
    return tokens


def _varint(data: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(start, len(data)):
        value |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            return value, position + 1
    raise InvalidInputError("dmel ends within its header", field="dmel")


def _dmel_length(data: bytes) -> int:
    # Header: an optional byte 254 (constant tensor), a dtype byte, then as varints the number of dimensions
    # and each of them.
    start = 2 if data[:1] == b"\xfe" else 1
    ndim, at = _varint(data, start)
    return _varint(data, at)[0] if ndim else 1
