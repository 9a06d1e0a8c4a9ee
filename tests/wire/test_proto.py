"""The binary form: byte for byte that of the wire, nothing lost on the way, nothing crooked gets in."""

from __future__ import annotations

import contextlib
import math
import struct
import subprocess
import sys
from array import array
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import VALUES, any_texts, either, float32s, of, texts, tokens
from tinkex.errors import InvalidInputError
from tinkex.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    PromptAltTokens,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    SampledSequence,
    SampleResponse,
    TensorData,
)
from tinkex.wire import json
from tinkex.wire import tinker_pb2 as pb
from tinkex.wire.proto import (
    RESULTS,
    decode_forward_backward,
    decode_output,
    decode_sample,
    encode_forward_backward,
    encode_output,
    encode_sample,
)

INT32_MAX = 2**31 - 1


def floats(*values: float, shape: list[int] | None = None) -> TensorData:
    """Make a float32 tensor, NaN and all."""
    return TensorData.adopt(data=array("f", values), dtype="float32", shape=shape)


def ints(*values: int, shape: list[int] | None = None) -> TensorData:
    """Make an int64 tensor."""
    return TensorData(data=list(values), dtype="int64", shape=shape)


def request(*data: Datum, loss_fn_config: dict[str, Any] | None = None, **fields: Any) -> ForwardBackwardRequest:
    """Make a request."""
    batch = ForwardBackwardInput(data=data, loss_fn="ppo", loss_fn_config=loss_fn_config)
    return ForwardBackwardRequest(**{"forward_backward_input": batch, "model_id": "m", **fields})


def datum(*chunks: Any, **inputs: TensorData) -> Datum:
    """Make a training example of chunks, or of one text."""
    model_input = ModelInput(chunks=chunks) if chunks else ModelInput.from_ints([1])
    return Datum(model_input=model_input, loss_fn_inputs=inputs)


def output(*outputs: dict[str, TensorData]) -> ForwardBackwardOutput:
    """Make a result."""
    return ForwardBackwardOutput(loss_fn_output_type="X", loss_fn_outputs=list(outputs))


# --- Byte for byte ----------------------------------------------------------------------------------------------

REQUEST = request(
    Datum(model_input=ModelInput.from_ints([7, 8]), loss_fn_inputs={"target_tokens": [8, 9]}),
    model_id="s1:train:0",
    seq_id=3,
    loss_fn_config={"clip_low_threshold": 0.5},
)
REQUEST_BYTES = bytes.fromhex(
    "0a0a73313a747261696e3a3010031a380a0c0a0a0a08070000000800000012280a0d7461726765745f746f6b656e73"
    "12170a10080000000000000009000000000000001802220102220370706f2a1d0a12636c69705f6c6f775f74687265"
    "73686f6c6411000000000000e03f3a1f0a12636c69705f6c6f775f7468726573686f6c64120909000000000000e03f"
)
OUTPUT = ForwardBackwardOutput(
    loss_fn_output_type="CrossEntropyLossReturn",
    loss_fn_outputs=[{"logprobs": floats(-1, -2)}, {"logprobs": floats(-4)}],
    metrics={"loss:sum": 1.5},
)
OUTPUT_BYTES = bytes.fromhex(
    "0a1643726f7373456e74726f70794c6f737352657475726e123a12360a086c6f6770726f6273122a0a0c000080bf"
    "000000c0000080c01218000000000000000008000000000000000c00000000000000180118021a130a086c6f7373"
    "3a73756d11000000000000f83f"
)
SAMPLE = SampleResponse(
    sequences=[SampledSequence(stop_reason="length", tokens=[5], logprobs=[-0.5])],
    prompt_logprobs=[None, -0.25],
    topk_prompt_logprobs=[None, [(11, -0.25)]],
)
SAMPLE_BYTES = bytes.fromhex(
    "0a0e08011204050000001a04000000bf12080000c07f000080be1a180a08000000000b0000001208804fc3c7000080be18012002"
)
STOPPED = SampleResponse(sequences=[SampledSequence(stop_reason="stop", tokens=[5])])
STOPPED_BYTES = bytes.fromhex("0a06120405000000")


