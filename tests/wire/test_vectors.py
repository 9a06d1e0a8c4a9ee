"""Bodies as the official clients and servers write them: we write the same, and read them as what they mean."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import attrs
import pytest

from tinkex.types import (
    AdamOptimizerConfig,
    AdamParams,
    Checkpoint,
    CheckpointsListResponse,
    CreateModelRequest,
    CreateModelResponse,
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    Cursor,
    Datum,
    EncodedTextChunk,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardRequest,
    FutureRetrieveRequest,
    GenericEvent,
    GetInfoRequest,
    GetInfoResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    HealthResponse,
    ImageChunk,
    ListSessionsResponse,
    LoadWeightsRequest,
    LoadWeightsResponse,
    LoraConfig,
    ModelData,
    ModelInput,
    OptimStepRequest,
    OptimStepResponse,
    RequestFailedResponse,
    ResultMetadata,
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SamplingParams,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse,
    SaveWeightsRequest,
    SaveWeightsResponse,
    SessionEndEvent,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
    SessionStartEvent,
    SupportedModel,
    TelemetryResponse,
    TelemetrySendRequest,
    TensorData,
    TrainingRun,
    TrainingRunsResponse,
    TryAgainResponse,
    UnhandledExceptionEvent,
    UnloadModelRequest,
    UnloadModelResponse,
    UntypedAPIFuture,
    WeightsInfoRequest,
    WeightsInfoResponse,
)
from tinkex.types._base import default_of, is_late
from tinkex.wire.json import decode, encode

SID = "0f1e2d3c-4b5a-5968-8776-655443322110"
RUN = f"{SID}:train:0"
MORNING = datetime(2026, 3, 1, 10, tzinfo=timezone.utc)
LORA = LoraConfig(rank=16)
TEXT_AND_IMAGE = ModelInput(
    chunks=[
        EncodedTextChunk(tokens=[11, 12]),
        ImageChunk(data=b"\x89PNG", format="png", expected_tokens=4),
    ]
)
LOAD_PATH = "tinker://beef:train:2/weights/later"
CHECKPOINT = Checkpoint(
    checkpoint_id="weights/later",
    checkpoint_type="training",
    time=MORNING,
    tinker_path=f"tinker://{RUN}/weights/later",
    size_bytes=1234567,
)
DATUM = Datum(
    model_input=ModelInput.from_ints([11, 12]),
    loss_fn_inputs={"target_tokens": [12, 13], "weights": [0.0, 1.0]},
)
PROMPT = ModelInput.from_ints([1, 2, 3])


@attrs.frozen
class Vector:
    """A value, and its body as it travels in an era."""

    value: Any
    body: str
    era: str = "B"

    def __str__(self) -> str:
        return f"{type(self.value).__name__}-{self.era}"


# Written and read. {SID} and {RUN} stand for the ids.
BOTH_WAYS = [
    Vector(UntypedAPIFuture(request_id=f"{RUN}:3", model_id=RUN), '{"request_id": "{RUN}:3", "model_id": "{RUN}"}'),
    Vector(
        UntypedAPIFuture(
            request_id=f"{SID}:sample:0:0",
            sample_sequence_ids=[f"{SID}:sample:0:0:0", f"{SID}:sample:0:0:1"],
        ),
        '{"request_id": "{SID}:sample:0:0", "sample_sequence_ids": ["{SID}:sample:0:0:0", "{SID}:sample:0:0:1"]}',
    ),
    Vector(
        TEXT_AND_IMAGE,
        '{"chunks": [{"tokens": [11, 12]}, {"data": "iVBORw==", "format": "png", "expected_tokens": 4}]}',
        "A",
    ),
    Vector(
        TEXT_AND_IMAGE,
        '{"chunks": [{"tokens": [11, 12], "type": "encoded_text"}, '
        '{"data": "iVBORw==", "format": "png", "expected_tokens": 4, "type": "image"}]}',
    ),
    Vector(TensorData(data=[5, 9, 2], dtype="int64", shape=[3]), '{"data": [5, 9, 2], "dtype": "int64", "shape": [3]}'),
    Vector(
        TensorData(
            data=[7, 8],
            dtype="int64",
            shape=[3, 100],
            sparse_crow_indices=[0, 1, 1, 2],
            sparse_col_indices=[0, 4],
        ),
        '{"data": [7, 8], "dtype": "int64", "shape": [3, 100], '
        '"sparse_crow_indices": [0, 1, 1, 2], "sparse_col_indices": [0, 4]}',
    ),
    Vector(
        GetServerCapabilitiesResponse(
            supported_models=[
                SupportedModel(model_name="Qwen/Qwen3-8B", max_context_length=32768, trainable=True, sampleable=True)
            ]
        ),
        '{"supported_models": [{"model_name": "Qwen/Qwen3-8B", "max_context_length": 32768, '
        '"trainable": true, "sampleable": true}]}',
    ),
    Vector(HealthResponse(status="ok"), '{"status": "ok"}'),
    Vector(
        CreateSessionRequest(tags=["sweep"], user_metadata={"exp": "b2"}, sdk_version="0.38.0"),
        '{"tags": ["sweep"], "user_metadata": {"exp": "b2"}, "sdk_version": "0.38.0", "type": "create_session"}',
    ),
    Vector(
        CreateSessionRequest(tags=["sweep"], user_metadata=None, sdk_version="0.7.0"),
        '{"tags": ["sweep"], "user_metadata": {}, "sdk_version": "0.7.0"}',
        "A",
    ),
    Vector(CreateSessionResponse(session_id=SID), '{"session_id": "{SID}", "type": "create_session"}'),
    Vector(SessionHeartbeatRequest(session_id=SID), '{"session_id": "{SID}", "type": "session_heartbeat"}'),
    Vector(SessionHeartbeatRequest(session_id=SID), '{"session_id": "{SID}"}', "A"),
    Vector(SessionHeartbeatResponse(), '{"type": "session_heartbeat"}'),
    Vector(
        CreateSamplingSessionRequest(
            session_id=SID,
            sampling_session_seq_id=0,
            model_path=f"tinker://{RUN}/sampler_weights/early",
        ),
        '{"session_id": "{SID}", "sampling_session_seq_id": 0, '
        '"model_path": "tinker://{RUN}/sampler_weights/early", "type": "create_sampling_session"}',
    ),
    Vector(
        CreateSamplingSessionResponse(sampling_session_id=f"{SID}:sample:0"),
        '{"type": "create_sampling_session", "sampling_session_id": "{SID}:sample:0"}',
    ),
    Vector(
        CreateModelRequest(
            session_id=SID,
            model_seq_id=0,
            base_model="Qwen/Qwen3-8B",
            lora_config=LORA,
            optimizer_config=AdamOptimizerConfig(),
        ),
        '{"session_id": "{SID}", "model_seq_id": 0, "base_model": "Qwen/Qwen3-8B", "lora_config": '
        '{"rank": 16, "train_unembed": true, "train_mlp": true, "train_attn": true}, '
        '"optimizer_config": {"type": "adamw"}, "type": "create_model"}',
    ),
    Vector(
        CreateModelRequest(session_id=SID, model_seq_id=0, base_model="Qwen/Qwen3-8B", lora_config=LORA),
        '{"session_id": "{SID}", "model_seq_id": 0, "base_model": "Qwen/Qwen3-8B", "user_metadata": null, '
        '"lora_config": {"rank": 16, "seed": null, "train_unembed": true, "train_mlp": true, "train_attn": true}}',
        "A",
    ),
    Vector(CreateModelResponse(model_id=RUN), '{"type": "create_model", "model_id": "{RUN}"}'),
    Vector(GetInfoRequest(model_id=RUN), '{"model_id": "{RUN}", "type": "get_info"}'),
    Vector(
        GetInfoResponse(
            model_id=RUN,
            model_data=ModelData(arch="unknown", model_name="Qwen/Qwen3-8B", tokenizer_id="Qwen/Qwen3-8B"),
            is_lora=True,
            lora_rank=16,
        ),
        '{"type": "get_info", "model_id": "{RUN}", "model_data": {"arch": "unknown", '
        '"model_name": "Qwen/Qwen3-8B", "tokenizer_id": "Qwen/Qwen3-8B"}, "is_lora": true, "lora_rank": 16, '
        '"optimizer_config": {"type": "adamw"}}',
    ),
    Vector(UnloadModelRequest(model_id=RUN), '{"model_id": "{RUN}", "type": "unload_model"}'),
    Vector(UnloadModelResponse(model_id=RUN), '{"model_id": "{RUN}", "type": "unload_model"}'),
    Vector(
        LoadWeightsRequest(model_id=RUN, seq_id=1, path=LOAD_PATH, optimizer=True),
        '{"model_id": "{RUN}", "seq_id": 1, "path": "tinker://beef:train:2/weights/later", '
        '"optimizer": true, "type": "load_weights"}',
    ),
    Vector(
        LoadWeightsRequest(session_id=SID, model_seq_id=1, path=LOAD_PATH, optimizer=False),
        '{"session_id": "{SID}", "model_seq_id": 1, "path": "tinker://beef:train:2/weights/later", '
        '"optimizer": false, "type": "load_weights"}',
    ),
    Vector(
        LoadWeightsRequest(model_id=RUN, seq_id=1, path=LOAD_PATH),
        '{"model_id": "{RUN}", "seq_id": 1, "path": "tinker://beef:train:2/weights/later", "optimizer": false}',
        "A",
    ),
    Vector(
        LoadWeightsResponse(path=LOAD_PATH, model_id=f"{SID}:train:1"),
        '{"type": "load_weights", "path": "tinker://beef:train:2/weights/later", "model_id": "{SID}:train:1"}',
    ),
    Vector(
        SaveWeightsRequest(model_id=RUN, path="later", seq_id=7),
        '{"model_id": "{RUN}", "path": "later", "seq_id": 7, "overwrite": false, "type": "save_weights"}',
    ),
    Vector(SaveWeightsRequest(model_id=RUN, seq_id=7), '{"model_id": "{RUN}", "path": null, "seq_id": 7}', "A"),
    Vector(
        SaveWeightsResponse(path=f"tinker://{RUN}/weights/later"),
        '{"type": "save_weights", "path": "tinker://{RUN}/weights/later"}',
    ),
    Vector(
        SaveWeightsForSamplerRequest(model_id=RUN, sampling_session_seq_id=2, seq_id=9),
        '{"model_id": "{RUN}", "sampling_session_seq_id": 2, "kind": "snapshot", "seq_id": 9, '
        '"type": "save_weights_for_sampler"}',
    ),
    Vector(
        SaveWeightsForSamplerRequest(model_id=RUN, path="a", seq_id=9),
        '{"model_id": "{RUN}", "path": "a", "seq_id": 9}',
        "A",
    ),
    Vector(
        SaveWeightsForSamplerResponse(path=f"tinker://{RUN}/sampler_weights/a"),
        '{"type": "save_weights_for_sampler", "path": "tinker://{RUN}/sampler_weights/a"}',
    ),
    Vector(
        ForwardRequest(
            forward_input=ForwardBackwardInput(data=[DATUM], loss_fn="cross_entropy"), model_id=RUN, seq_id=3
        ),
        '{"forward_input": {"data": [{"loss_fn_inputs": {"target_tokens": {"data": [12, 13], "dtype": "int64", '
        '"shape": [2]}, "weights": {"data": [0.0, 1.0], "dtype": "float32", "shape": [2]}}, "model_input": '
        '{"chunks": [{"tokens": [11, 12]}]}}], "loss_fn": "cross_entropy", "loss_fn_config": null}, '
        '"model_id": "{RUN}", "seq_id": 3}',
        "A",
    ),
    Vector(
        ForwardBackwardOutput(
            loss_fn_output_type="CrossEntropyLossReturn",
            loss_fn_outputs=[
                {
                    "logprobs": TensorData(data=[-0.4, -1.2], dtype="float32", shape=[2]),
                    "elementwise_loss": TensorData(data=[0.0, 1.2], dtype="float32", shape=[2]),
                }
            ],
            metrics={"loss:sum": 1.2},
        ),
        '{"loss_fn_output_type": "CrossEntropyLossReturn", "loss_fn_outputs": [{"logprobs": {"data": [-0.4, -1.2], '
        '"dtype": "float32", "shape": [2]}, "elementwise_loss": {"data": [0.0, 1.2], "dtype": "float32", '
        '"shape": [2]}}], "metrics": {"loss:sum": 1.2}}',
    ),
    Vector(
        OptimStepRequest(adam_params=AdamParams(learning_rate=0.0003, grad_clip_norm=1.0), model_id=RUN, seq_id=5),
        '{"adam_params": {"learning_rate": 0.0003, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "weight_decay": 0.0, '
        '"grad_clip_norm": 1.0}, "model_id": "{RUN}", "seq_id": 5, "type": "optim_step"}',
    ),
    Vector(
        OptimStepRequest(adam_params=AdamParams(learning_rate=0.0003), model_id=RUN, seq_id=5),
        '{"adam_params": {"learning_rate": 0.0003}, "model_id": "{RUN}", "seq_id": 5}',
        "A",
    ),
    Vector(OptimStepResponse(metrics={"unclipped_grad_l2:mean": 3.1}), '{"metrics": {"unclipped_grad_l2:mean": 3.1}}'),
    Vector(OptimStepResponse(), "{}"),
    Vector(
        SampleRequest(
            num_samples=2,
            prompt=PROMPT,
            sampling_params=SamplingParams(max_tokens=16, stop=["\n"], temperature=0.7),
            sampling_session_id=f"{SID}:sample:0",
            seq_id=0,
            prompt_logprobs=True,
        ),
        '{"num_samples": 2, "prompt": {"chunks": [{"tokens": [1, 2, 3], "type": "encoded_text"}]}, '
        '"sampling_params": {"max_tokens": 16, "stop": ["\\n"], "temperature": 0.7, "top_k": -1, "top_p": 1.0}, '
        '"sampling_session_id": "{SID}:sample:0", "seq_id": 0, "prompt_logprobs": true, "topk_prompt_logprobs": 0, '
        '"topk_sample_logprobs": 0, "prompt_alt_tokens_k": 0, "record_stability_info": false, "type": "sample"}',
    ),
    Vector(
        SampleRequest(prompt=PROMPT, sampling_params=SamplingParams(max_tokens=16), base_model="m", num_samples=2),
        '{"num_samples": 2, "prompt": {"chunks": [{"tokens": [1, 2, 3]}]}, "sampling_params": {"max_tokens": 16}, '
        '"base_model": "m"}',
        "A",
    ),
    Vector(
        FutureRetrieveRequest(request_id=f"{RUN}:5", allow_metadata_only=True),
        '{"request_id": "{RUN}:5", "allow_metadata_only": true}',
    ),
    Vector(FutureRetrieveRequest(request_id=f"{RUN}:5"), '{"request_id": "{RUN}:5"}', "A"),
    Vector(
        TryAgainResponse(
            request_id=f"{RUN}:5", queue_state="paused_capacity", queue_state_reason="waiting for a machine"
        ),
        '{"type": "try_again", "request_id": "{RUN}:5", "queue_state": "paused_capacity", '
        '"queue_state_reason": "waiting for a machine"}',
    ),
    Vector(
        ResultMetadata(response_payload_size=9876543),
        '{"status": "complete_metadata", "response_payload_size": 9876543}',
    ),
    Vector(
        RequestFailedResponse(error="datum 0 has too few weights", category="user"),
        '{"error": "datum 0 has too few weights", "category": "user"}',
    ),
    Vector(
        TelemetrySendRequest(
            events=[
                SessionStartEvent(event_id="e-1", event_session_index=0, timestamp=MORNING.replace(microsecond=120000))
            ],
            platform="Linux",
            sdk_version="0.38.0",
            session_id=SID,
            process_uuid="p-1",
        ),
        '{"events": [{"event": "SESSION_START", "event_id": "e-1", "event_session_index": 0, "severity": "INFO", '
        '"timestamp": "2026-03-01T10:00:00.120000Z"}], "platform": "Linux", "sdk_version": "0.38.0", '
        '"session_id": "{SID}", "process_uuid": "p-1"}',
    ),
    Vector(
        TelemetrySendRequest(
            events=[
                SessionStartEvent(event_id="e-1", event_session_index=0, timestamp=MORNING),
                SessionEndEvent(event_id="e-2", event_session_index=1, timestamp=MORNING, duration="0:01:02"),
                UnhandledExceptionEvent(
                    event_id="e-3", event_session_index=2, timestamp=MORNING, error_type="E", error_message="m"
                ),
                GenericEvent(event_id="e-4", event_session_index=3, timestamp=MORNING, event_name="n"),
            ],
            platform="Linux",
            sdk_version="0.7.0",
            session_id=SID,
        ),
        '{"events": [{"event": "SESSION_START", "event_id": "e-1", "event_session_index": 0, "severity": "INFO", '
        '"timestamp": "2026-03-01T10:00:00Z"}, {"event": "SESSION_END", "event_id": "e-2", "event_session_index": 1, '
        '"severity": "INFO", "timestamp": "2026-03-01T10:00:00Z", "duration": "0:01:02"}, '
        '{"event": "UNHANDLED_EXCEPTION", "event_id": "e-3", "event_session_index": 2, "severity": "ERROR", '
        '"timestamp": "2026-03-01T10:00:00Z", "error_type": "E", "error_message": "m"}, '
        '{"event": "GENERIC_EVENT", "event_id": "e-4", "event_session_index": 3, "severity": "INFO", '
        '"timestamp": "2026-03-01T10:00:00Z", "event_name": "n"}], "platform": "Linux", "sdk_version": "0.7.0", '
        '"session_id": "{SID}"}',
        "A",
    ),
    Vector(TelemetryResponse(status="accepted"), '{"status": "accepted"}'),
    Vector(WeightsInfoRequest(tinker_path=LOAD_PATH), '{"tinker_path": "tinker://beef:train:2/weights/later"}'),
    Vector(
        WeightsInfoResponse(
            base_model="Qwen/Qwen3-8B",
            is_lora=True,
            lora_rank=16,
            train_unembed=True,
            train_mlp=True,
            train_attn=True,
        ),
        '{"base_model": "Qwen/Qwen3-8B", "is_lora": true, "lora_rank": 16, "train_unembed": true, '
        '"train_mlp": true, "train_attn": true, "optimizer_config": {"type": "adamw"}}',
    ),
    Vector(
        GetSamplerResponse(
            sampler_id=f"{SID}:sample:0",
            base_model="Qwen/Qwen3-8B",
            model_path=f"tinker://{RUN}/sampler_weights/early",
        ),
        '{"sampler_id": "{SID}:sample:0", "base_model": "Qwen/Qwen3-8B", '
        '"model_path": "tinker://{RUN}/sampler_weights/early"}',
    ),
    Vector(ListSessionsResponse(sessions=[SID]), '{"sessions": ["{SID}"]}'),
]

# Written by other servers and clients in ways that we read but do not write.
READ_ONLY = [
    Vector(
        GetInfoResponse(model_id=RUN, model_data=ModelData(model_name="Qwen/Qwen3-8B"), is_lora=True, lora_rank=16),
        '{"model_id": "{RUN}", "model_data": {"model_name": "Qwen/Qwen3-8B"}, "is_lora": true, "lora_rank": 16}',
    ),
    Vector(
        WeightsInfoResponse(base_model="Qwen/Qwen3-8B", is_lora=True, lora_rank=16),
        '{"base_model": "Qwen/Qwen3-8B", "is_lora": true, "lora_rank": 16}',
    ),
    Vector(UntypedAPIFuture(request_id="r"), '{"request_id": "r", "future_id": "7", "status": "pending"}'),
    Vector(
        GetServerCapabilitiesResponse(supported_models=[SupportedModel()]),
        '{"supported_models": [{"model_name": null}]}',
    ),
    Vector(CreateSessionResponse(session_id=SID), '{"session_id": "{SID}", "info_message": null}'),
    Vector(SessionHeartbeatResponse(), "{}"),
    Vector(UnloadModelResponse(model_id=RUN), '{"model_id": "{RUN}", "type": "unload_model", "status": "unloaded"}'),
    Vector(
        SaveWeightsForSamplerResponse(sampling_session_id=f"{SID}:sample:2"),
        '{"type": "save_weights_for_sampler", "path": null, "sampling_session_id": "{SID}:sample:2", '
        '"size_bytes": null}',
    ),
    Vector(
        CheckpointsListResponse(checkpoints=[CHECKPOINT]),
        '{"checkpoints": [{"checkpoint_id": "weights/later", "checkpoint_type": "training", '
        '"time": "2026-03-01T10:00:00Z", "tinker_path": "tinker://{RUN}/weights/later", '
        '"size_bytes": 1234567, "public": false, "expires_at": null}]}',
    ),
    Vector(OptimStepResponse(), '{"metrics": null}'),
    Vector(
        SampleResponse(
            sequences=[
                SampledSequence(stop_reason="stop", tokens=[9, 4], logprobs=[-0.3, -0.9]),
                SampledSequence(stop_reason="length", tokens=[8, 8], logprobs=[-1.1, -0.2]),
            ],
            prompt_logprobs=[None, -2.5, -0.7],
        ),
        '{"type": "sample", "sequences": [{"stop_reason": "stop", "tokens": [9, 4], "logprobs": [-0.3, -0.9]}, '
        '{"stop_reason": "length", "tokens": [8, 8], "logprobs": [-1.1, -0.2]}], '
        '"prompt_logprobs": [null, -2.5, -0.7], "topk_prompt_logprobs": null}',
    ),
    Vector(
        TrainingRunsResponse(
            training_runs=[
                TrainingRun(
                    training_run_id=RUN,
                    base_model="Qwen/Qwen3-8B",
                    model_owner="tml:organization_user:1f",
                    is_lora=True,
                    lora_rank=16,
                    last_request_time=MORNING.replace(minute=2, second=11, microsecond=500000),
                    user_metadata={"exp": "b2"},
                )
            ],
            cursor=Cursor(offset=0, limit=20, total_count=1),
        ),
        '{"training_runs": [{"training_run_id": "{RUN}", "base_model": "Qwen/Qwen3-8B", '
        '"model_owner": "tml:organization_user:1f", "is_lora": true, "corrupted": false, "lora_rank": 16, '
        '"last_request_time": "2026-03-01T10:02:11.5Z", "last_checkpoint": null, '
        '"last_sampler_checkpoint": null, "user_metadata": {"exp": "b2"}}], '
        '"cursor": {"offset": 0, "limit": 20, "total_count": 1}}',
    ),
]


def filled_in(body: str) -> str:
    """Put the ids where the placeholders stand."""
    return body.replace("{SID}", SID).replace("{RUN}", RUN)


def canonical(body: Any) -> str:
    """Write JSON with its keys in order and no blanks, so that bodies can be compared as text."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def without_late_defaults(body: Any, cls: type[Any]) -> Any:
    """Leave out of an official body what servers for older SDKs refuse though it says nothing."""
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    late = {field.name: default_of(field) for field in fields if is_late(field)}
    return {name: value for name, value in body.items() if name not in late or value != late[name]}


@pytest.mark.parametrize("vector", BOTH_WAYS, ids=str)
def test_we_write_what_the_official_client_writes(vector):
    """In its era, each body is the same to the byte, up to the order of the keys and what older servers refuse."""
    official = without_late_defaults(json.loads(filled_in(vector.body)), type(vector.value))
    assert canonical(json.loads(encode(vector.value, vector.era))) == canonical(official)


@pytest.mark.parametrize("vector", BOTH_WAYS + READ_ONLY, ids=str)
def test_we_read_what_the_official_client_and_its_servers_write(vector):
    """Each body reads as the value that it means, whatever its era."""
    assert decode(filled_in(vector.body).encode(), type(vector.value)) == vector.value


@pytest.mark.parametrize("vector", BOTH_WAYS, ids=str)
def test_bodies_are_compact(vector):
    """No byte is spent on blanks."""
    body = encode(vector.value, vector.era)
    assert b'": ' not in body
    assert b", " not in body.replace(b'"waiting for a machine"', b"")
