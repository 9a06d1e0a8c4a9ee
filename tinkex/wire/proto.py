"""The binary form of the API's values: protobuf for the small parts, the arrays as the bytes that they are.

Only forward_backward requests and the results of forward, forward_backward and asample have this form;
everything else is JSON. The rules of the wire that the schema (``tinker.proto``) cannot say:

* arrays are packed little-endian, which is the order of every machine that this package supports;
* a tensor is float32 or int64; results may also hold int32 and bfloat16, which are widened here;
* a result may hold NaN, which JSON cannot;
* ``forward`` is ``forward_backward`` with ``forward_only``;
* numbers of ``loss_fn_config`` go into both of its maps, texts only into the second, which wins when read;
* maps have no order, so names come back sorted;
* what is empty or 0 is absent, so an empty ``loss_fn_config`` or list of logprobs reads as None,
  and so do the spans of a datum where both lists are empty.

Importing this module loads the protobuf library, so import it where it is needed.
"""

from __future__ import annotations

import functools
import itertools
import math
from array import array
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import attrs
from google.protobuf.message import DecodeError

from tinkex.errors import InvalidInputError
from tinkex.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
    ImageChunk,
    ImageFormat,
    ModelInput,
    ModelInputChunk,
    PromptAltTokens,
    PromptProvenanceSpan,
    ProvenanceSpans,
    SampledProvenanceSpan,
    SampledSequence,
    SampleResponse,
    StopReason,
    TensorData,
)
from tinkex.types._numbers import Values
from tinkex.types.sampling import MASK_LOGPROB, TopkRows
from tinkex.types.tensors import TensorDtype
from tinkex.wire import tinker_pb2 as pb
from tinkex.wire._packing import (
    At,
    Message,
    head,
    joined,
    nbytes,
    pack,
    pack_list,
    take_out,
    unpack,
    view,
    widen_bfloat16,
    widen_int32,
)

__all__ = [
    "CONTENT_TYPE",
    "RESULTS",
    "compose_forward_backward",
    "decode_forward_backward",
    "decode_output",
    "decode_sample",
    "encode_forward_backward",
    "encode_output",
    "encode_sample",
]

M = TypeVar("M")
CONTENT_TYPE = "application/x-protobuf"

_OUTPUT_TYPE = "ArrayRecord"
"""Name of the kind of output where a server that returns no outputs does not say it."""
_EMPTY_CELL = (0, MASK_LOGPROB)
_STOP_REASONS: dict[pb.StopReason, StopReason] = {pb.STOP_REASON_STOP: "stop", pb.STOP_REASON_LENGTH: "length"}
_STOP_NUMBERS = {name: number for number, name in _STOP_REASONS.items()}
_DTYPES: dict[TensorDtype, tuple[pb.DType, str]] = {"float32": (pb.DTYPE_FLOAT32, "f"), "int64": (pb.DTYPE_INT64, "q")}

_SPAN_FIELDS = {3: "model_input_spans", 4: "loss_fn_input_spans"}
_SPANS: dict[str, type[PromptProvenanceSpan] | type[SampledProvenanceSpan]] = {
    "prompt_tokens": PromptProvenanceSpan,
    "sampled_tokens": SampledProvenanceSpan,
}


# --- forward_backward: the request ---------------------------------------------------------------------------------


def encode_forward_backward(request: ForwardBackwardRequest | ForwardRequest) -> bytes:
    """Write a training request; see :func:`compose_forward_backward`."""
    return compose_forward_backward(request).join()


