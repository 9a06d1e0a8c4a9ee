"""The JSON form: nothing is lost on the way, and nothing crooked gets in."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import VALUES
from tinkex import types
from tinkex.errors import InvalidInputError
from tinkex.types import (
    AdamParams,
    Checkpoint,
    CreateSessionRequest,
    Cursor,
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    GetInfoResponse,
    ImageAssetPointerChunk,
    ImageChunk,
    LoraConfig,
    ModelData,
    ModelInput,
    OptimStepResponse,
    RequestFailedResponse,
    ResultMetadata,
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SamplingParams,
    SessionStartEvent,
    TelemetrySendRequest,
    TensorData,
    TryAgainResponse,
    UntypedAPIFuture,
)
from tinkex.types._base import late_fields
from tinkex.wire.json import _tag_of, decode, decode_result, encode, make_converter, parse, structure

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


KNOWN = [cls for cls in VALUES if cls is not types.Unrecognized]
"""All types but the one that keeps every field it is given."""
ALTERNATIVES: dict[type[Any], tuple[str, ...]] = {
    types.CreateSamplingSessionRequest: ("model_path",),
    types.OptimStepRequest: ("adam_params", "optimizer_params"),
    types.CopyWeightsRequest: ("destination_project_id", "session_id", "model_seq_id"),
}
"""Fields that may be absent, but not all of them."""


def dumps(value: Any) -> bytes:
    """Write plain data, NaN and all, with the standard library."""
    return json.dumps(value).encode()


def optional_fields(cls: type[Any]) -> list[str]:
    """Name the fields that may be absent."""
    return [field.name for field in attrs.fields(cls) if field.default is not attrs.NOTHING]


# --- Round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["A", "B"])
@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_value_survives_the_wire(cls, era, data):
    """What is written by the rules of either era reads back as an equal value."""
    value = data.draw(VALUES[cls])
    assert decode(encode(value, era), cls) == value


@pytest.mark.parametrize("cls", KNOWN, ids=lambda cls: cls.__name__)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_unknown_fields_are_ignored(cls, data):
    """A field that a later server adds changes nothing."""
    value = data.draw(VALUES[cls])
    body = {**parse(encode(value)), "added_in_2030": {"deep": [1, None]}}
    assert structure(body, cls) == value


@pytest.mark.parametrize("cls", [cls for cls in KNOWN if attrs.has(cls)], ids=lambda cls: cls.__name__)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_null_equals_absent(cls, data):
    """A null under the name of an optional field reads as if the field were not there."""
    body = parse(encode(data.draw(VALUES[cls])))
    absent = {name: body[name] for name in body if name not in optional_fields(cls)}
    if cls is TensorData:
        absent["shape"] = body.get("shape")
    absent.update({name: body[name] for name in ALTERNATIVES.get(cls, ()) if name in body})
    nulls = {name: None for name in optional_fields(cls) if name not in absent}
    if cls is not TensorData:
        assert structure({**absent, **nulls}, cls) == structure(absent, cls)


def test_null_instead_of_a_required_field_is_an_error_that_names_it():
    """Null does not pass for a value where there must be one."""
    with pytest.raises(InvalidInputError, match=r"request_id"):
        decode(b'{"request_id": null}', UntypedAPIFuture)


def test_era_b_never_sends_null_and_era_a_sends_those_that_the_early_sdks_set():
    """The rules differ for a field that is None: B leaves it out, A writes null where those SDKs did."""
    request = types.CreateModelRequest(session_id="s", model_seq_id=0, base_model="m", lora_config=LoraConfig(rank=8))
    assert b"null" not in encode(request, "B")
    assert parse(encode(request, "A")) == {
        "session_id": "s",
        "model_seq_id": 0,
        "base_model": "m",
        "user_metadata": None,
        "lora_config": {
            "rank": 8,
            "seed": None,
            "train_unembed": True,
            "train_mlp": True,
            "train_attn": True,
        },
    }


def test_the_early_sdks_send_null_for_what_they_always_set():
    """A model without LoRA settings says so by null in era A."""
    body = parse(encode(types.CreateModelRequest(session_id="s", model_seq_id=0, base_model="m"), "A"))
    assert body == {
        "session_id": "s",
        "model_seq_id": 0,
        "base_model": "m",
        "user_metadata": None,
        "lora_config": None,
    }


def test_era_a_sends_only_the_settings_that_were_set():
    """Defaults stay away from the wire of era A, so that the server's own count; era B sends them."""
    params = SamplingParams(max_tokens=5)
    assert parse(encode(params, "A")) == {"max_tokens": 5}
    assert parse(encode(params, "B")) == {"max_tokens": 5, "temperature": 1.0, "top_k": -1, "top_p": 1.0}
    assert parse(encode(AdamParams(learning_rate=0.5), "A")) == {"learning_rate": 0.5}


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_era_a_has_no_decorative_type(cls, data):
    """No request of era A has a ``type``, so nothing may need it, but where it tells the members of a union apart."""
    tells_apart = cls is types.Unrecognized or _tag_of(cls) is not None
    body = parse(encode(data.draw(VALUES[cls]), "A"))
    assert "type" not in body or tells_apart