@pytest.mark.parametrize(
    ("value", "raw", "encode", "decode"),
    [
        (REQUEST, REQUEST_BYTES, encode_forward_backward, decode_forward_backward),
        (OUTPUT, OUTPUT_BYTES, encode_output, decode_output),
        (SAMPLE, SAMPLE_BYTES, encode_sample, decode_sample),
        (STOPPED, STOPPED_BYTES, encode_sample, decode_sample),
    ],
    ids=["request", "output", "sample", "stopped sample"],
)
def test_what_is_written_is_what_the_wire_has(value, raw, encode, decode):
    """We write the bytes that other clients and servers write, and read theirs as what they mean."""
    assert encode(value) == raw
    assert decode(raw) == value


FIELDS = {
    "ForwardBackwardRequest": "model_id seq_id data loss_fn loss_fn_config forward_only loss_fn_config_v2",
    "LossConfigValue": "number text",
    "Datum": "model_input loss_fn_inputs model_input_spans loss_fn_input_spans",
    "ProvenanceSpan": "prompt_tokens sampled_tokens",
    "PromptProvenanceSpan": "sequence_id offset length",
    "SampledProvenanceSpan": "sequence_id offset length",
    "Chunk": "encoded_text image dmel",
    "EncodedTextChunk": "tokens",
    "ImageChunk": "data format expected_tokens override_dimensions",
    "ImageDimensions": "width height",
    "DmelChunk": "dmel",
    "Tensor": "dense sparse_csr dtype shape",
    "SparseCsr": "values crow_indices col_indices",
    "ForwardBackwardOutput": "loss_fn_output_type loss_fn_outputs metrics",
    "ArrayRecord": "type_tag fields num_datums",
    "BatchedTensor": "data offsets dtype trailing_shape",
    "SampleResponse": "sequences prompt_logprobs topk_prompt_logprobs prompt_cache_hit_tokens target_prompt_logprobs "
    "prompt_alt_tokens",
    "SampledSequence": "stop_reason tokens logprobs topk_sampled_logprobs",
    "TopkLogprobs": "token_ids logprobs k length",
    "PromptAltTokens": "tokens logprobs",
}


def test_the_fields_have_the_numbers_of_the_wire():
    """In every message the fields are numbered from 1 in the order of the specification."""
    found = {
        name: " ".join(field.name for field in sorted(message.fields, key=lambda field: field.number))
        for name, message in pb.DESCRIPTOR.message_types_by_name.items()
    }
    assert found == FIELDS
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        assert sorted(field.number for field in message.fields) == list(range(1, len(message.fields) + 1))


def test_a_written_request_is_what_the_protobuf_library_would_write():
    """Messages that we put together ourselves are the library's, bit by bit, for every kind of chunk and tensor."""
    sparse = TensorData(
        data=[7, 8], dtype="int64", shape=[3, 100], sparse_crow_indices=[0, 1, 1, 2], sparse_col_indices=[0, 4]
    )
    raw = encode_forward_backward(
        request(
            datum(EncodedTextChunk(tokens=list(range(300))), DmelChunk(dmel=b"\1\2"), target_tokens=sparse),
            datum(ImageChunk(data=bytes(200), format="png", expected_tokens=0), weights=floats(0.5, shape=[1, 1])),
            datum(weights=floats()),
            loss_fn_config={"beta": 1, "name": "x"},
            seq_id=INT32_MAX,
        )
    )
    assert pb.ForwardBackwardRequest.FromString(raw).SerializeToString(deterministic=True) == raw


# --- Round trips ------------------------------------------------------------------------------------------------


def fits(value: ForwardBackwardRequest | ForwardRequest) -> bool:
    """Tell whether a request has a binary form."""
    batch = value.forward_input if isinstance(value, ForwardRequest) else value.forward_backward_input
    chunks = [chunk for datum in batch.data for chunk in datum.model_input.chunks]
    pictures = [chunk.expected_tokens or 0 for chunk in chunks if isinstance(chunk, ImageChunk)]
    pointers = any(isinstance(chunk, ImageAssetPointerChunk) for chunk in chunks)
    return not pointers and max([value.seq_id or 0, *pictures]) <= INT32_MAX


def with_config_or_none(value: ForwardBackwardRequest | ForwardRequest) -> ForwardBackwardRequest | ForwardRequest:
    """Write an empty ``loss_fn_config`` as None: the binary form cannot tell them apart."""
    name = "forward_input" if isinstance(value, ForwardRequest) else "forward_backward_input"
    batch = getattr(value, name)
    return attrs.evolve(value, **{name: attrs.evolve(batch, loss_fn_config=batch.loss_fn_config or None)})