def compose_forward_backward(request: ForwardBackwardRequest | ForwardRequest) -> Message:
    """Put a training request together; its arrays are those of the request, not copies.

    Raises:
        InvalidInputError: Something in it has no binary form; the message names the datum.
    """
    forward_only = isinstance(request, ForwardRequest)
    batch = request.forward_input if isinstance(request, ForwardRequest) else request.forward_backward_input
    written = Message()
    written.append(_written(_small(pb.ForwardBackwardRequest, model_id=request.model_id, seq_id=request.seq_id or 0)))
    for index, datum in enumerate(batch.data):
        with At("data", index, index):
            written.nest(3, _datum(datum))
    rest = pb.ForwardBackwardRequest(loss_fn=batch.loss_fn, forward_only=forward_only)
    for name, value in (batch.loss_fn_config or {}).items():
        if isinstance(value, str):
            rest.loss_fn_config_v2[name].text = value
        else:
            rest.loss_fn_config[name] = rest.loss_fn_config_v2[name].number = value
    return written.append(_written(rest))


def _datum(datum: Datum) -> Message:
    written = Message()
    for position, chunk in enumerate(datum.model_input.chunks):
        with At("model_input.chunks", position):
            _add_chunk(written, chunk)
    for name, tensor in datum.loss_fn_inputs.items():
        with At("loss_fn_inputs", name):
            _add_input(written, name, tensor)
    for number, field in _SPAN_FIELDS.items():
        for position, span in enumerate(getattr(datum, field) or ()):
            with At(field, position):
                written.nest(number, Message().append(_written(_span(span))))
    return written


def _span(span: PromptProvenanceSpan | SampledProvenanceSpan) -> pb.ProvenanceSpan:
    numbers = {"offset": span.offset, "length": span.length}
    if isinstance(span, SampledProvenanceSpan):
        sampled = _small(pb.SampledProvenanceSpan, sequence_id=span.sequence_id, **numbers)
        return pb.ProvenanceSpan(sampled_tokens=sampled)
    return pb.ProvenanceSpan(prompt_tokens=_small(pb.PromptProvenanceSpan, sequence_id=span.sequence_id, **numbers))


def _add_chunk(datum: Message, chunk: ModelInputChunk) -> None:
    if isinstance(chunk, EncodedTextChunk):
        datum.put(pack(chunk.buffer, "i"), 1, 1, 1)
    elif isinstance(chunk, ImageChunk):
        rest = _small(pb.ImageChunk, format=chunk.format, expected_tokens=chunk.expected_tokens)
        datum.nest(1, Message().nest(2, Message().put(chunk.data, 1).append(_written(rest))))
    elif isinstance(chunk, DmelChunk):
        datum.put(chunk.dmel, 1, 3, 1)
    else:
        raise InvalidInputError(
            "an image that the server fetches has no place in the binary form of training data: "
            "pass its bytes as an ImageChunk"
        )


def _add_input(datum: Message, name: str, tensor: TensorData) -> None:
    if tensor.is_sparse:
        datum.nest(2, Message().append(_key(name)).nest(2, _tensor(tensor)))
        return
    values = pack(tensor.buffer, _DTYPES[tensor.dtype][1])
    size = nbytes(values)
    before, after = _around(name, tensor.dtype, tensor.shape, size)
    datum.frame(before, values, size, after)