@pytest.mark.parametrize("era", ["A", "B"])
def test_a_field_that_is_younger_than_its_request_travels_only_if_it_is_set(era):
    """A server that reuses the request classes of an older SDK refuses even a default that it does not know."""
    plain = SampleRequest(prompt=ModelInput.from_ints([1]), sampling_params=SamplingParams(), seq_id=1)
    assert not {"topk_sample_logprobs", "prompt_alt_tokens_k", "record_stability_info"} & {*parse(encode(plain, era))}
    asked = parse(encode(attrs.evolve(plain, topk_sample_logprobs=2, record_stability_info=True), era))
    assert (asked["topk_sample_logprobs"], asked["record_stability_info"]) == (2, True)


@pytest.mark.parametrize(
    ("value", "late"),
    [
        (types.SaveWeightsRequest(model_id="m", ttl_seconds=3600, overwrite=True), {
            "ttl_seconds": "0.9", "overwrite": "0.20"}),
        (SampleRequest(prompt=ModelInput.from_ints([1]), sampling_params=SamplingParams(), target_prompt_logprobs=(
            TensorData(data=[7], dtype="int64", shape=[1, 9], sparse_crow_indices=[0, 1], sparse_col_indices=[4]))), {
            "target_prompt_logprobs": "0.30", "sparse_crow_indices": "0.18", "sparse_col_indices": "0.18"}),
        (ForwardBackwardRequest(model_id="m", forward_backward_input=ForwardBackwardInput(
            data=[Datum(ModelInput.from_ints([1]), {"target_tokens": TensorData(
                data=[7], dtype="int64", shape=[1, 9], sparse_crow_indices=np.array([0, 1]),
                sparse_col_indices=np.array([4]))})], loss_fn="cross_entropy")), {
            "sparse_crow_indices": "0.18", "sparse_col_indices": "0.18"}),
        (types.SaveWeightsForSamplerRequest(model_id="m", kind="snapshot"), {}),
        ({"ttl_seconds": 3600}, {}),
        (None, {}),
    ],
)  # fmt: skip
def test_what_is_set_and_younger_than_its_request_is_found_at_any_depth(value, late):
    """Each field is named with the SDK that it came with; one at its default is not."""
    assert late_fields(value) == late


def test_a_session_without_metadata_sends_an_empty_object():
    """``user_metadata`` is required on the wire, so None travels as {}; null and nothing read as {} too."""
    request = CreateSessionRequest(tags=[], user_metadata=None, sdk_version="1")
    assert parse(encode(request, "A")) == {"tags": [], "user_metadata": {}, "sdk_version": "1"}
    assert parse(encode(request, "B"))["user_metadata"] == {}
    for body in ({"user_metadata": None}, {}):
        assert structure({"tags": [], "sdk_version": "1", **body}, CreateSessionRequest) == request


def test_the_converter_of_an_era_is_made_once():
    """Building a converter costs more than using it, so there is one for each era."""
    assert make_converter("A") is make_converter("A")
    assert make_converter("A") is not make_converter("B")


# --- Strictness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["7", 7.0, True, [7], {}])
def test_an_int_is_an_int(wrong):
    """Nothing but a whole number passes for one; 7.0 and "7" do not."""
    with pytest.raises(InvalidInputError, match=r"expected int, got .* @ Cursor\.limit"):
        decode(dumps({"offset": 0, "limit": wrong, "total_count": 1}), Cursor)


