"""Model inputs and their chunks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

from tests.strategies import chunks, model_inputs, text_chunks
from tinkex.errors import InvalidInputError
from tinkex.types import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk, ModelInput

PICTURE = ImageChunk(data=b"\x89PNG", format="png", expected_tokens=4)


@pytest.mark.parametrize("bad", [-1, 2**31, 2**63, -(2**70)])
@pytest.mark.parametrize("form", [list, tuple])
def test_a_token_id_out_of_range_is_named_by_position(form, bad):
    """Token ids travel as int32, so they lie between 0 and 2**31 - 1."""
    with pytest.raises(InvalidInputError, match=rf"tokens\[1\] is {bad}; it must lie between 0 and 2147483647"):
        EncodedTextChunk(tokens=form([5, bad]))


@pytest.mark.parametrize("bad", [-1, 2**31])
def test_an_array_of_token_ids_is_checked_too(bad):
    """An array goes through the same door."""
    with pytest.raises(InvalidInputError, match=rf"tokens\[1\] is {bad}"):
        ModelInput.from_ints(np.array([5, bad]))


@pytest.mark.parametrize("bad", [True, 1.0, "7", None])
def test_a_token_is_a_whole_number(bad):
    """A boolean or a fraction among the tokens is a mistake."""
    with pytest.raises(InvalidInputError, match=r"tokens\[0\] must be a whole number"):
        ModelInput.from_ints([bad])


def test_the_bounds_of_token_ids_are_allowed():
    """Both ends are token ids."""
    assert ModelInput.from_ints([0, 2**31 - 1]).to_ints() == [0, 2**31 - 1]


def test_a_buffer_may_be_reused_for_the_next_chunk():
    """Programs fill one list, make a chunk of it, clear it and go on; the chunk keeps its tokens."""
    buffer = [1, 2, 3]
    first = EncodedTextChunk(tokens=buffer)
    buffer.clear()
    buffer.append(9)
    parts = [first]
    whole = ModelInput(chunks=parts)
    parts.clear()
    assert whole.to_ints() == [1, 2, 3]
    picture = bytearray(b"abc")
    kept = ImageChunk(data=picture, format="jpeg")
    picture[:] = b"xyz"
    assert kept.data == b"abc"


@settings(deadline=None)
@given(model_inputs, text_chunks)
def test_appending_makes_a_new_input(model_input, chunk):
    """The old input is as it was; the new one has the chunk at its end."""
    before = list(model_input.chunks)
    longer = model_input.append(chunk)
    assert model_input.chunks == before
    assert longer.chunks == [*before, chunk]


@settings(deadline=None)
@given(model_inputs)
def test_appending_a_token_joins_it_to_the_text(model_input):
    """The token goes into the last chunk if that is text, else into a new one."""
    longer = model_input.append_int(7)
    ends_in_text = bool(model_input.chunks) and isinstance(model_input.chunks[-1], EncodedTextChunk)
    assert len(longer.chunks) == len(model_input.chunks) + (not ends_in_text)
    before = model_input.chunks[-1].tokens if ends_in_text else []
    assert longer.chunks[-1].tokens == [*before, 7]


def test_an_input_is_built_up_from_nothing():
    """``empty`` is the start of a chain of appends."""
    made = ModelInput.empty().append_int(1).append(PICTURE).append_int(2).append_int(3)
    assert made.chunks == [EncodedTextChunk(tokens=[1]), PICTURE, EncodedTextChunk(tokens=[2, 3])]
    assert made.length == 1 + 4 + 2


def test_text_has_token_ids_and_pictures_have_none():
    """``to_ints`` joins text chunks, and names the chunk that is not text."""
    assert ModelInput(chunks=[EncodedTextChunk(tokens=[1]), EncodedTextChunk(tokens=[2])]).to_ints() == [1, 2]
    with pytest.raises(InvalidInputError, match=r"chunks\[1\] is not text") as caught:
        ModelInput.from_ints([1]).append(PICTURE).to_ints()
    assert caught.value.field == "chunks[1]"


@pytest.mark.parametrize("bad", [5, "text", [1, 2], None])
def test_a_chunk_is_a_chunk(bad):
    """Bare token ids are refused with the way out."""
    with pytest.raises(
        InvalidInputError, match=r"chunks\[1\] must be a chunk .*ModelInput.from_ints\(tokens\)"
    ) as caught:
        ModelInput(chunks=[PICTURE, bad])
    assert caught.value.field == "chunks[1]"


@pytest.mark.parametrize("bad", [5, None, PICTURE])
def test_chunks_are_a_list(bad):
    """A single chunk is not a list of one."""
    with pytest.raises(InvalidInputError, match="chunks must be a list"):
        ModelInput(chunks=bad)


@pytest.mark.parametrize(
    "make", [lambda **k: ImageChunk(data=b"", **k), lambda **k: ImageAssetPointerChunk(location="x", **k)]
)
def test_the_length_of_a_picture_is_what_is_expected(make):
    """Without ``expected_tokens`` only the server knows it."""
    assert make(format="png", expected_tokens=0).length == 0
    assert make(format="jpeg", expected_tokens=7).length == 7
    with pytest.raises(InvalidInputError, match="known only if expected_tokens is given"):
        make(format="png").length  # noqa: B018 - reading it is the test


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "gif"},
        {"format": None},
        {"format": "png", "expected_tokens": -1},
        {"format": "png", "expected_tokens": 1.5},
        {"format": "png", "expected_tokens": True},
    ],
)
def test_a_picture_has_a_known_format_and_a_size(fields):
    """The fields of a picture are checked at construction."""
    with pytest.raises(InvalidInputError, match=r"ImageChunk\.(format|expected_tokens) must be"):
        ImageChunk(data=b"", **fields)


@pytest.mark.parametrize("bad", ["text", 5, None, [1, 2]])
def test_bytes_are_bytes(bad):
    """``bytes(5)`` would be five zeros; a mistake must not become a picture."""
    with pytest.raises(InvalidInputError, match="data must be bytes, got"):
        ImageChunk(data=bad, format="png")


def test_a_location_is_not_empty():
    """A pointer must point somewhere."""
    with pytest.raises(InvalidInputError, match=r"ImageAssetPointerChunk\.location must be a non-empty text"):
        ImageAssetPointerChunk(location="", format="png")


@pytest.mark.parametrize(
    ("container", "length"),
    [
        (bytes([0, 2, 5, 80]), 5),
        (bytes([3, 1, 0x80, 0x02]), 256),
        (bytes([254, 0, 2, 7, 80]), 7),
        (bytes([7, 0]), 1),
        (bytes([7, 1, 0]), 0),
    ],
)
def test_the_length_of_audio_is_its_first_dimension(container, length):
    """The header says it: an optional mark of a constant, a type, and the dimensions as varints."""
    assert DmelChunk(dmel=container).length == length


@pytest.mark.parametrize("container", [b"", b"\x00", b"\xfe", b"\x00\x80", b"\x00\x01", b"\x00\x01\xff\xff"])
def test_audio_that_ends_within_its_header_is_an_error(container):
    """A broken container raises an error of ours."""
    with pytest.raises(InvalidInputError, match="dmel ends within its header"):
        DmelChunk(dmel=container).length  # noqa: B018 - reading it is the test


@settings(deadline=None)
@given(chunks)
def test_every_chunk_is_shown_in_a_line(chunk):
    """No chunk shows its bytes, and all show their kind."""
    assert repr(chunk).startswith(type(chunk).__name__ + "(")
    assert len(repr(chunk)) < 300


@pytest.mark.parametrize("form", [list, np.array])
def test_a_million_tokens_are_shown_in_a_line(form):
    """Neither a chunk nor the input it is in floods a log."""
    long = ModelInput.from_ints(form([150_000] * 1_000_000))
    assert len(repr(long)) < 300
    assert repr(long.chunks[0]) == f"EncodedTextChunk(tokens=[{'150000, ' * 6}... 1000000 in all])"
    assert repr(ImageChunk(data=bytes(10**6), format="png")) == "ImageChunk(png, 1000000 bytes, expected_tokens=None)"
    assert repr(DmelChunk(dmel=bytes(10**6))) == "DmelChunk(1000000 bytes)"


def test_chunks_of_equal_tokens_are_equal():
    """An array and a list of the same tokens are the same text; other tokens and other things are not."""
    chunk = EncodedTextChunk(tokens=[1, 2])
    assert chunk == EncodedTextChunk(tokens=np.array([1, 2]))
    assert chunk != EncodedTextChunk(tokens=[1, 3])
    assert chunk != [1, 2]
    with pytest.raises(TypeError, match="unhashable"):
        hash(chunk)


def test_tokens_are_a_list_whatever_they_were():
    """Programs slice them, join them with ``+`` and ask whether there are any."""
    chunk = EncodedTextChunk(tokens=np.array([1, 2, 3]))
    assert chunk.tokens[:-1] + [9] == [1, 2, 9]  # noqa: RUF005 - the sum is the test
    assert not EncodedTextChunk(tokens=[]).tokens
    assert chunk.length == 3


@pytest.mark.parametrize("form", [list, np.array])
def test_the_buffer_of_a_text_is_what_the_wire_has(form):
    """Token ids are kept as int32, so that writing them is a copy of bytes."""
    assert bytes(EncodedTextChunk(tokens=form([1, 258])).buffer) == b"\1\0\0\0\2\1\0\0"


def test_tokens_of_a_chunk_refuse_to_be_changed():
    """They are a copy: what is added to it would never be sent."""
    chunk = EncodedTextChunk(tokens=[1, 2])
    assert chunk.tokens == [1, 2]
    assert [*chunk.tokens, 3] == [1, 2, 3]
    assert json.dumps(chunk.tokens) == "[1, 2]"
    for change in (lambda: chunk.tokens.append(3), lambda: chunk.tokens.__iadd__([3]), chunk.tokens.clear):
        with pytest.raises(TypeError, match=r"take list\(...\) of it, and make a new value"):
            change()
    assert ModelInput(chunks=[chunk]).to_ints() == [1, 2]


def test_a_chunk_may_be_a_dict_of_its_fields():
    """The field that only it has tells which chunk it is; a dict of no chunk is refused."""
    made = ModelInput(chunks=[{"tokens": [1], "type": "encoded_text"}, {"data": b"x", "format": "png"}, {"dmel": b"x"}])
    assert made == ModelInput(
        chunks=[EncodedTextChunk(tokens=[1]), ImageChunk(data=b"x", format="png"), DmelChunk(dmel=b"x")]
    )
    for wrong in ({"token": [1]}, {"tokens": [1], "weight": 2}):
        with pytest.raises(InvalidInputError, match=r"chunks\[1\] must be a chunk"):
            ModelInput(chunks=[EncodedTextChunk(tokens=[1]), wrong])
    with pytest.raises(InvalidInputError, match=r"tokens\[0\] is -1"):
        ModelInput(chunks=[{"tokens": [-1]}])