@given(st.one_of(VALUES[ForwardBackwardRequest], VALUES[ForwardRequest]))
def test_a_request_comes_back_or_is_refused(value):
    """Lists or arrays, sparse or dense, text, image or audio: all come back equal, as JSON would bring them back."""
    if not fits(value):
        with pytest.raises(InvalidInputError):
            encode_forward_backward(value)
        return
    read = decode_forward_backward(encode_forward_backward(value))
    assert read == with_config_or_none(value)
    assert with_config_or_none(json.decode(json.encode(value), type(value))) == read


def test_provenance_comes_back():
    """Both lists of a datum, in order, each run as what it was; the bytes are those of the protobuf library."""
    prompt = PromptProvenanceSpan(sequence_id="s1", length=2)
    sampled = SampledProvenanceSpan(sequence_id="s1", offset=1, length=2**40)
    spans = {"model_input_spans": [prompt, sampled], "loss_fn_input_spans": [sampled]}
    noted = Datum(model_input=ModelInput.from_ints([1, 2, 3]), loss_fn_inputs={"target_tokens": [2, 3, 4]}, **spans)
    value = request(noted, datum(weights=floats(1)))
    raw = encode_forward_backward(value)
    assert decode_forward_backward(raw) == value
    assert pb.ForwardBackwardRequest.FromString(raw).SerializeToString(deterministic=True) == raw
    prompt_run, sampled_run = pb.ForwardBackwardRequest.FromString(raw).data[0].model_input_spans
    assert (prompt_run.prompt_tokens.length, sampled_run.sampled_tokens.offset) == (2, 1)


def test_provenance_that_does_not_fit_is_refused():
    """The error names the datum and the run, on both ways."""
    big = PromptProvenanceSpan(sequence_id="s", length=2**63)
    noted = Datum(
        model_input=ModelInput.from_ints([1]), loss_fn_inputs={}, model_input_spans=[big], loss_fn_input_spans=[]
    )
    with pytest.raises(InvalidInputError, match=r"data\[0\]: model_input_spans\[0\]: .*has no binary form"):
        encode_forward_backward(request(noted))
    for span, error in ((pb.ProvenanceSpan(), "neither prompt nor sampled"), (_NAMELESS, "sequence_id must be")):
        raw = pb.ForwardBackwardRequest(data=[pb.Datum(loss_fn_input_spans=[span])], loss_fn="ppo", model_id="m")
        with pytest.raises(InvalidInputError, match=rf"data\[0\]: loss_fn_input_spans\[0\]: .*{error}"):
            decode_forward_backward(raw.SerializeToString())


_NAMELESS = pb.ProvenanceSpan(prompt_tokens=pb.PromptProvenanceSpan(length=1))

any_float32s = st.floats(width=32)
shapes = st.tuples(st.integers(0, 3)) | st.tuples(st.integers(0, 3), st.integers(1, 3))


@st.composite
def computed(draw: st.DrawFn, numbers: st.SearchStrategy[float] = any_float32s) -> TensorData:
    """Make a tensor as a server computes it."""
    shape = draw(shapes)
    count = math.prod(shape)
    if draw(st.booleans()):
        values = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count))
        return ints(*values, shape=list(shape))
    return floats(*draw(st.lists(numbers, min_size=count, max_size=count)), shape=list(shape))