@pytest.mark.parametrize("wrong", [1, 0, "true", [True]])
def test_a_bool_is_a_bool(wrong):
    """1 and "true" are not true."""
    with pytest.raises(InvalidInputError, match=r"expected bool, got .* @ LoraConfig\.train_mlp"):
        decode(dumps({"rank": 1, "train_mlp": wrong}), LoraConfig)


@pytest.mark.parametrize("wrong", [7, True, ["x"], {"x": 1}])
def test_a_text_is_a_text(wrong):
    """A number under the name of an id is an error, as it is for the official client."""
    with pytest.raises(InvalidInputError, match=r"expected str, got .* @ UntypedAPIFuture\.request_id"):
        decode(dumps({"request_id": wrong}), UntypedAPIFuture)


@pytest.mark.parametrize("wrong", ["0.5", True, [0.5]])
def test_a_float_is_a_number(wrong):
    """Texts and booleans are no numbers."""
    with pytest.raises(InvalidInputError, match=r"expected int or float, got .* @ AdamParams\.beta1"):
        decode(dumps({"beta1": wrong}), AdamParams)


def test_a_whole_number_reads_as_a_float_where_a_float_is_meant():
    """JSON writers drop ".0", so 0 is a fine learning rate, and becomes a float."""
    rate = decode(b'{"learning_rate": 0}', AdamParams).learning_rate
    assert rate == 0
    assert type(rate) is float


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_not_json(number):
    """The standard library's extension of JSON is refused when read."""
    with pytest.raises(InvalidInputError, match="not JSON"):
        decode(f'{{"learning_rate": {number}}}'.encode(), AdamParams)


def output_of(logprobs):
    """Make a result of one tensor, as a server that computed it does."""
    tensor = TensorData.adopt(data=array("f", logprobs), dtype="float32")
    return ForwardBackwardOutput(loss_fn_output_type="x", loss_fn_outputs=[{"logprobs": tensor}], metrics={})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("ForwardBackwardOutput.metrics", lambda bad: ForwardBackwardOutput(
            loss_fn_output_type="x", loss_fn_outputs=[], metrics={"loss:sum": bad})),
        ("ForwardBackwardOutput.loss_fn_outputs", lambda bad: output_of([-1.0, bad])),
        ("ForwardBackwardOutput.loss_fn_outputs", lambda bad: output_of([0.0, 1.0] * 999 + [bad])),
        ("OptimStepResponse.metrics", lambda bad: OptimStepResponse(metrics={"grad": bad})),
        ("SampledSequence.logprobs", lambda bad: SampledSequence(
            stop_reason="stop", tokens=[1, 2], logprobs=[-1.0, bad])),
        ("SampleResponse.prompt_logprobs", lambda bad: SampleResponse(sequences=[], prompt_logprobs=[None, bad])),
        ("SampleResponse.topk_prompt_logprobs", lambda bad: SampleResponse(
            sequences=[], topk_prompt_logprobs=[None, [(5, bad)]])),
        ("ForwardBackwardInput.loss_fn_config", lambda bad: ForwardBackwardInput(
            data=[], loss_fn="dro", loss_fn_config={"beta": bad})),
        ("CreateSessionRequest.user_metadata", lambda bad: CreateSessionRequest(
            tags=[], sdk_version="1", user_metadata={"deep": [{"er": bad}]})),
    ],
)  # fmt: skip
def test_nan_and_infinity_are_never_written(field, make, bad):
    """The encoder would write null for them without a word; they are refused, and the field is named."""
    with pytest.raises(InvalidInputError, match=rf"{field}.*{bad}.*finite"):
        encode(make(bad))


def test_the_path_of_a_number_that_cannot_travel_leads_through_the_whole_request():
    """An error deep in a request names every step to it."""
    request = ForwardBackwardRequest(
        forward_backward_input=ForwardBackwardInput(data=[], loss_fn="dro", loss_fn_config={"beta": float("nan")}),
        model_id="m",
    )
    expected = r"ForwardBackwardRequest\.forward_backward_input: ForwardBackwardInput\.loss_fn_config: nan"
    with pytest.raises(InvalidInputError, match=expected) as caught:
        encode(request)
    assert caught.value.field == "forward_backward_input"