# A batch has a handful of names, types and shapes.
@functools.lru_cache(maxsize=4096)
def _around(name: str, dtype: TensorDtype, shape: tuple[int, ...] | None, size: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the values of a dense input: the heads and the name, and the layout."""
    after = _layout(dtype, shape)
    before = head(size, 1)
    before = _key(name) + head(len(before) + size + len(after), 2) + before
    return head(len(before) + size + len(after), 2) + before, after


def _key(name: str) -> bytes:
    return Message().put(name.encode(), 1).join()


def _layout(dtype: TensorDtype, shape: tuple[int, ...] | None) -> bytes:
    return _written(pb.Tensor(dtype=_DTYPES[dtype][0], shape=shape))


def _tensor(tensor: TensorData) -> Message:
    values = pack(tensor.buffer, _DTYPES[tensor.dtype][1])
    written = Message()
    if tensor.is_sparse:
        crow, col = pack(tensor.sparse_crow_indices, "q"), pack(tensor.sparse_col_indices, "q")
        written.nest(2, Message().put(values, 1).put(crow, 2).put(col, 3))
    else:
        written.put(values, 1)
    return written.append(_layout(tensor.dtype, tensor.shape))


def decode_forward_backward(data: bytes) -> ForwardBackwardRequest | ForwardRequest:
    """Read a training request.

    Returns:
        A ForwardRequest if no gradient is asked for, else a ForwardBackwardRequest.

    Raises:
        InvalidInputError: It is not in this form, or does not fit; the message names the datum.
    """
    message = _parse(pb.ForwardBackwardRequest, data)
    batch = ForwardBackwardInput(
        data=[_read_datum(datum, index) for index, datum in enumerate(message.data)],
        loss_fn=message.loss_fn,
        loss_fn_config=_read_config(message) or None,
    )
    model_id, seq_id = message.model_id, message.seq_id or None
    if message.forward_only:
        return ForwardRequest(forward_input=batch, model_id=model_id, seq_id=seq_id)
    return ForwardBackwardRequest(forward_backward_input=batch, model_id=model_id, seq_id=seq_id)


def _read_config(message: pb.ForwardBackwardRequest) -> dict[str, float | str]:
    if not message.loss_fn_config_v2:
        return dict(message.loss_fn_config)
    config = {}
    for name, value in message.loss_fn_config_v2.items():
        kind = value.WhichOneof("value")
        if kind is None:
            field = f"loss_fn_config[{name!r}]"
            raise InvalidInputError(f"{field} is neither a number nor a text", field=field)
        config[name] = getattr(value, kind)
    return config


def _read_datum(datum: pb.Datum, index: int) -> Datum:
    with At("data", index, index):
        chunks = []
        for position, chunk in enumerate(datum.model_input):
            with At("model_input.chunks", position):
                chunks.append(_read_chunk(chunk))
        inputs = {}
        for name, tensor in datum.loss_fn_inputs.items():
            with At("loss_fn_inputs", name):
                inputs[name] = _read_tensor(tensor, TensorData)
        spans = {field: _read_spans(datum, field) for field in _SPAN_FIELDS.values()}
        if not any(spans.values()):
            spans = {}
        return Datum(model_input=ModelInput(chunks=chunks), loss_fn_inputs=inputs, **spans)


def _read_spans(datum: pb.Datum, field: str) -> ProvenanceSpans:
    spans: ProvenanceSpans = []
    for position, span in enumerate(getattr(datum, field)):
        with At(field, position):
            kind = span.WhichOneof("span")
            if kind not in _SPANS:
                raise InvalidInputError("it is neither prompt nor sampled tokens")
            told = getattr(span, kind)
            spans.append(_SPANS[kind](sequence_id=told.sequence_id, offset=told.offset, length=told.length))
    return spans


def _read_chunk(chunk: pb.Chunk) -> ModelInputChunk:
    kind = chunk.WhichOneof("chunk")
    if kind == "encoded_text":
        return EncodedTextChunk(tokens=unpack(chunk.encoded_text.tokens, "i", "tokens"))
    if kind == "image":
        image = chunk.image
        expected = image.expected_tokens if image.HasField("expected_tokens") else None
        return ImageChunk(data=image.data, format=cast(ImageFormat, image.format), expected_tokens=expected)
    if kind == "dmel":
        return DmelChunk(dmel=chunk.dmel.dmel)
    raise InvalidInputError("it is neither text nor an image nor audio")


def _read_tensor(message: pb.Tensor, make: Callable[..., TensorData]) -> TensorData:
    fields: dict[str, Any] = {"shape": list(message.shape) or None}
    raw = message.dense
    if message.WhichOneof("encoding") == "sparse_csr":
        csr = message.sparse_csr
        raw = csr.values
        fields["sparse_crow_indices"] = unpack(csr.crow_indices, "q", "crow_indices")
        fields["sparse_col_indices"] = unpack(csr.col_indices, "q", "col_indices")
    kind = _kind(message.dtype)
    return make(data=kind.read(raw), dtype=kind.dtype, **fields)


# --- forward and forward_backward: the result ----------------------------------------------------------------------


def encode_output(output: ForwardBackwardOutput) -> bytes:
    """Write the result of forward or forward_backward; a scalar is written as one dimension of one value.

    Raises:
        InvalidInputError: A tensor in it is sparse.
    """
    message = pb.ForwardBackwardOutput(loss_fn_output_type=output.loss_fn_output_type, metrics=output.metrics)
    # One array for each field: its datums differ in the first dimension only.
    for layout, group in itertools.groupby(output.loss_fn_outputs, _columns):
        datums = list(group)
        record = message.loss_fn_outputs.add(num_datums=len(datums))
        for name, dtype, trailing in layout:
            field = record.fields[name]
            field.dtype, code = _DTYPES[dtype]
            pieces = [memoryview(pack(datum[name].buffer, code)).cast("B") for datum in datums]
            field.data = b"".join(pieces)
            offsets = itertools.accumulate((len(piece) for piece in pieces), initial=0)
            field.offsets = array("q", offsets).tobytes()
            field.trailing_shape.extend(trailing)
    return _written(message)


def _columns(datum: Mapping[str, TensorData]) -> list[tuple[str, TensorDtype, tuple[int, ...]]]:
    for name, tensor in datum.items():
        if tensor.is_sparse:
            raise InvalidInputError(f"loss_fn_outputs: {name!r} is sparse; the outputs of a loss are dense")
    return sorted((name, tensor.dtype, tensor.full_shape[1:]) for name, tensor in datum.items())


def decode_output(data: bytes) -> ForwardBackwardOutput:
    """Read the result of forward or forward_backward; its numbers are not checked, so they may be NaN.

    Raises:
        InvalidInputError: It is not in this form, or the arrays are not what the offsets and shapes say.
    """
    rest, records = take_out(memoryview(data), 2)
    message = _parse(pb.ForwardBackwardOutput, rest)
    read = []
    for index, record in enumerate(records):
        with At("loss_fn_outputs", index):
            read.append(_read_record(record))
    counted = any(count for count, _ in read)
    outputs: list[dict[str, TensorData]] = []
    for index, (count, fields) in enumerate(read):
        with At("loss_fn_outputs", index):
            outputs.extend(_by_datum(count if counted else None, fields))
    kind = message.loss_fn_output_type
    return ForwardBackwardOutput(
        loss_fn_output_type=kind.rpartition(":")[2] or ("" if records else _OUTPUT_TYPE),
        loss_fn_outputs=outputs,
        metrics=dict(sorted(message.metrics.items())),
    )


def _read_record(raw: memoryview) -> tuple[int, dict[str, list[TensorData]]]:
    """Read how many datums a record has, and its fields."""
    rest, entries = take_out(raw, 2)
    fields = {}
    for entry in entries:
        key, batches = take_out(entry, 2)
        name = _parse(pb.ArrayRecord.FieldsEntry, key).key
        with At("fields", name):
            fields[name] = _read_batch(joined(batches))
    return _parse(pb.ArrayRecord, rest).num_datums, dict(sorted(fields.items()))


def _by_datum(told: int | None, fields: Mapping[str, list[TensorData]]) -> list[dict[str, TensorData]]:
    count = len(next(iter(fields.values()), [])) if told is None else told
    for name, tensors in fields.items():
        if len(tensors) != count:
            raise InvalidInputError(f"fields[{name!r}] has {len(tensors)} entries for {count} datums")
    return [{name: tensors[at] for name, tensors in fields.items()} for at in range(count)]


def _read_batch(raw: memoryview) -> list[TensorData]:
    rest, arrays = take_out(raw, 1)
    # Of bytes, the last value counts.
    batch, data = _parse(pb.BatchedTensor, rest), arrays[-1] if arrays else memoryview(b"")
    kind, trailing = _kind(batch.dtype), tuple(batch.trailing_shape)
    offsets = unpack(batch.offsets, "q", "offsets")
    if any(not 0 <= start <= end <= len(data) for start, end in itertools.pairwise(offsets)):
        raise InvalidInputError(f"offsets must rise from 0 to at most {len(data)}, the bytes of data")
    step = math.prod(trailing)
    if min(trailing, default=0) < 0:
        raise InvalidInputError(f"trailing_shape is {list(trailing)}; no size is negative", field="trailing_shape")
    tensors = []
    for start, end in itertools.pairwise(offsets):
        values = kind.read(data[start:end])
        shape = (len(values) // step if step else 0, *trailing)
        tensors.append(TensorData.adopt(data=values, dtype=kind.dtype, shape=shape))
    return tensors


# --- asample: the result -------------------------------------------------------------------------------------------


def encode_sample(response: SampleResponse) -> bytes:
    """Write the result of asample; ``sequence_id`` does not travel, the answer to the request has told it.

    Raises:
        InvalidInputError: A token or count has no binary form.
    """
    message = _small(pb.SampleResponse, prompt_cache_hit_tokens=response.prompt_cache_hit_tokens)
    for index, sequence in enumerate(response.sequences):
        with At("sequences", index):
            _write_sequence(message.sequences.add(), sequence)
    if response.prompt_logprobs:
        message.prompt_logprobs = pack_list([math.nan if x is None else x for x in response.prompt_logprobs], "f")
    if response.topk_prompt_logprobs:
        _write_topk(message.topk_prompt_logprobs, response.topk_prompt_logprobs)
    if response.target_prompt_logprobs is not None:
        message.target_prompt_logprobs.ParseFromString(_tensor(response.target_prompt_logprobs).join())
    if response.prompt_alt_tokens is not None:
        message.prompt_alt_tokens.tokens.ParseFromString(_tensor(response.prompt_alt_tokens.tokens).join())
        message.prompt_alt_tokens.logprobs.ParseFromString(_tensor(response.prompt_alt_tokens.logprobs).join())
    return _written(message)


def _write_sequence(message: pb.SampledSequence, sequence: SampledSequence) -> None:
    message.stop_reason = _STOP_NUMBERS[sequence.stop_reason]
    message.tokens = pack_list(sequence.tokens, "i")
    if sequence.logprobs:
        message.logprobs = pack_list(sequence.logprobs, "f")
    if sequence.topk_logprobs:
        _write_topk(message.topk_sampled_logprobs, sequence.topk_logprobs)


def _write_topk(message: pb.TopkLogprobs, rows: TopkRows) -> None:
    message.length = len(rows)
    message.k = k = max(1, max(len(row or ()) for row in rows))
    cells = [cell for row in rows for cell in [*(row or ()), *[_EMPTY_CELL] * (k - len(row or ()))]]
    message.token_ids = pack_list([token for token, _ in cells], "i")
    message.logprobs = pack_list([logprob for _, logprob in cells], "f")


def decode_sample(data: bytes) -> SampleResponse:
    """Read the result of asample.

    Raises:
        InvalidInputError: It is not in this form, or does not fit.
    """
    message = _parse(pb.SampleResponse, data)
    sequences = []
    for index, sequence in enumerate(message.sequences):
        with At("sequences", index):
            sequences.append(_read_sequence(sequence))
    prompt_logprobs = unpack(message.prompt_logprobs, "f", "prompt_logprobs").tolist()
    return SampleResponse(
        sequences=sequences,
        prompt_logprobs=[None if math.isnan(x) else x for x in prompt_logprobs] or None,
        topk_prompt_logprobs=_read_topk(message.topk_prompt_logprobs, "topk_prompt_logprobs"),
        target_prompt_logprobs=_read_optional_tensor(message, "target_prompt_logprobs"),
        prompt_cache_hit_tokens=message.prompt_cache_hit_tokens,
        prompt_alt_tokens=_read_alt_tokens(message),
    )


def _read_sequence(message: pb.SampledSequence) -> SampledSequence:
    if message.stop_reason not in _STOP_REASONS:
        raise InvalidInputError(f"stop_reason {message.stop_reason} is unknown", field="stop_reason")
    return SampledSequence(
        stop_reason=_STOP_REASONS[message.stop_reason],
        tokens=unpack(message.tokens, "i", "tokens").tolist(),
        logprobs=unpack(message.logprobs, "f", "logprobs").tolist() or None,
        topk_logprobs=_read_topk(message.topk_sampled_logprobs, "topk_sampled_logprobs"),
    )


def _read_topk(message: pb.TopkLogprobs, field: str) -> TopkRows | None:
    k, length = message.k, message.length
    if not k or not length:
        return None
    tokens = unpack(message.token_ids, "i", f"{field}.token_ids").tolist()
    logprobs = unpack(message.logprobs, "f", f"{field}.logprobs").tolist()
    if len(tokens) != k * length or len(logprobs) != k * length:
        what = f"{len(tokens)} tokens and {len(logprobs)} logprobs"
        raise InvalidInputError(f"{field} has {what} for {length} rows of {k}", field=field)
    cells = list(zip(tokens, logprobs, strict=True))
    return [_read_row(cells[at : at + k]) for at in range(0, len(cells), k)]


def _read_row(cells: list[tuple[int, float]]) -> list[tuple[int, float]] | None:
    if cells[0] == _EMPTY_CELL:
        return None
    while cells[-1] == _EMPTY_CELL:
        del cells[-1]
    return cells


def _read_alt_tokens(message: pb.SampleResponse) -> PromptAltTokens | None:
    if not message.HasField("prompt_alt_tokens"):
        return None
    with At("prompt_alt_tokens"):
        tokens = _read_tensor(message.prompt_alt_tokens.tokens, TensorData.adopt)
        return PromptAltTokens(
            tokens=tokens, logprobs=_read_tensor(message.prompt_alt_tokens.logprobs, TensorData.adopt)
        )


def _read_optional_tensor(message: Any, field: str) -> TensorData | None:
    if not message.HasField(field):
        return None
    with At(field):
        return _read_tensor(getattr(message, field), TensorData.adopt)


# --- What all of them share ----------------------------------------------------------------------------------------


@attrs.frozen
class _Kind:
    """How the numbers of a tensor are read, and the type that they have then."""

    dtype: TensorDtype
    read: Callable[[bytes | memoryview], Values]


_KINDS: dict[pb.DType, _Kind] = {
    pb.DTYPE_FLOAT32: _Kind("float32", functools.partial(view, code="f", field="data")),
    pb.DTYPE_INT64: _Kind("int64", functools.partial(view, code="q", field="data")),
    pb.DTYPE_INT32: _Kind("int64", widen_int32),
    pb.DTYPE_BFLOAT16: _Kind("float32", widen_bfloat16),
}


def _kind(number: pb.DType) -> _Kind:
    if number not in _KINDS:
        raise InvalidInputError(f"dtype {number} is unknown", field="dtype")
    return _KINDS[number]


def _parse(cls: type[M], data: bytes) -> M:
    message: Any = cls()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidInputError(f"not a {cls.__name__} in binary form: {error}") from error
    parsed: M = message
    return parsed


def _written(message: Any) -> bytes:
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def _small(cls: type[M], **numbers: Any) -> M:
    """Make a message with numbers that may be too large for it.

    Raises:
        InvalidInputError: One is.
    """
    try:
        return cls(**numbers)
    except ValueError as error:
        names = ", ".join(f"{name}={value!r:.40}" for name, value in numbers.items())
        raise InvalidInputError(f"{names} has no binary form: {error}") from error


RESULTS: dict[type[Any], tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    ForwardBackwardOutput: (encode_output, decode_output),
    SampleResponse: (encode_sample, decode_sample),
}
"""How each type of result that has a binary form is written and read."""