def outputs(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[ForwardBackwardOutput]:
    """Make results whose outputs may be ragged in every way."""
    return st.builds(
        ForwardBackwardOutput,
        loss_fn_output_type=texts.filter(lambda text: ":" not in text),
        loss_fn_outputs=st.lists(st.dictionaries(st.sampled_from("abc"), computed(numbers), max_size=3), max_size=5),
        metrics=st.dictionaries(any_texts, numbers, max_size=3),
    )


def exact(value: ForwardBackwardOutput) -> Any:
    """Return what can be compared although it may hold NaN."""
    tensors = [
        {name: (tensor.dtype, tensor.full_shape, bytes(tensor.buffer)) for name, tensor in datum.items()}
        for datum in value.loss_fn_outputs
    ]
    metrics = {name: struct.pack("d", number) for name, number in value.metrics.items()}
    return value.loss_fn_output_type, tensors, metrics


@given(outputs(any_float32s))
def test_an_output_comes_back(value):
    """Every number comes back with its bits, NaN too, whatever the shapes and however they change between datums."""
    assert exact(decode_output(encode_output(value))) == exact(value)


@given(outputs(float32s))
def test_an_output_means_the_same_in_both_forms(value):
    """A reader gets equal results whichever form it asked for."""
    assert decode_output(encode_output(value)) == json.decode(json.encode(value), ForwardBackwardOutput) == value


rows = st.lists(either(st.lists(st.tuples(tokens, float32s), min_size=1, max_size=3)), min_size=1, max_size=3)
samples = of(
    SampleResponse,
    sequences=st.lists(
        of(
            SampledSequence,
            stop_reason=st.sampled_from(["stop", "length"]),
            tokens=st.lists(tokens, max_size=5),
            logprobs=either(st.lists(float32s, min_size=1, max_size=5)),
            topk_logprobs=either(rows),
        ),
        max_size=3,
    ),
    prompt_logprobs=either(st.lists(either(float32s), min_size=1, max_size=4)),
    topk_prompt_logprobs=either(rows),
    target_prompt_logprobs=either(VALUES[TensorData]),
    prompt_cache_hit_tokens=st.integers(0, INT32_MAX),
    prompt_alt_tokens=either(VALUES[PromptAltTokens]),
)


@given(samples)
def test_a_sample_means_the_same_in_both_forms(value):
    """Everything in a sample comes back, and equal to what JSON brings back."""
    assert decode_sample(encode_sample(value)) == json.decode(json.encode(value), SampleResponse) == value


@given(st.data())
def test_a_damaged_body_is_an_error_of_ours(data):
    """Whatever happens to the bytes on the way, they read as some value or as an error that says what is wrong."""
    raw, decode = data.draw(
        st.sampled_from(
            [
                (REQUEST_BYTES, decode_forward_backward),
                (OUTPUT_BYTES, decode_output),
                (SAMPLE_BYTES, decode_sample),
            ]
        )
    )
    damaged = bytearray(raw[: data.draw(st.integers(1, len(raw)))])
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidInputError):
        decode(bytes(damaged))


@pytest.mark.parametrize("cls", RESULTS, ids=lambda cls: cls.__name__)
def test_results_are_found_by_their_type(cls):
    """Who has a result and its type needs to know no more."""
    value = {ForwardBackwardOutput: OUTPUT, SampleResponse: SAMPLE}[cls]
    encode, decode = RESULTS[cls]
    assert decode(encode(value)) == value


# --- Requests ---------------------------------------------------------------------------------------------------


def test_forward_is_a_forward_backward_without_gradient():
    """One flag tells them apart."""
    forward = ForwardRequest(forward_input=REQUEST.forward_backward_input, model_id="m")
    raw = encode_forward_backward(forward)
    assert pb.ForwardBackwardRequest.FromString(raw).forward_only
    assert decode_forward_backward(raw) == forward
    assert not pb.ForwardBackwardRequest.FromString(REQUEST_BYTES).forward_only


def test_the_settings_of_a_loss_go_into_both_maps():
    """Numbers go where older servers look and where newer ones do; texts only the newer ones know."""
    message = pb.ForwardBackwardRequest.FromString(
        encode_forward_backward(request(loss_fn_config={"beta": 2, "loss_id": "x"}))
    )
    assert dict(message.loss_fn_config) == {"beta": 2.0}
    assert message.loss_fn_config_v2["beta"].number == 2.0
    assert message.loss_fn_config_v2["loss_id"].text == "x"


def test_the_newer_settings_win():
    """Clients of before and after the change are understood, and of the two maps the newer one counts."""
    message = pb.ForwardBackwardRequest(model_id="m", loss_fn="ppo", loss_fn_config={"old": 1.0})
    assert read(message).forward_backward_input.loss_fn_config == {"old": 1.0}
    message.loss_fn_config_v2["new"].number = 2.0
    assert read(message).forward_backward_input.loss_fn_config == {"new": 2.0}


def read(message: Any) -> Any:
    """Read a message as a request."""
    return decode_forward_backward(message.SerializeToString())


def message_with(**fields: Any) -> Any:
    """Make a request whose second datum has the fields."""
    good = pb.Datum(model_input=[pb.Chunk(encoded_text=pb.EncodedTextChunk(tokens=bytes(4)))])
    return pb.ForwardBackwardRequest(model_id="m", loss_fn="ppo", data=[good, pb.Datum(**fields)])