def test_large_finite_numbers_travel():
    """The check for NaN does not mistake numbers whose squares overflow for infinity."""
    sequence = SampledSequence(stop_reason="stop", tokens=[1, 2], logprobs=[-1e308, -1e308])
    assert decode(encode(sequence), SampledSequence) == sequence


def test_what_has_no_json_form_is_refused():
    """A user's object inside free-form metadata is an error that names the request."""
    request = CreateSessionRequest(tags=[], sdk_version="1", user_metadata={"when": object()})
    with pytest.raises(InvalidInputError, match="CreateSessionRequest cannot be written as JSON"):
        encode(request)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"{'a': 1}"])
def test_what_is_not_json_is_an_error(body):
    """A broken body raises an error of ours."""
    with pytest.raises(InvalidInputError, match="not JSON"):
        decode(body, Cursor)


@pytest.mark.parametrize("cls", [*VALUES], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"3"])
def test_anything_but_an_object_is_an_error(cls, body):
    """Every type is an object on the wire."""
    with pytest.raises(InvalidInputError, match=cls.__name__):
        decode(body, cls)


def test_a_missing_field_is_named_with_its_path():
    """The path leads to the very object that lacks the field."""
    body = {"model_id": "m", "forward_backward_input": {"loss_fn": "ppo", "data": [{"model_input": {"chunks": []}}]}}
    path = r"ForwardBackwardRequest\.forward_backward_input\.data\[0\]\.loss_fn_inputs"
    with pytest.raises(InvalidInputError, match=f"required field 'loss_fn_inputs' is missing @ {path}") as caught:
        decode(dumps(body), ForwardBackwardRequest)
    assert caught.value.field == "ForwardBackwardRequest.forward_backward_input.data[0].loss_fn_inputs"


def test_the_path_of_a_bad_tensor_leads_to_it():
    """A wrong number deep in a result is found by its datum, its name and its position."""
    tensor = {"data": [0.5, "x"], "dtype": "float32"}
    body = {"loss_fn_output_type": "t", "loss_fn_outputs": [{}, {"logprobs": tensor}]}
    path = r"ForwardBackwardOutput\.loss_fn_outputs\[1\]\['logprobs'\]"
    with pytest.raises(InvalidInputError, match=rf"data\[1\] must be a number, got 'x' @ {path}"):
        decode(dumps(body), ForwardBackwardOutput)


def test_every_bad_field_is_reported():
    """One error tells of all fields that are wrong."""
    with pytest.raises(InvalidInputError) as caught:
        decode(dumps({"offset": "a", "limit": 1, "total_count": None}), Cursor)
    assert "Cursor.offset" in caught.value.message
    assert "Cursor.total_count" in caught.value.message


def test_a_value_out_of_bounds_is_refused_when_read():
    """The constructors' checks hold for what comes from the wire."""
    with pytest.raises(InvalidInputError, match=r"AdamParams\.beta1 must be a finite number of at least 0 and below 1"):
        decode(b'{"beta1": 1.5}', AdamParams)


@pytest.mark.parametrize(
    ("cls", "body"),
    [
        (types.HealthResponse, {"status": "fine"}),
        (types.HealthResponse, {"status": []}),
        (types.TelemetryResponse, {"status": "rejected"}),
        (types.CreateModelResponse, {"model_id": "m", "type": "load_weights"}),
        (types.ImageChunk, {"data": "", "format": "gif"}),
        (SampledSequence, {"tokens": [], "stop_reason": "bored"}),
    ],
)
def test_a_constant_must_be_exact(cls, body):
    """Where the wire has a fixed set of texts, another one is an error."""
    with pytest.raises(InvalidInputError, match=cls.__name__):
        decode(dumps(body), cls)


def test_an_unknown_kind_of_checkpoint_is_an_error():
    """A checkpoint of a kind that we do not know could not be used for anything."""
    body = {"checkpoint_id": "x/y", "checkpoint_type": "optimizer", "time": "2026-03-01T10:00:00Z", "tinker_path": "t"}
    with pytest.raises(InvalidInputError, match=r"Checkpoint\.checkpoint_type"):
        decode(dumps(body), Checkpoint)


