"""Taking a field out of a message where it is: the same as protobuf finds, and nothing but InvalidInputError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.errors import InvalidInputError
from tinkex.wire import tinker_pb2 as pb
from tinkex.wire._packing import joined, take_out

BYTES = st.binary(max_size=300)
NUMBERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@st.composite
def batches(draw):
    """Arrays with everything that a message may hold: bytes, numbers of one and of ten bytes, lists of them."""
    return pb.BatchedTensor(
        data=draw(BYTES),
        offsets=draw(BYTES),
        dtype=draw(st.sampled_from([0, pb.DTYPE_FLOAT32, pb.DTYPE_INT64])),
        trailing_shape=draw(st.lists(NUMBERS, max_size=3)),
    )


@given(batches())
def test_what_is_left_and_what_is_taken_make_the_message(batch):
    """The field has its value, and protobuf reads all others from what is left."""
    rest, values = take_out(memoryview(batch.SerializeToString()), 1)
    assert ([bytes(value) for value in values] or [b""])[-1] == batch.data
    batch.ClearField("data")
    assert pb.BatchedTensor.FromString(rest) == batch


@given(st.lists(batches(), max_size=4), st.text(max_size=200), st.floats(allow_nan=False))
def test_a_repeated_message_is_found_each_time(batch, text, number):
    """In order, wherever the other fields stand; also those of eight bytes, and of a later schema."""
    records = [pb.ArrayRecord(fields={"x": one}, num_datums=1) for one in batch]
    output = pb.ForwardBackwardOutput(loss_fn_outputs=records, metrics={text: number})
    later = b"\x9d\x06" + bytes(4) + b"\x99\x06" + bytes(8)  # field 99 as 32 bits, then as 64
    _, values = take_out(memoryview(output.SerializeToString() + later), 2)
    assert [pb.ArrayRecord.FromString(bytes(value)) for value in values] == records


@given(batches(), batches())
def test_a_message_that_comes_twice_is_merged(first, second):
    """As the specification of protobuf has it."""
    merged = pb.BatchedTensor()
    merged.CopyFrom(first)
    merged.MergeFrom(second)
    parts = [memoryview(one.SerializeToString()) for one in (first, second)]
    assert pb.BatchedTensor.FromString(bytes(joined(parts))) == merged
    assert joined(parts[:1]) is parts[0]


@given(BYTES)
def test_no_bytes_do_harm(raw):
    """Anything is either a message or refused."""
    try:
        rest, values = take_out(memoryview(raw), 1)
    except InvalidInputError:
        return
    assert len(rest) + sum(map(len, values)) <= len(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x0a", "ends within a number"),
        (b"\xff" * 11, "ends within a number"),
        (b"\x0a\x05ab", "ends 3 bytes too late"),
        (b"\x0d\x00", "ends 3 bytes too late"),
        (b"\x0b", "unknown wire type 3"),
    ],
)
def test_what_is_no_message_is_refused(raw, words):
    """With the reason."""
    with pytest.raises(InvalidInputError, match=words):
        take_out(memoryview(raw), 1)