def tensor_message(**fields: Any) -> Any:
    """Make a request with a tensor of the fields."""
    return message_with(loss_fn_inputs={"weights": pb.Tensor(**fields)})


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (message_with(model_input=[pb.Chunk()]), r"data\[1\]: model_input.chunks\[0\]: it is neither text"),
        (
            message_with(model_input=[pb.Chunk(encoded_text=pb.EncodedTextChunk(tokens=b"abc"))]),
            r"data\[1\]: model_input.chunks\[0\]: tokens has 3 bytes, which is no multiple of 4",
        ),
        (
            message_with(model_input=[pb.Chunk(encoded_text=pb.EncodedTextChunk(tokens=b"\xff" * 4))]),
            r"data\[1\]: model_input.chunks\[0\]: tokens\[0\] is -1; it must lie between",
        ),
        (
            message_with(model_input=[pb.Chunk(image=pb.ImageChunk(format="gif"))]),
            r"data\[1\]: model_input.chunks\[0\]: ImageChunk.format must be one of",
        ),
        (tensor_message(dense=b""), r"data\[1\]: loss_fn_inputs\['weights'\]: dtype 0 is unknown"),
        (tensor_message(dense=b"", dtype=9), r"loss_fn_inputs\['weights'\]: dtype 9 is unknown"),
        (tensor_message(dense=bytes(6), dtype=1), r"\['weights'\]: data has 6 bytes, which is no multiple of 4"),
        (tensor_message(dense=bytes(4), dtype=1, shape=[2]), r"\['weights'\]: shape \[2\] needs 2 values, data has 1"),
        (tensor_message(dense=bytes(4), dtype=1, shape=[-1]), r"\['weights'\]: shape\[0\] is -1"),
        (tensor_message(dense=struct.pack("f", math.nan), dtype=1), r"\['weights'\]: data\[0\] is nan"),
        (
            tensor_message(sparse_csr=pb.SparseCsr(values=bytes(4)), dtype=1),
            r"\['weights'\]: a CSR tensor needs sparse_crow_indices",
        ),
        (
            tensor_message(sparse_csr=pb.SparseCsr(crow_indices=b"x"), dtype=1),
            r"\['weights'\]: crow_indices has 1 bytes",
        ),
        (pb.ForwardBackwardRequest(loss_fn="ppo"), r"ForwardBackwardRequest.model_id must be a non-empty text"),
        (pb.ForwardBackwardRequest(model_id="m"), r"ForwardBackwardInput.loss_fn must be a non-empty text"),
        (pb.ForwardBackwardRequest(model_id="m", loss_fn="ppo", seq_id=-1), r"seq_id must be a whole number"),
        (
            pb.ForwardBackwardRequest(model_id="m", loss_fn="ppo", loss_fn_config_v2={"x": pb.LossConfigValue()}),
            r"loss_fn_config\['x'\] is neither a number nor a text",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(message, error):
    """The error names the datum and what is wrong with it."""
    with pytest.raises(InvalidInputError, match=error) as caught:
        read(message)
    if message.data:
        assert caught.value.index == 1
        assert caught.value.field.startswith("data[1].")


def test_what_is_not_protobuf_is_refused():
    """JSON under the wrong name is no request."""
    with pytest.raises(InvalidInputError, match="not a ForwardBackwardRequest in binary form"):
        decode_forward_backward(b'{"model_id": "m"}')


def test_an_image_pointer_has_no_place_in_training():
    """The datum is named, and the way out."""
    pointer = ImageAssetPointerChunk(location="a.png", format="png")
    with pytest.raises(
        InvalidInputError, match=r"data\[1\]: model_input.chunks\[0\]: an image that the server fetches .*ImageChunk"
    ) as caught:
        encode_forward_backward(request(datum(), datum(pointer)))
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (request(seq_id=2**31), "seq_id=2147483648 has no binary form"),
        (
            request(datum(ImageChunk(data=b"", format="png", expected_tokens=2**31))),
            r"data\[0\]: .*expected_tokens=2147483648 has no binary form",
        ),
    ],
)
def test_numbers_too_large_for_the_wire_are_refused(value, error):
    """No number wraps around."""
    with pytest.raises(InvalidInputError, match=error):
        encode_forward_backward(value)


def test_widths_that_clients_do_not_send_are_read_all_the_same():
    """A tensor of int32 or bfloat16 is as good as one of int64 or float32."""
    raw = tensor_message(dense=struct.pack("<2i", -1, 2), dtype=pb.DTYPE_INT32)
    assert read(raw).forward_backward_input.data[1].loss_fn_inputs["weights"] == ints(-1, 2)