@pytest.mark.parametrize(
    ("given", "read"),
    [("user", "user"), ("server", "server"), ("unknown", "unknown"), ("USER", "unknown"), ("quota", "unknown"),
     (None, "unknown"), (7, "unknown"), (["user"], "unknown")],
)  # fmt: skip
def test_an_unknown_category_reads_as_unknown(given, read):
    """A failure is reported as a failure, whatever its category says."""
    failed = decode(dumps({"error": "boom", "category": given}), RequestFailedResponse)
    assert failed.category == read


def test_an_unknown_queue_state_is_tolerated():
    """A new state of the queue still means "not yet"."""
    answer = decode_result(b'{"type": "try_again", "queue_state": "paused_moon_phase"}', OptimStepResponse)
    assert answer == TryAgainResponse(queue_state="paused_moon_phase")


# --- Lists, tensors, chunks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[1, 2.0], [1, True], [1, "2"], [1, None], "12", {"1": 2}, 5])
def test_tokens_are_whole_numbers(wrong):
    """Sampled tokens are taken strictly, however long the list."""
    with pytest.raises(InvalidInputError, match=r"SampledSequence\.tokens"):
        decode(dumps({"stop_reason": "stop", "tokens": wrong}), SampledSequence)
    with pytest.raises(InvalidInputError, match="EncodedTextChunk"):
        decode(dumps({"tokens": wrong}), EncodedTextChunk)


def test_the_position_of_a_wrong_item_is_named():
    """In a list of thousands the bad item is found for the reader."""
    tokens = [0] * 3000
    tokens[2345] = "x"
    with pytest.raises(InvalidInputError, match=r"item 2345 has the wrong type: 'x' @ SampledSequence\.tokens"):
        decode(dumps({"stop_reason": "stop", "tokens": tokens}), SampledSequence)


@pytest.mark.parametrize("wrong", [[-0.5, True], [-0.5, False], [0.5, None], [0.5, "1"], {"0": 1}])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_the_data_of_a_tensor_are_numbers(dtype, wrong):
    """``true`` and null are no numbers in a tensor that comes over the wire."""
    with pytest.raises(InvalidInputError, match="TensorData"):
        decode(dumps({"data": wrong, "dtype": dtype}), TensorData)


def test_an_int64_tensor_takes_no_fractions():
    """1.0 is not a whole number on the wire."""
    with pytest.raises(InvalidInputError, match=r"data\[1\] must be a whole number, got 1.0"):
        decode(b'{"data": [1, 1.0], "dtype": "int64"}', TensorData)


@pytest.mark.parametrize("values", [[0.1, -2.5, 3e38], [1, 0, 1]])
def test_an_array_and_a_list_write_the_same_numbers(values):
    """However a tensor was made, a reader gets the same float32 numbers."""
    of_list = TensorData(data=values, dtype="float32", shape=[3])
    of_array = TensorData.from_numpy(np.array(values, dtype="float32"))
    assert decode(encode(of_list), TensorData) == decode(encode(of_array), TensorData) == of_array


@pytest.mark.parametrize("odd", [None, -0.0, 0.5, 2.0])
def test_a_long_mask_is_written_short(odd):
    """Zeros and ones as whole numbers, which JSON does not tell apart; with any other number, -0.0 too, as floats."""
    values = [0.0, 1.0] * 1024 + ([] if odd is None else [odd])
    tensor = TensorData(data=np.array(values, "float32"), dtype="float32")
    written = encode(tensor)
    assert (b".0," not in written) is (odd is None)
    read = decode(written, TensorData)
    assert list(map(repr, read.data)) == list(map(repr, values))
    assert (read.dtype, read.full_shape) == ("float32", (len(values),))


def test_numpy_token_ids_write_like_a_list():
    """An array of tokens travels as plain numbers."""
    array = ModelInput.from_ints(np.array([1, 2, 2**31 - 1], dtype="uint32"))
    assert encode(array) == encode(ModelInput.from_ints([1, 2, 2**31 - 1]))


def test_topk_pairs_are_pairs():
    """A pair of three is an error."""
    body = {"sequences": [], "topk_prompt_logprobs": [None, [[5, -0.5, 1]]]}
    with pytest.raises(InvalidInputError, match=r"SampleResponse\.topk_prompt_logprobs"):
        decode(dumps(body), SampleResponse)
    body["topk_prompt_logprobs"] = [None, [[5, -0.5]]]
    assert decode(dumps(body), SampleResponse).topk_prompt_logprobs == [None, [(5, -0.5)]]


@pytest.mark.parametrize("prompt_logprobs", [[None, -0.5, -1], [], None])
def test_prompt_logprobs_may_hold_null(prompt_logprobs):
    """The first prompt token has no logprob."""
    body = {"sequences": [], "prompt_logprobs": prompt_logprobs}
    assert decode(dumps(body), SampleResponse).prompt_logprobs == prompt_logprobs


@pytest.mark.parametrize(
    ("body", "chunk"),
    [
        ({"tokens": [1, 2]}, EncodedTextChunk(tokens=[1, 2])),
        ({"data": "iVBORw==", "format": "png"}, ImageChunk(data=b"\x89PNG", format="png")),
        ({"location": "a.png", "format": "png"}, ImageAssetPointerChunk(location="a.png", format="png")),
        ({"dmel": "AAE="}, DmelChunk(dmel=b"\x00\x01")),
        ({"tokens": [1], "data": None, "dmel": None, "location": None}, EncodedTextChunk(tokens=[1])),
    ],
)
def test_chunks_are_told_apart_by_their_fields(body, chunk):
    """``type`` may be absent (era A), so what a chunk has decides what it is."""
    assert structure({"chunks": [body]}, ModelInput).chunks == [chunk]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "encoded_text"},
        {"tokens": None},
        {"tokens": [1], "dmel": "AA=="},
        {"location": "x", "data": ""},
        [],
        "tokens",
        3,
    ],
)
def test_a_chunk_of_no_kind_or_of_two_is_an_error(body):
    """What cannot be told apart is refused, with the place of the chunk."""
    with pytest.raises(
        InvalidInputError, match=r"exactly one of tokens, location, data, dmel.*ModelInput\.chunks\[1\]"
    ):
        structure({"chunks": [{"tokens": [1]}, body]}, ModelInput)


@pytest.mark.parametrize("stop", ["\n", ["a", "b"], [1, 2], [], None], ids=["text", "texts", "ids", "nothing", "null"])
def test_every_form_of_stop_reads(stop):
    """A stop is a text, texts, ids, or none at all, and they are told apart."""
    assert decode(dumps({"stop": stop}), SamplingParams).stop == stop


@pytest.mark.parametrize("stop", [5, [1, "a"], [True], [1.5], True, [None]])
def test_a_mixed_stop_is_an_error(stop):
    """Texts and ids do not mix."""
    with pytest.raises(InvalidInputError, match="stop must be"):
        decode(dumps({"stop": stop}), SamplingParams)


# --- Bytes and times -------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
def test_bytes_travel_as_padded_standard_base64(raw):
    """Any bytes come back, and the alphabet is the standard one."""
    chunk = DmelChunk(dmel=raw)
    assert decode(encode(chunk), DmelChunk).dmel == raw
    assert set(parse(encode(chunk))["dmel"]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


@pytest.mark.parametrize("wrong", ["iVBORw", "iV BORw==", "_-==", "\u00e9", 5, ["AA=="]])
def test_what_is_not_base64_is_an_error(wrong):
    """Bytes that cannot be recovered exactly are refused."""
    with pytest.raises(InvalidInputError, match=r"expected base64, got .* @ DmelChunk\.dmel"):
        decode(dumps({"dmel": wrong}), DmelChunk)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T12:00:00z", NOON),
        ("2026-03-01t12:00:00Z", NOON),
        ("2026-03-01 12:00:00Z", NOON),
        ("2026-03-01T12:00:00+00:00", NOON),
        ("2026-03-01T12:00:00-00:00", NOON),
        ("2026-03-01T14:30:00+02:30", NOON),
        ("2026-03-01T12:00:00", NOON),
        ("2026-03-01T12:00:00.5Z", NOON + timedelta(seconds=0.5)),
        ("2026-03-01T12:00:00.120Z", NOON + timedelta(milliseconds=120)),
        ("2026-03-01T12:00:00.123456Z", NOON + timedelta(microseconds=123456)),
        ("2026-03-01T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2026-03-01T10:00:00.25-02:00", NOON + timedelta(seconds=0.25)),
    ],
)
def test_the_variants_of_rfc_3339_read(text, when):
    """Servers write times in several ways; all mean a moment, and one without a zone means UTC."""
    body = {"event": "SESSION_START", "event_id": "e", "event_session_index": 0, "timestamp": text}
    read = structure(body, SessionStartEvent).timestamp
    assert read == when
    assert read.tzinfo is not None