# --- Results ----------------------------------------------------------------------------------------------------


def batch(data: bytes, offsets: list[int], dtype: Any = pb.DTYPE_FLOAT32, trailing: tuple[int, ...] = ()) -> Any:
    """Make the arrays of several datums."""
    packed = array("q", offsets).tobytes()
    return pb.BatchedTensor(data=data, offsets=packed, dtype=dtype, trailing_shape=trailing)


def result(*records: Any, **fields: Any) -> ForwardBackwardOutput:
    """Read records as a result."""
    return decode_output(pb.ForwardBackwardOutput(loss_fn_outputs=records, **fields).SerializeToString())


@pytest.mark.parametrize(
    ("dtype", "data", "tensor"),
    [
        (pb.DTYPE_FLOAT32, struct.pack("<2f", 0.5, -2), floats(0.5, -2)),
        (pb.DTYPE_INT64, struct.pack("<2q", 2**40, -2), ints(2**40, -2)),
        (pb.DTYPE_INT32, struct.pack("<2i", INT32_MAX, -2), ints(INT32_MAX, -2)),
        (pb.DTYPE_BFLOAT16, b"\x00\x3f\x00\xc0\x80\x7f", floats(0.5, -2, math.inf)),
    ],
)
def test_every_type_is_widened_to_one_of_ours(dtype, data, tensor):
    """int32 becomes int64, and bfloat16 is the upper half of a float32."""
    read = result(pb.ArrayRecord(fields={"x": batch(data, [0, len(data)], dtype)}, num_datums=1))
    assert read.loss_fn_outputs == [{"x": tensor}]