@pytest.mark.parametrize(
    "wrong", ["", "Z", "yesterday", "2026-13-01T00:00:00Z", "2026-03-01T12:00:00.Q", 1772366400, None]
)
def test_what_is_not_a_time_is_an_error(wrong):
    """A number of seconds is not a time on this wire."""
    body = {"event_id": "e", "event_session_index": 0, "timestamp": wrong}
    with pytest.raises(InvalidInputError, match=r"SessionStartEvent\.timestamp"):
        structure(body, SessionStartEvent)


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (NOON, "2026-03-01T12:00:00Z"),
        (NOON.replace(microsecond=120000), "2026-03-01T12:00:00.120000Z"),
        (NOON.astimezone(timezone(timedelta(hours=-5))), "2026-03-01T12:00:00Z"),
        (NOON.replace(tzinfo=None), "2026-03-01T12:00:00Z"),
    ],
)
def test_times_are_written_in_utc(when, text):
    """Every time is written in UTC with a Z; one without a zone is taken for UTC, as it is when read."""
    event = SessionStartEvent(event_id="e", event_session_index=0, timestamp=when)
    assert parse(encode(event))["timestamp"] == text


# --- Unions and results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SESSION_STOP", None, 5, ["SESSION_START"]])
def test_an_unknown_event_is_an_error(name):
    """The name of an event decides which it is."""
    body = {"events": [{"event": name}], "platform": "Linux", "sdk_version": "1", "session_id": "s"}
    with pytest.raises(InvalidInputError, match=r"TelemetrySendRequest\.events\[0\]"):
        structure(body, TelemetrySendRequest)


def test_an_event_that_is_no_object_is_an_error():
    """A text among the events is refused."""
    body = {"events": ["SESSION_START"], "platform": "Linux", "sdk_version": "1", "session_id": "s"}
    with pytest.raises(InvalidInputError, match="event must be one of SESSION_START, "):
        structure(body, TelemetrySendRequest)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"type": "try_again", "request_id": "r"}, TryAgainResponse(request_id="r")),
        ({"type": "try_again", "error": "x"}, TryAgainResponse()),
        ({"status": "complete_metadata", "response_payload_size": 9}, ResultMetadata(response_payload_size=9)),
        ({"error": "boom", "category": "user"}, RequestFailedResponse(error="boom", category="user")),
        ({"error": "boom"}, RequestFailedResponse(error="boom", category="unknown")),
        ({"metrics": {"a": 1}}, OptimStepResponse(metrics={"a": 1.0})),
        ({}, OptimStepResponse()),
        ({"metrics": None}, OptimStepResponse()),
    ],
)
def test_the_answers_of_retrieve_future_are_told_apart(body, answer):
    """Not yet, large, failed, or else the result that was asked for, in this order."""
    assert decode_result(dumps(body), OptimStepResponse) == answer


@pytest.mark.parametrize("body", [b"null", b"[]", b"7"])
def test_a_result_that_is_no_object_is_an_error(body):
    """A bare null is not a result."""
    with pytest.raises(InvalidInputError, match="OptimStepResponse: expected an object"):
        decode_result(body, OptimStepResponse)


def test_a_malformed_result_names_the_type_that_was_expected():
    """A result that does not fit is an error of validation, not a crash."""
    with pytest.raises(InvalidInputError, match=r"SampleResponse\.sequences"):
        decode_result(b'{"metrics": {}}', SampleResponse)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([TryAgainResponse, ResultMetadata, RequestFailedResponse]).flatmap(VALUES.__getitem__),
       st.sampled_from(["A", "B"]))  # fmt: skip
def test_what_a_server_writes_about_a_future_is_told_apart(answer, era):
    """Our own server's answers carry what a reader tells them apart by."""
    assert decode_result(encode(answer, era), SampleResponse) == answer