def test_datums_are_joined_over_the_records():
    """Each record has its own trailing shape; an output may be empty, and a record may have no fields."""
    read = result(
        pb.ArrayRecord(fields={"x": batch(struct.pack("<3f", 1, 2, 3), [0, 8, 8, 12])}, num_datums=3),
        pb.ArrayRecord(fields={"x": batch(struct.pack("<6f", *range(6)), [0, 24], trailing=(2,))}, num_datums=1),
        pb.ArrayRecord(num_datums=2),
    )
    assert [tensor["x"].full_shape for tensor in read.loss_fn_outputs[:4]] == [(2,), (0,), (1,), (3, 2)]
    assert read.loss_fn_outputs[3]["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read.loss_fn_outputs[4:] == [{}, {}]


def test_a_server_that_does_not_count_is_understood():
    """Where no record says how many datums it has, the first field does."""
    read = result(pb.ArrayRecord(fields={"x": batch(bytes(8), [0, 4, 8])}), pb.ArrayRecord())
    assert read.loss_fn_outputs == [{"x": floats(0)}, {"x": floats(0)}]


def test_ragged_outputs_go_into_several_records():
    """A field whose other dimensions, type or presence change begins a new record, and the order stays."""
    parts = [
        {"a": floats(1), "b": ints(1)},
        {"b": ints(1, 2), "a": floats()},
        {"a": floats(1, 2, shape=[1, 2])},
        {},
        {},
        {"a": ints(3)},
    ]
    raw = encode_output(output(*parts))
    assert [record.num_datums for record in pb.ForwardBackwardOutput.FromString(raw).loss_fn_outputs] == [2, 1, 2, 1]
    assert decode_output(raw).loss_fn_outputs == parts


def test_names_are_read_in_order():
    """Maps have no order on the wire; a table of metrics or fields must not change from one run to the next."""
    names = [f"name{number:02}" for number in range(40)]
    value = ForwardBackwardOutput(
        loss_fn_output_type="X",
        loss_fn_outputs=[{name: floats(1) for name in reversed(names)}],
        metrics=dict.fromkeys(reversed(names), 1.0),
    )
    read = decode_output(encode_output(value))
    assert list(read.metrics) == list(read.loss_fn_outputs[0]) == names


def test_sparse_outputs_are_refused():
    """The outputs of a loss have no sparse form on the wire."""
    sparse = TensorData(data=[], dtype="int64", shape=[0, 1], sparse_crow_indices=[0], sparse_col_indices=[])
    with pytest.raises(InvalidInputError, match="'x' is sparse"):
        encode_output(output({"x": sparse}))


@pytest.mark.parametrize(
    ("given_type", "records", "kind"),
    [
        ("module:CrossEntropyLossReturn", [pb.ArrayRecord(num_datums=1)], "CrossEntropyLossReturn"),
        ("a:b:C", [], "C"),
        ("", [], "ArrayRecord"),
        ("", [pb.ArrayRecord(num_datums=1)], ""),
    ],
)
def test_the_kind_of_output_is_named_without_its_module(given_type, records, kind):
    """What follows the last colon counts; where there is nothing at all, there is a name for it."""
    assert result(*records, loss_fn_output_type=given_type).loss_fn_output_type == kind


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"x": batch(bytes(8), [0, 4])}, r"fields\['x'\] has 1 entries for 2 datums"),
        ({"x": batch(bytes(8), [0, 4, 8, 8])}, r"fields\['x'\] has 3 entries for 2 datums"),
        ({"x": batch(bytes(8), [])}, r"fields\['x'\] has 0 entries for 2 datums"),
        ({"x": batch(bytes(8), [0, 4, 12])}, r"fields\['x'\]: offsets must rise from 0 to at most 8"),
        ({"x": batch(bytes(8), [0, 8, 4])}, r"fields\['x'\]: offsets must rise"),
        ({"x": batch(bytes(8), [-4, 0, 4])}, r"fields\['x'\]: offsets must rise"),
        ({"x": batch(bytes(8), [0, 3, 8])}, r"fields\['x'\]: data has 3 bytes, which is no multiple of 4"),
        ({"x": batch(bytes(8), [0, 2, 8], dtype=pb.DTYPE_INT64)}, r"fields\['x'\]: data has 2 bytes"),
        ({"x": batch(bytes(8), [0, 4, 8], dtype=0)}, r"fields\['x'\]: dtype 0 is unknown"),
        ({"x": batch(bytes(8), [0, 4, 8], dtype=17)}, r"fields\['x'\]: dtype 17 is unknown"),
        ({"x": batch(bytes(8), [0, 4, 8], trailing=(2,))}, r"fields\['x'\]: shape \[0, 2\] needs 0 values, data has 1"),
        ({"x": batch(bytes(8), [0, 4, 8], trailing=(-1, -1))}, r"fields\['x'\]: trailing_shape is \[-1, -1\]"),
        ({"x": batch(bytes(8), [0, 4, 8], trailing=(0,))}, r"fields\['x'\]: shape \[0, 0\] needs 0 values"),
        ({"x": pb.BatchedTensor(dtype=1, offsets=b"x")}, r"fields\['x'\]: offsets has 1 bytes"),
    ],
)
def test_a_result_that_does_not_add_up_is_refused(fields, error):
    """No output is lost or invented: offsets, counts and shapes must agree, and the error says which do not."""
    with pytest.raises(InvalidInputError, match=r"loss_fn_outputs\[1\]: " + error):
        result(pb.ArrayRecord(num_datums=1), pb.ArrayRecord(fields=fields, num_datums=2))


def test_nothing_and_no_logprob_are_absent():
    """An empty list is absent on this wire; a position without a logprob is NaN."""
    empty = SampleResponse(
        sequences=[SampledSequence(stop_reason="stop", tokens=[], logprobs=[], topk_logprobs=[])],
        prompt_logprobs=[],
        topk_prompt_logprobs=[],
    )
    read = decode_sample(encode_sample(empty))
    assert read == SampleResponse(sequences=[SampledSequence(stop_reason="stop", tokens=[])])
    assert decode_sample(encode_sample(attrs.evolve(empty, prompt_logprobs=[None, math.nan]))).prompt_logprobs == [
        None,
        None,
    ]