def test_a_datum_whose_dict_was_changed_writes_what_it_holds_now():
    """``loss_fn_inputs`` may be changed after construction, and the change travels."""
    datum = Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={"target_tokens": [2]})
    datum.loss_fn_inputs["advantages"] = TensorData(data=[0.5], dtype="float32")
    assert decode(encode(datum), Datum).loss_fn_inputs["advantages"].data == [0.5]


def test_get_info_reads_all_it_is_told():
    """An answer with everything in it, and nulls, reads field by field."""
    body = {"type": None, "model_id": "m", "model_data": {"arch": None, "model_name": "q"}, "lora_rank": 4}
    assert structure(body, GetInfoResponse) == GetInfoResponse(
        model_id="m", model_data=ModelData(model_name="q"), lora_rank=4
    )


def test_a_prompt_flag_of_null_is_false():
    """``prompt_logprobs: null`` means that they are not asked for."""
    body = {"prompt": {"chunks": []}, "sampling_params": {}, "prompt_logprobs": None}
    assert structure(body, SampleRequest).prompt_logprobs is False


# --- Weight ----------------------------------------------------------------------------------------------------


def test_the_types_and_their_json_form_load_nothing_heavy():
    """NumPy, torch and protobuf are loaded by those who use them, not by ``import``."""
    code = (
        "import sys, tinkex.types, tinkex.wire.json, tinkex.config, tinkex.errors;"
        "from tinkex.types import *;"
        "d = Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={'target_tokens': [2]});"
        "tinkex.wire.json.decode(tinkex.wire.json.encode(d), Datum);"
        "heavy = {'numpy', 'torch', 'transformers', 'google.protobuf', 'requests'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- Unions that are told apart by a tag ------------------------------------------------------------------------


def test_a_member_of_a_union_is_read_by_its_tag():
    """The field that names the kind decides, also where the whole may be null."""
    usage = {"bucket_start": "2026-03-01T10:00:00Z", "bucket_end": "2026-03-01T11:00:00Z"}
    event = structure({**usage, "event_info": {"type": "checkpoint", "count": 3}}, types.BillingUsageEvent)
    assert event.event_info == types.CheckpointBillingEvent(count=3)
    summary = {"session_id": "s", "created_at": NOON.isoformat(), "owner": "o", "project_id": "p"}
    for status, read in (({"type": "active"}, types.SessionActive()), (None, None)):
        body = {**summary, "checkpoints_count": 0, "status": status}
        assert structure(body, types.SessionSummary).status == read


def test_a_member_that_is_newer_than_this_version_is_kept():
    """A new kind of usage, status or optimizer does not make the whole answer unreadable."""
    info = {"model_id": "m", "model_data": {}, "optimizer_config": {"type": "lion", "beta": 0.9, "deep": [None]}}
    read = structure(info, types.GetInfoResponse)
    assert read.optimizer_config == types.Unrecognized(type="lion", fields={"beta": 0.9, "deep": [None]})
    assert parse(encode(read))["optimizer_config"] == info["optimizer_config"]


@pytest.mark.parametrize("body", [{"state": "paused", "request_id": "r"}, {"request_id": "r"}, {"state": ["finished"]}])
def test_a_member_without_a_known_tag_is_an_error_where_nothing_else_can_be_done(body):
    """A completion of an unknown kind cannot be acted upon; the message names those that are known."""
    with pytest.raises(InvalidInputError, match=r"state must be one of finished, failed, got .*completions\[0\]"):
        structure({"completions": [body], "cursor": 1}, types.FuturesRetrieveResponse)


def test_parameters_of_a_step_are_sent_where_the_server_looks_for_them():
    """AdamW's have a field of their own, those of all other optimizers share one."""
    adam = types.OptimStepRequest.of(AdamParams(learning_rate=1), model_id="m", seq_id=2)
    assert parse(encode(adam))["adam_params"]["learning_rate"] == 1
    dimuon = types.OptimStepRequest.of(types.DimuonParams(learning_rate=1), model_id="m")
    assert parse(encode(dimuon)) == {
        "optimizer_params": {"type": "dimuon", "learning_rate": 1.0, "grad_clip_norm": 0.0, "beta1": 0.9},
        "model_id": "m",
        "type": "optim_step",
    }