def test_rows_of_the_likeliest_tokens_are_padded():
    """Rows may be shorter than k: what is missing at their end is cut, and an empty row is None."""
    rows = [None, [(3, -0.5)], [(0, -1.0), (4, -2.0)], []]
    read = decode_sample(encode_sample(SampleResponse(sequences=[], topk_prompt_logprobs=rows)))
    assert read.topk_prompt_logprobs == [None, [(3, -0.5)], [(0, -1.0), (4, -2.0)], None]
    only_none = SampleResponse(sequences=[], topk_prompt_logprobs=[None, None])
    assert decode_sample(encode_sample(only_none)) == only_none


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"sequences": [pb.SampledSequence(), pb.SampledSequence(stop_reason=7)]}, r"\[1\]: stop_reason 7 is unknown"),
        ({"sequences": [pb.SampledSequence(tokens=b"abc")]}, r"sequences\[0\]: tokens has 3 bytes"),
        ({"sequences": [pb.SampledSequence(logprobs=b"abc")]}, r"sequences\[0\]: logprobs has 3 bytes"),
        ({"prompt_logprobs": b"a"}, r"prompt_logprobs has 1 bytes"),
        ({"prompt_cache_hit_tokens": -1}, r"prompt_cache_hit_tokens must be a whole number"),
        (
            {"topk_prompt_logprobs": pb.TopkLogprobs(token_ids=bytes(8), logprobs=bytes(4), k=1, length=2)},
            r"topk_prompt_logprobs has 2 tokens and 1 logprobs for 2 rows of 1",
        ),
        ({"target_prompt_logprobs": pb.Tensor(dense=bytes(4))}, r"target_prompt_logprobs: dtype 0 is unknown"),
        ({"prompt_alt_tokens": pb.PromptAltTokens()}, r"prompt_alt_tokens: dtype 0 is unknown"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(message, error):
    """The error names the sequence and the field."""
    with pytest.raises(InvalidInputError, match=error):
        decode_sample(pb.SampleResponse(**message).SerializeToString())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (SampleResponse(sequences=[SampledSequence(stop_reason="stop", tokens=[2**31])]), r"sequences\[0\]: a number"),
        (SampleResponse(sequences=[SampledSequence(stop_reason="stop", tokens=[1.5])]), r"sequences\[0\]: a number"),
        (SampleResponse(sequences=[], prompt_logprobs=[1e39]), "a number has no binary form"),
        (SampleResponse(sequences=[], prompt_cache_hit_tokens=2**31), "prompt_cache_hit_tokens=2147483648"),
    ],
)
def test_a_sample_without_a_binary_form_is_refused(response, error):
    """A number that does not fit its type on the wire is an error, not another number."""
    with pytest.raises(InvalidInputError, match=error):
        encode_sample(response)


def test_the_likeliest_tokens_as_matrices():
    """For programs that compute with them: rows of k cells, the empty ones marked."""
    sequence = SampledSequence(
        stop_reason="stop", tokens=[1, 2], logprobs=[-0.5, -1], topk_logprobs=[None, [(3, -0.5)]]
    )
    assert sequence.tokens_np.dtype == np.dtype("int32")
    assert sequence.logprobs_np.tolist() == [-0.5, -1.0]
    assert sequence.topk_logprobs_np.token_ids.tolist() == [[0], [3]]
    assert sequence.topk_logprobs_np.logprobs.tolist() == [[-99999.0], [-0.5]]
    response = SampleResponse(sequences=[], prompt_logprobs=[None, -1.0], topk_prompt_logprobs=[None, None])
    assert np.isnan(response.prompt_logprobs_np).tolist() == [True, False]
    assert response.topk_prompt_logprobs_np.token_ids.shape == (2, 0)
    nothing = SampledSequence(stop_reason="stop", tokens=[])
    assert (nothing.logprobs_np, nothing.topk_logprobs_np) == (None, None)
    nothing = SampleResponse(sequences=[])
    assert (nothing.prompt_logprobs_np, nothing.topk_prompt_logprobs_np) == (None, None)


# --- Weight -----------------------------------------------------------------------------------------------------


def run(code: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_protobuf_is_loaded_by_those_who_use_it():
    """``import tinkex`` stays light."""
    code = "import sys, tinkex, tinkex.clients, tinkex.resources; print('google.protobuf' in sys.modules)"
    assert run(code) == "False\n"


def test_the_binary_form_needs_no_numpy():
    """Lists go in and come out without NumPy, and are read without it."""
    code = (
        "import sys; from tinkex.wire import proto; from tinkex.types import *;"
        "d = Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={'target_tokens': [2], 'weights': [1]});"
        "i = ForwardBackwardInput(data=[d], loss_fn='cross_entropy');"
        "r = ForwardBackwardRequest(forward_backward_input=i, model_id='m');"
        "assert proto.decode_forward_backward(proto.encode_forward_backward(r)) == r;"
        "o = ForwardBackwardOutput(loss_fn_output_type='x', loss_fn_outputs=[d.loss_fn_inputs]);"
        "assert proto.decode_output(proto.encode_output(o)).loss_fn_outputs[0]['weights'].tolist() == [1.0];"
        "print('numpy' in sys.modules)"
    )
    assert run(code) == "False\n"
