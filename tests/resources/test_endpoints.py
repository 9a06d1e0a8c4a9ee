"""Every endpoint: what goes out, what comes back, in one table."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
import requests
import responses

from tinkex import types
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.errors import (
    APIResponseValidationError,
    APIStatusError,
    ConflictError,
    InternalServerError,
    InvalidInputError,
    RateLimitError,
)
from tinkex.resources import ENDPOINTS, APIResponse, TinkexAPI

URL = "http://tinker.test/prod"
RUN = "4b0c8a52:train:0"
CKPT = "weights/step-40"
FUTURE = {"request_id": f"{RUN}:3"}
PROMISE = types.UntypedAPIFuture(request_id=f"{RUN}:3")
DATUM = types.Datum(
    model_input=types.ModelInput(chunks=[types.EncodedTextChunk(tokens=[1, 2])]),
    loss_fn_inputs={"target_tokens": [2, 3], "weights": [0.0, 1.0]},
)
BATCH = types.ForwardBackwardInput(data=[DATUM], loss_fn="cross_entropy")
BATCH_JSON = {
    "data": [
        {
            "model_input": {"chunks": [{"tokens": [1, 2], "type": "encoded_text"}]},
            "loss_fn_inputs": {
                "target_tokens": {"data": [2, 3], "dtype": "int64", "shape": [2]},
                "weights": {"data": [0.0, 1.0], "dtype": "float32", "shape": [2]},
            },
        }
    ],
    "loss_fn": "cross_entropy",
}
ADAM = {
    "learning_rate": 0.001,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-12,
    "weight_decay": 0.0,
    "grad_clip_norm": 0.0,
}
WHEN = datetime(2026, 3, 1, 10, tzinfo=timezone.utc)
CHECKPOINT_JSON = {
    "checkpoint_id": CKPT,
    "checkpoint_type": "training",
    "time": "2026-03-01T10:00:00Z",
    "tinker_path": f"tinker://{RUN}/{CKPT}",
    "size_bytes": 7,
    "unknown": 1,
}
CHECKPOINT = types.Checkpoint(
    checkpoint_id=CKPT,
    checkpoint_type="training",
    time=WHEN,
    tinker_path=f"tinker://{RUN}/{CKPT}",
    size_bytes=7,
)
RUN_JSON = {
    "training_run_id": RUN,
    "base_model": "tinkex/tiny",
    "model_owner": "me",
    "is_lora": True,
    "lora_rank": 16,
    "last_request_time": "2026-03-01T10:00:00Z",
    "last_checkpoint": CHECKPOINT_JSON,
}
TRAINING_RUN = types.TrainingRun(
    training_run_id=RUN,
    base_model="tinkex/tiny",
    model_owner="me",
    is_lora=True,
    lora_rank=16,
    last_request_time=WHEN,
    last_checkpoint=CHECKPOINT,
)
CURSOR_JSON = {"offset": 0, "limit": 20, "total_count": 1}
CURSOR = types.Cursor(offset=0, limit=20, total_count=1)
SAMPLE = types.SampleRequest(
    prompt=types.ModelInput(chunks=[types.EncodedTextChunk(tokens=[1])]),
    sampling_params=types.SamplingParams(max_tokens=4, stop=["\n"]),
    sampling_session_id="s:sample:0",
    seq_id=0,
)
CUSTOM_LOSS = types.CreateCustomLossRequest(
    session_id="s",
    custom_loss_seq_id=0,
    name="mine",
    inputs=[types.CustomLossInput(name="logprobs", rank=1)],
    graph=types.CustomLossGraph(
        nodes=[types.CustomLossNode(op="output", name="out", target="output", args=[{"ref": "x"}])]
    ),
)
START = types.SessionStartEvent(event_id="e", event_session_index=0, timestamp=WHEN)


@attrs.frozen(kw_only=True)
class Case:
    """One call of one endpoint."""

    name: str
    call: Callable[[Any], Any]
    path: str
    body: Any = None
    answer: Any = None
    status: int = 200
    result: Any = None


# `resource` is what stands before the dot in the name: the resource, or its twin with raw answers.
CASES = [
    Case(
        name="service.get_server_capabilities",
        call=lambda resource: resource.get_server_capabilities(),
        path="/api/v1/get_server_capabilities",
        answer={"supported_models": [{"model_name": "tinkex/tiny", "max_context_length": 512, "new": 1}]},
        result=types.GetServerCapabilitiesResponse(
            supported_models=[types.SupportedModel(model_name="tinkex/tiny", max_context_length=512)]
        ),
    ),
    Case(
        name="service.health_check",
        call=lambda resource: resource.health_check(),
        path="/api/v1/healthz",
        answer={"status": "ok"},
        result=types.HealthResponse(status="ok"),
    ),
    Case(
        name="service.create_session",
        call=lambda resource: resource.create_session(
            types.CreateSessionRequest(tags=["a"], user_metadata={}, sdk_version="1")
        ),
        path="/api/v1/create_session",
        body={"tags": ["a"], "user_metadata": {}, "sdk_version": "1", "type": "create_session"},
        answer={"session_id": "s", "type": "create_session", "info_message": None},
        result=types.CreateSessionResponse(session_id="s"),
    ),
    Case(
        name="service.session_heartbeat",
        call=lambda resource: resource.session_heartbeat(types.SessionHeartbeatRequest(session_id="s")),
        path="/api/v1/session_heartbeat",
        body={"session_id": "s", "type": "session_heartbeat"},
        answer={},
        result=types.SessionHeartbeatResponse(),
    ),
    Case(
        name="service.create_sampling_session",
        call=lambda resource: resource.create_sampling_session(
            types.CreateSamplingSessionRequest(session_id="s", sampling_session_seq_id=0, base_model="tinkex/tiny")
        ),
        path="/api/v1/create_sampling_session",
        body={
            "session_id": "s",
            "sampling_session_seq_id": 0,
            "base_model": "tinkex/tiny",
            "type": "create_sampling_session",
        },
        answer={"type": "create_sampling_session", "sampling_session_id": "s:sample:0"},
        result=types.CreateSamplingSessionResponse(sampling_session_id="s:sample:0"),
    ),
    Case(
        name="service.get_session",
        call=lambda resource: resource.get_session("s", access_scope="accessible"),
        path="/api/v1/sessions/s?access_scope=accessible",
        answer={"training_run_ids": [RUN], "sampler_ids": []},
        result=types.GetSessionResponse(training_run_ids=[RUN], sampler_ids=[]),
    ),
    Case(
        name="service.list_sessions",
        call=lambda resource: resource.list_sessions(limit=5),
        path="/api/v1/sessions?limit=5&offset=0",
        answer={"sessions": ["s"]},
        result=types.ListSessionsResponse(sessions=["s"]),
    ),
    Case(
        name="service.get_sampler",
        call=lambda resource: resource.get_sampler("s:sample:0"),
        path="/api/v1/samplers/s:sample:0",
        answer={"sampler_id": "s:sample:0", "base_model": "tinkex/tiny", "model_path": None},
        result=types.GetSamplerResponse(sampler_id="s:sample:0", base_model="tinkex/tiny"),
    ),
    Case(
        name="service.client_config",
        call=lambda resource: resource.client_config("1.2"),
        path="/api/v1/client/config",
        body={"sdk_version": "1.2"},
        answer={"fwdbwd_max_chunk_len": 512, "anything": "else"},
        result=types.ClientConfigResponse(fwdbwd_max_chunk_len=512),
    ),
    Case(
        name="service.client_dynamic_config",
        call=lambda resource: resource.client_dynamic_config("1.2"),
        path="/api/v1/client/dynamic_config",
        body={"sdk_version": "1.2"},
        answer={"sample_cancel_enabled": True, "anything": "else"},
        result=types.ClientDynamicConfigResponse(sample_cancel_enabled=True),
    ),
    Case(
        name="service.search_sessions",
        call=lambda resource: resource.search_sessions(
            types.SessionSearchRequest(
                display_name="night",
                owner=types.UserSearchOwner(owner_urns=["u"]),
                statuses=[types.ActiveSessionStatusQuery()],
                limit=2,
                cursor=types.SessionSearchCursor(last_created_at=WHEN, last_session_id="s0"),
            )
        ),
        path="/api/v1/sessions/search",
        body={
            "display_name": "night",
            "user_metadata": {},
            "owner": {"type": "user", "owner_urns": ["u"]},
            "statuses": [{"type": "active"}],
            "limit": 2,
            "cursor": {"last_created_at": "2026-03-01T10:00:00Z", "last_session_id": "s0"},
        },
        answer={
            "sessions": [
                {
                    "session_id": "s",
                    "created_at": "2026-03-01T10:00:00Z",
                    "owner": "u",
                    "project_id": "p",
                    "checkpoints_count": 3,
                    "status": {
                        "type": "failed",
                        "category": "user",
                        "message": "m",
                        "reason": {"type": "training_run", "training_run_id": RUN},
                    },
                }
            ],
            "next_cursor": None,
        },
        result=types.SessionSearchResponse(
            sessions=[
                types.SessionSummary(
                    session_id="s",
                    created_at=WHEN,
                    owner="u",
                    project_id="p",
                    checkpoints_count=3,
                    status=types.SessionFailed(
                        category="user",
                        message="m",
                        reason=types.SessionFailedTrainingRunReason(training_run_id=RUN),
                    ),
                )
            ]
        ),
    ),
    Case(
        name="service.assign_session_project",
        call=lambda resource: resource.assign_session_project("s", "p"),
        path="/api/v1/sessions/s/project",
        body={"project_id": "p"},
        status=204,
    ),
    Case(
        name="service.export_session_trace",
        call=lambda resource: resource.export_session_trace("s"),
        path="/api/v1/sessions/s/trace_export",
        answer={"status": "ready", "url": "https://store.test/t"},
        result=types.TraceExportResponse(status="ready", url="https://store.test/t"),
    ),
    Case(
        name="service.auth_token",
        call=lambda resource: resource.auth_token(),
        path="/api/v1/auth/token",
        body={},
        answer={"jwt": "eyJ.x.y"},
        result=types.AuthTokenResponse(jwt="eyJ.x.y"),
    ),
    Case(
        name="service.get_api_key",
        call=lambda resource: resource.get_api_key(),
        path="/api/v1/auth/apikey/me",
        answer={
            "key_id": 7,
            "name": "laptop",
            "note": "",
            "details": {"org_details": {"name": "o"}, "user_details": {"email": "e"}},
        },
        result=types.ApiKeyResponse(
            key_id=7,
            name="laptop",
            note="",
            details=types.ApiKeyDetails(
                org_details=types.ApiKeyOrgDetails(name="o"), user_details=types.ApiKeyUserDetails(email="e")
            ),
        ),
    ),
    Case(
        name="service.delete_api_key",
        call=lambda resource: resource.delete_api_key(),
        path="/api/v1/auth/apikey/me",
        status=204,
    ),
    Case(
        name="service.get_audit_log",
        call=lambda resource: resource.get_audit_log("projects", date(2026, 3, 1)),
        path="/api/v1/audit?event_type=projects&day=2026-03-01",
        answer={
            "entries": [{"timestamp": "2026-03-01T10:00:00Z", "event": "project_read", "event_details": {"who": "u"}}]
        },
        result=types.AuditLogResponse(
            entries=[types.AuditLogEntry(timestamp=WHEN, event="project_read", event_details={"who": "u"})]
        ),
    ),
    Case(
        name="service.get_billing_usage",
        call=lambda resource: resource.get_billing_usage(
            datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 3, 1, 11)
        ),
        path="/api/v1/billing/usage/events?starting_on=2026-03-01T10%3A00%3A00Z&ending_before=2026-03-01T11%3A00%3A00Z",
        answer={
            "data": [
                {
                    "bucket_start": "2026-03-01T10:00:00Z",
                    "bucket_end": "2026-03-01T11:00:00Z",
                    "event_info": {"type": "sampling_prefill", "cached": True, "token_count": 5},
                    "estimated_cost_usd": 0.5,
                }
            ],
            "sessions": {"s": {"user_metadata": {"a": "b"}}},
        },
        result=types.BillingUsageResponse(
            data=[
                types.BillingUsageEvent(
                    bucket_start=WHEN,
                    bucket_end=WHEN + timedelta(hours=1),
                    event_info=types.SamplingPrefillBillingEvent(cached=True, token_count=5),
                    estimated_cost_usd=0.5,
                )
            ],
            sessions={"s": types.BillingUsageSession(user_metadata={"a": "b"})},
        ),
    ),
    Case(
        name="service.get_current_checkpoint_storage_usage",
        call=lambda resource: resource.get_current_checkpoint_storage_usage("p"),
        path="/api/v1/billing/usage/checkpoints/current?project_id=p",
        answer={"data": [{"checkpoint_count": 1, "size_bytes": 2, "size_gigabytes": 0.5, "project_id": "p"}]},
        result=types.CurrentCheckpointStorageUsageResponse(
            data=[
                types.CurrentCheckpointStorageUsageItem(
                    checkpoint_count=1, size_bytes=2, size_gigabytes=0.5, project_id="p"
                )
            ]
        ),
    ),
    Case(
        name="service.finish_session",
        call=lambda resource: resource.finish_session("s", "errored"),
        path="/api/v1/sessions/s/finish",
        body={"reason": {"type": "errored"}, "detail": None},
        status=204,
    ),
    Case(
        name="models.create",
        call=lambda resource: resource.create(
            types.CreateModelRequest(
                session_id="s", model_seq_id=0, base_model="tinkex/tiny", lora_config=types.LoraConfig(rank=8)
            )
        ),
        path="/api/v1/create_model",
        body={
            "session_id": "s",
            "model_seq_id": 0,
            "base_model": "tinkex/tiny",
            "lora_config": {"rank": 8, "train_unembed": True, "train_mlp": True, "train_attn": True},
            "type": "create_model",
        },
        answer={"request_id": f"{RUN}:0", "model_id": RUN},
        result=types.UntypedAPIFuture(request_id=f"{RUN}:0", model_id=RUN),
    ),
    Case(
        name="models.get_info",
        call=lambda resource: resource.get_info(types.GetInfoRequest(model_id=RUN)),
        path="/api/v1/get_info",
        body={"model_id": RUN, "type": "get_info"},
        answer={"model_id": RUN, "model_data": {"model_name": "tinkex/tiny"}, "is_lora": True, "lora_rank": 8},
        result=types.GetInfoResponse(
            model_id=RUN, model_data=types.ModelData(model_name="tinkex/tiny"), is_lora=True, lora_rank=8
        ),
    ),
    Case(
        name="models.unload",
        call=lambda resource: resource.unload(types.UnloadModelRequest(model_id=RUN)),
        path="/api/v1/unload_model",
        body={"model_id": RUN, "type": "unload_model"},
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="models.list_training_runs",
        call=lambda resource: resource.list_training_runs(offset=3, access_scope="owned"),
        path="/api/v1/training_runs?limit=20&offset=3&access_scope=owned",
        answer={"training_runs": [RUN_JSON], "cursor": CURSOR_JSON},
        result=types.TrainingRunsResponse(training_runs=[TRAINING_RUN], cursor=CURSOR),
    ),
    Case(
        name="models.get_training_run",
        call=lambda resource: resource.get_training_run(RUN),
        path=f"/api/v1/training_runs/{RUN}",
        answer=RUN_JSON,
        result=TRAINING_RUN,
    ),
    Case(
        name="weights.load",
        call=lambda resource: resource.load(
            types.LoadWeightsRequest(model_id=RUN, seq_id=1, path=f"tinker://{RUN}/{CKPT}", optimizer=True)
        ),
        path="/api/v1/load_weights",
        body={
            "model_id": RUN,
            "seq_id": 1,
            "path": f"tinker://{RUN}/{CKPT}",
            "optimizer": True,
            "type": "load_weights",
        },
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="weights.save",
        call=lambda resource: resource.save(types.SaveWeightsRequest(model_id=RUN, path="step-40", seq_id=7)),
        path="/api/v1/save_weights",
        body={"model_id": RUN, "path": "step-40", "seq_id": 7, "type": "save_weights"},
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="weights.save_for_sampler",
        call=lambda resource: resource.save_for_sampler(
            types.SaveWeightsForSamplerRequest(model_id=RUN, sampling_session_seq_id=2, seq_id=9)
        ),
        path="/api/v1/save_weights_for_sampler",
        body={
            "model_id": RUN,
            "sampling_session_seq_id": 2,
            "seq_id": 9,
            "type": "save_weights_for_sampler",
        },
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="weights.list",
        call=lambda resource: resource.list(RUN),
        path=f"/api/v1/training_runs/{RUN}/checkpoints",
        answer={"checkpoints": [CHECKPOINT_JSON]},
        result=types.CheckpointsListResponse(checkpoints=[CHECKPOINT]),
    ),
    Case(
        name="weights.delete_checkpoint",
        call=lambda resource: resource.delete_checkpoint(RUN, CKPT),
        path=f"/api/v1/training_runs/{RUN}/checkpoints/{CKPT}",
        status=204,
    ),
    Case(
        name="weights.list_user_checkpoints",
        call=lambda resource: resource.list_user_checkpoints(),
        path="/api/v1/checkpoints?limit=100&offset=0",
        answer={"checkpoints": [], "cursor": CURSOR_JSON},
        result=types.CheckpointsListResponse(checkpoints=[], cursor=CURSOR),
    ),
    Case(
        name="weights.publish",
        call=lambda resource: resource.publish(RUN, CKPT),
        path=f"/api/v1/training_runs/{RUN}/checkpoints/{CKPT}/publish",
        status=204,
    ),
    Case(
        name="weights.unpublish",
        call=lambda resource: resource.unpublish(RUN, CKPT),
        path=f"/api/v1/training_runs/{RUN}/checkpoints/{CKPT}/publish",
        status=204,
    ),
    Case(
        name="weights.set_ttl",
        call=lambda resource: resource.set_ttl(RUN, CKPT, None),
        path=f"/api/v1/training_runs/{RUN}/checkpoints/{CKPT}/ttl",
        body={"ttl_seconds": None},
        status=204,
    ),
    Case(
        name="weights.weights_info",
        call=lambda resource: resource.weights_info(types.WeightsInfoRequest(tinker_path=f"tinker://{RUN}/{CKPT}")),
        path="/api/v1/weights_info",
        body={"tinker_path": f"tinker://{RUN}/{CKPT}"},
        answer={"base_model": "tinkex/tiny", "is_lora": True, "lora_rank": 8},
        result=types.WeightsInfoResponse(base_model="tinkex/tiny", is_lora=True, lora_rank=8),
    ),
    Case(
        name="weights.save_external",
        call=lambda resource: resource.save_external(
            types.SaveWeightsExternalRequest(
                model_id=RUN, path="out", seq_id=5, ttl_seconds=3600, age_encryption_recipients=["age1x"]
            )
        ),
        path="/api/v1/save_weights_external",
        body={
            "model_id": RUN,
            "path": "out",
            "seq_id": 5,
            "ttl_seconds": 3600,
            "age_encryption_recipients": ["age1x"],
            "type": "save_weights_external",
        },
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="weights.get_external_weights_urls",
        call=lambda resource: resource.get_external_weights_urls(RUN, "external_weights/out"),
        path=f"/api/v1/training_runs/{RUN}/checkpoints/external_weights/out/external_weights_urls",
        answer={"urls": {"a/b.bin": "https://store.test/b"}, "expires": "2026-03-01T10:00:00Z"},
        result=types.ExternalWeightsUrlsResponse(urls={"a/b.bin": "https://store.test/b"}, expires=WHEN),
    ),
    Case(
        name="weights.copy",
        call=lambda resource: resource.copy(
            types.CopyWeightsRequest(source_path=f"tinker://{RUN}/{CKPT}", destination_project_id="p")
        ),
        path="/api/v1/copy_weights",
        body={"source_path": f"tinker://{RUN}/{CKPT}", "destination_project_id": "p"},
        answer={"tinker_path": "tinker://x:train:0/weights/step-40"},
        result=types.CopyWeightsResponse(tinker_path="tinker://x:train:0/weights/step-40"),
    ),
    Case(
        name="training.create_custom_loss",
        call=lambda resource: resource.create_custom_loss(CUSTOM_LOSS),
        path="/api/v1/create_custom_loss",
        body={
            "session_id": "s",
            "custom_loss_seq_id": 0,
            "name": "mine",
            "inputs": [{"name": "logprobs", "rank": 1}],
            "graph": {
                "nodes": [{"op": "output", "name": "out", "target": "output", "args": [{"ref": "x"}], "kwargs": {}}],
                "format": 1,
            },
            "type": "create_custom_loss",
        },
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="training.forward",
        call=lambda resource: resource.forward(types.ForwardRequest(forward_input=BATCH, model_id=RUN, seq_id=3)),
        path="/api/v1/forward",
        body={"forward_input": BATCH_JSON, "model_id": RUN, "seq_id": 3},
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="training.forward_backward",
        call=lambda resource: resource.forward_backward(
            types.ForwardBackwardRequest(forward_backward_input=BATCH, model_id=RUN, seq_id=3)
        ),
        path="/api/v1/forward_backward",
        body={"forward_backward_input": BATCH_JSON, "model_id": RUN, "seq_id": 3},
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="training.optim_step",
        call=lambda resource: resource.optim_step(
            types.OptimStepRequest(adam_params=types.AdamParams(learning_rate=0.001), model_id=RUN, seq_id=4)
        ),
        path="/api/v1/optim_step",
        body={"adam_params": ADAM, "model_id": RUN, "seq_id": 4, "type": "optim_step"},
        answer=FUTURE,
        result=PROMISE,
    ),
    Case(
        name="sampling.asample",
        call=lambda resource: resource.asample(SAMPLE),
        path="/api/v1/asample",
        body={
            "prompt": {"chunks": [{"tokens": [1], "type": "encoded_text"}]},
            "sampling_params": {
                "max_tokens": 4,
                "stop": ["\n"],
                "temperature": 1.0,
                "top_k": -1,
                "top_p": 1.0,
            },
            "num_samples": 1,
            "sampling_session_id": "s:sample:0",
            "seq_id": 0,
            "prompt_logprobs": False,
            "topk_prompt_logprobs": 0,
            "type": "sample",
        },
        answer={"request_id": "s:sample:0:0", "sample_sequence_ids": ["q"]},
        result=types.UntypedAPIFuture(request_id="s:sample:0:0", sample_sequence_ids=["q"]),
    ),
    Case(
        name="sampling.join_sampling_session",
        call=lambda resource: resource.join_sampling_session(
            types.JoinSamplingSessionRequest(sampling_session_id="s:sample:0")
        ),
        path="/api/v1/join_sampling_session",
        body={"sampling_session_id": "s:sample:0", "type": "join_sampling_session"},
        answer={"type": "join_sampling_session", "client_counter": 3},
        result=types.JoinSamplingSessionResponse(client_counter=3),
    ),
    Case(
        name="futures.retrieve_many",
        call=lambda resource: resource.retrieve_many(
            types.FuturesRetrieveRequest(
                target=types.SamplingSessionFuturesTarget(sampling_session_id="s:sample:0"),
                prev_cursor=12,
                retrieved_request_ids=["r"],
            )
        ),
        path="/api/v1/retrieve_futures",
        body={
            "target": {"type": "sampling_session", "sampling_session_id": "s:sample:0", "cloned_sampler_id": 0},
            "prev_cursor": 12,
            "retrieved_request_ids": ["r"],
        },
        answer={
            "completions": [
                {"state": "finished", "request_id": "a", "response_payload_uncompressed_size": 812},
                {"state": "failed", "request_id": "b"},
            ],
            "cursor": 14,
        },
        result=types.FuturesRetrieveResponse(
            completions=[
                types.FutureFinished(request_id="a", response_payload_uncompressed_size=812),
                types.FutureFailed(request_id="b"),
            ],
            cursor=14,
        ),
    ),
    Case(
        name="futures.cancel",
        call=lambda resource: resource.cancel(types.CancelFutureRequest(request_id="r")),
        path="/api/v1/cancel_future",
        body={"request_id": "r"},
        answer={"whatever": 1},
    ),
    Case(
        name="futures.retrieve",
        call=lambda resource: resource.retrieve(
            types.FutureRetrieveRequest(request_id="r"), types.OptimStepResponse, request_type="OptimStep", iteration=2
        ),
        path="/api/v1/retrieve_future",
        body={"request_id": "r"},
        answer={"metrics": {"loss:sum": 1.5}},
        result=types.OptimStepResponse(metrics={"loss:sum": 1.5}),
    ),
    Case(
        name="telemetry.send",
        call=lambda resource: resource.send(
            types.TelemetrySendRequest(events=[START], platform="Linux", sdk_version="1", session_id="s")
        ),
        path="/api/v1/telemetry",
        body={
            "events": [
                {
                    "event": "SESSION_START",
                    "event_id": "e",
                    "event_session_index": 0,
                    "severity": "INFO",
                    "timestamp": "2026-03-01T10:00:00Z",
                }
            ],
            "platform": "Linux",
            "sdk_version": "1",
            "session_id": "s",
        },
        answer={"status": "accepted"},
        result=types.TelemetryResponse(status="accepted"),
    ),
]
ARCHIVE = "weights.get_checkpoint_archive_url"
ARCHIVE_PATH = f"/api/v1/training_runs/{RUN}/checkpoints/{CKPT}/archive"
BY_NAME = {case.name: case for case in CASES}
FIRST_ENDPOINTS = {
    *(f"service.{name}" for name in ("get_server_capabilities", "health_check", "create_session")),
    *(f"service.{name}" for name in ("session_heartbeat", "create_sampling_session")),
    *(f"models.{name}" for name in ("create", "get_info", "unload")),
    *(f"weights.{name}" for name in ("load", "save", "save_for_sampler", "list")),
    *(f"weights.{name}" for name in ("delete_checkpoint", "get_checkpoint_archive_url")),
    *(f"training.{name}" for name in ("forward", "forward_backward", "optim_step")),
    *("sampling.asample", "futures.retrieve", "telemetry.send"),
}


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    """Answer for the server."""
    with responses.RequestsMock() as mocked:
        yield mocked


@pytest.fixture
def api() -> Iterator[TinkexAPI]:
    """Make an API that gives up after three attempts."""
    policy = RetryPolicy(max_attempts=3, initial_wait_s=0.0)
    with TinkexAPI(ClientConfig(base_url=URL, api_key="tml-key", retry=policy)) as made:
        yield made


def _resource(api: TinkexAPI, name: str) -> Any:
    return getattr(api, name.split(".")[0])


def _expect(web: responses.RequestsMock, case: Case, **changes: Any) -> None:
    answer = {"status": case.status, **({} if case.answer is None else {"json": case.answer}), **changes}
    web.add(ENDPOINTS[case.name].method, URL + case.path, **answer)


def test_the_table_is_complete():
    """Every endpoint that there is has a case here, and the 20 that every SDK has are among them."""
    assert sorted([*BY_NAME, ARCHIVE]) == sorted(ENDPOINTS)
    assert len(FIRST_ENDPOINTS) == 20
    assert set(ENDPOINTS) >= FIRST_ENDPOINTS


@pytest.mark.parametrize("name", BY_NAME)
def test_an_endpoint_sends_and_reads_what_the_wire_says(web, api, name):
    """Method, path, query, body, headers and the typed result."""
    case, endpoint = BY_NAME[name], ENDPOINTS[name]
    _expect(web, case)
    assert case.call(_resource(api, name)) == case.result
    request = web.calls[0].request
    assert request.method == endpoint.method
    assert request.url == URL + case.path
    assert (json.loads(request.body) if request.body else None) == case.body
    assert request.headers["X-API-Key"] == "tml-key"
    assert request.headers["Accept"] == "application/json"
    assert ("X-Idempotency-Key" in request.headers) == endpoint.idempotent == (endpoint.method != "GET")
    assert ("Content-Type" in request.headers) == (endpoint.method != "GET")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_raw_answer_can_be_looked_at_and_then_read(web, api, name):
    """The same call through with_raw_response has the status, headers, bytes and address, and parses to the same."""
    case = BY_NAME[name]
    _expect(web, case, headers={"X-Thing": "1"})
    answer = case.call(_resource(api, name).with_raw_response)
    assert isinstance(answer, APIResponse)
    assert (answer.status_code, answer.headers["x-thing"], answer.attempts) == (case.status, "1", 1)
    assert (answer.method, answer.url) == (ENDPOINTS[name].method, URL + case.path)
    assert json.loads(answer.content or b"null") == case.answer
    assert answer.elapsed >= 0
    assert answer.parse() == case.result
    assert "tml-key" not in repr(answer)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_endpoints_are_tried_again_unless_their_callers_do_that(web, api, name):
    """Three attempts under one key, or a single one for polls, heartbeats and telemetry."""
    single = {"futures.retrieve", "futures.retrieve_many", "service.session_heartbeat", "telemetry.send"}
    web.add(ENDPOINTS[name].method, re.compile(URL), status=503, json={"detail": "busy"})
    with pytest.raises(InternalServerError, match="busy"):
        _call(api, name)
    assert len(web.calls) == (1 if name in single else 3)
    keys = {call.request.headers.get("X-Idempotency-Key") for call in web.calls}
    assert len(keys) == 1
    assert (keys == {None}) == (ENDPOINTS[name].method == "GET")


def _call(api: TinkexAPI, name: str) -> Any:
    if name == ARCHIVE:
        return api.weights.get_checkpoint_archive_url(RUN, CKPT)
    return BY_NAME[name].call(_resource(api, name))


@pytest.mark.parametrize("name", sorted(name for name, endpoint in ENDPOINTS.items() if endpoint.expects_body))
def test_an_answer_that_does_not_fit_is_a_validation_error(web, api, name):
    """A list where an object belongs is refused with the round trip in the error, and is not sent again."""
    web.add(ENDPOINTS[name].method, re.compile(URL), json=[1], headers={"Location": ""})
    with pytest.raises(APIResponseValidationError) as caught:
        _call(api, name)
    assert (len(web.calls), caught.value.method) == (1, ENDPOINTS[name].method)
    assert caught.value.path.startswith("/api/v1/")


def test_a_validation_error_names_the_field(web, api):
    """The path of the field is in the message."""
    web.get(f"{URL}/api/v1/training_runs/{RUN}/checkpoints", json={"checkpoints": [{**CHECKPOINT_JSON, "time": 5}]})
    with pytest.raises(APIResponseValidationError, match=r"checkpoints\[0\]\.time"):
        api.weights.list(RUN)


def test_a_page_instead_of_json_is_shown(web, api):
    """A login page of a proxy is told by its first words and its type."""
    web.get(f"{URL}/api/v1/healthz", body="<html>Sign in", content_type="text/html")
    with pytest.raises(APIResponseValidationError, match=r"text/html and begins with b'<html>Sign in': check base_url"):
        api.service.health_check()


def test_options_of_a_call_reach_the_wire(web, api):
    """The caller's key, timeout and headers go before those of the endpoint and the settings."""
    _expect(web, BY_NAME["telemetry.send"])
    request = types.TelemetrySendRequest(events=[], platform="Linux", sdk_version="1", session_id="s")
    api.telemetry.send(request, idempotency_key="mine", timeout=1.5, extra_headers={"x-api-key": "other"})
    headers = web.calls[0].request.headers
    assert (headers["X-Idempotency-Key"], headers["x-stainless-read-timeout"]) == ("mine", "1.5")
    assert {value for name, value in headers.items() if name.lower() == "x-api-key"} == {"other"}
    assert web.calls[0].request.req_kwargs["timeout"] == (5.0, 1.5)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("telemetry.send", 5.0),
        ("service.session_heartbeat", 10.0),
        ("service.client_dynamic_config", 10.0),
        ("futures.retrieve", 45.0),
        ("futures.retrieve_many", 45.0),
        ("futures.cancel", 30.0),
        ("models.create", 60.0),
    ],
)
def test_endpoints_have_their_own_patience(web, api, name, seconds):
    """Polls, beats and telemetry wait as long as the wire says, others as the settings say."""
    _expect(web, BY_NAME[name])
    BY_NAME[name].call(_resource(api, name))
    assert web.calls[0].request.req_kwargs["timeout"] == (5.0, seconds)


def test_polls_say_what_they_are_about(web, api):
    """The type of the operation and the number of the poll go along."""
    _expect(web, BY_NAME["futures.retrieve"])
    BY_NAME["futures.retrieve"].call(api.futures)
    headers = web.calls[0].request.headers
    assert (headers["X-Tinker-Request-Type"], headers["X-Tinker-Request-Iteration"]) == ("OptimStep", "2")


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (
            {"type": "try_again", "request_id": "r", "queue_state": "paused_capacity"},
            types.TryAgainResponse(request_id="r", queue_state="paused_capacity"),
        ),
        (
            {"status": "complete_metadata", "response_payload_size": 9},
            types.ResultMetadata(response_payload_size=9),
        ),
        ({"error": "bad", "category": "user"}, types.RequestFailedResponse(error="bad", category="user")),
        ({}, types.OptimStepResponse()),
    ],
)
def test_a_poll_tells_its_four_answers_apart(web, api, body, result):
    """Not yet, large, failed, and the result that was asked for."""
    web.post(f"{URL}/api/v1/retrieve_future", json=body)
    request = types.FutureRetrieveRequest(request_id="r")
    assert api.futures.retrieve(request, types.OptimStepResponse) == result


def test_a_failed_poll_knows_its_operation_and_keeps_the_body(web, api):
    """A 408 carries the queue's state for whoever watches; the error names the operation."""
    web.post(f"{URL}/api/v1/retrieve_future", status=408, json={"queue_state": "active"})
    with pytest.raises(APIStatusError) as caught:
        api.futures.retrieve(types.FutureRetrieveRequest(request_id="r7"), types.OptimStepResponse)
    assert (caught.value.request_id, caught.value.body) == ("r7", {"queue_state": "active"})


def test_a_full_server_is_left_to_the_dispatcher(web, api):
    """429 on a sample surfaces at once, with the wait that the server asks for; sampling says that it can back off."""
    web.post(f"{URL}/api/v1/asample", status=429, headers={"Retry-After": "2"})
    with pytest.raises(RateLimitError) as caught:
        api.sampling.asample(SAMPLE)
    assert (len(web.calls), caught.value.retry_after) == (1, 2.0)
    assert web.calls[0].request.headers["X-Tinker-Sampling-Backpressure"] == "1"


@pytest.mark.parametrize("failure", [{"body": requests.ConnectionError("gone")}, {"status": 500}, {"status": 408}])
def test_other_failures_of_a_sample_are_tried_again(web, api, failure):
    """A lost connection is no reason to lose a sample."""
    web.post(f"{URL}/api/v1/asample", **failure)
    web.post(f"{URL}/api/v1/asample", json={"request_id": "r"})
    assert api.sampling.asample(SAMPLE).request_id == "r"


def test_a_poll_that_wants_no_wait_does_not_wait(web, api):
    """What only tells the server what was fetched is answered at once, or it is lost."""
    _expect(web, BY_NAME["futures.retrieve_many"])
    target = types.SamplingSessionFuturesTarget(sampling_session_id="s")
    api.futures.retrieve_many(types.FuturesRetrieveRequest(target=target, timeout=0))
    assert web.calls[0].request.req_kwargs["timeout"] == (5.0, 5.0)
    assert json.loads(web.calls[0].request.body)["timeout"] == 0


def test_an_access_token_travels_as_a_header(web, api):
    """The key of another account is in no body, which a server may keep or show."""
    _expect(web, BY_NAME["weights.copy"])
    api.weights.copy(
        types.CopyWeightsRequest(source_path="p", destination_project_id="d", weights_access_token="tml-theirs")
    )
    request = web.calls[0].request
    assert request.headers["X-Tinker-Weights-Access-Token"] == "tml-theirs"
    assert b"tml-theirs" not in request.body


def test_a_given_credential_is_the_one_that_is_exchanged(web, api):
    """The key of the settings stays at home then."""
    _expect(web, BY_NAME["service.auth_token"])
    api.service.auth_token("tml-other")
    assert web.calls[0].request.headers["X-API-Key"] == "tml-other"


def test_a_server_without_custom_losses_is_not_asked_again(web, api):
    """501 says that it will not learn it meanwhile."""
    _expect(web, BY_NAME["training.create_custom_loss"], status=501, json={"detail": "runs none"})
    with pytest.raises(InternalServerError, match="runs none"):
        api.training.create_custom_loss(CUSTOM_LOSS)
    assert len(web.calls) == 1


@pytest.mark.parametrize("name", ["weights.save", "weights.save_for_sampler", "weights.save_external"])
def test_a_taken_name_is_final(web, api, name):
    """409 on a save is told at once, with the way out."""
    _expect(web, BY_NAME[name], status=409, json={"detail": "exists"})
    with pytest.raises(ConflictError, match="exists; choose another name"):
        BY_NAME[name].call(api.weights)
    assert len(web.calls) == 1


def test_an_archive_is_where_the_redirect_points(web, api):
    """The 302 is not followed; its address and expiry are the result."""
    headers = {"Location": "https://storage.test/a?signature=1", "Expires": "Sun, 01 Mar 2026 10:00:00 GMT"}
    web.get(URL + ARCHIVE_PATH, status=302, headers=headers)
    result = api.weights.get_checkpoint_archive_url(RUN, CKPT)
    assert result == types.CheckpointArchiveUrlResponse(url=headers["Location"], expires=WHEN)
    assert web.calls[0].request.headers["Accept"] == "application/gzip"
    answer = api.weights.with_raw_response.get_checkpoint_archive_url(RUN, CKPT)
    assert (answer.status_code, answer.parse()) == (302, result)


@pytest.mark.parametrize("expires", [None, "0", "soon"])
def test_an_archive_without_an_expiry_lasts_a_quarter_of_an_hour(web, api, expires):
    """The default of the official SDK."""
    headers = {"Location": "https://storage.test/a", **({"Expires": expires} if expires else {})}
    web.get(URL + ARCHIVE_PATH, status=302, headers=headers)
    before = datetime.now(timezone.utc)
    result = api.weights.get_checkpoint_archive_url(RUN, CKPT)
    after = datetime.now(timezone.utc)
    assert before <= result.expires - timedelta(minutes=15) <= after


@pytest.mark.parametrize("status", [425, 503])
def test_an_archive_that_is_being_built_is_waited_for(web, api, status):
    """425 and 503 are tried again, and if they last the error says to come back later."""
    web.get(URL + ARCHIVE_PATH, status=status)
    web.get(URL + ARCHIVE_PATH, status=302, headers={"Location": "https://storage.test/a"})
    assert api.weights.get_checkpoint_archive_url(RUN, CKPT).url == "https://storage.test/a"
    web.reset()
    web.get(URL + ARCHIVE_PATH, status=status)
    with pytest.raises(APIStatusError, match="ask again later"):
        api.weights.get_checkpoint_archive_url(RUN, CKPT)


@pytest.mark.parametrize(
    "answer",
    [{"status": 200, "body": b"tar"}, {"status": 200, "headers": {"Location": "/x"}, "body": b"x"}, {"status": 302}],
)
def test_an_archive_that_is_no_redirect_is_an_error(web, api, answer):
    """200 with the bytes themselves, or a redirect to nowhere, is not what was asked for."""
    web.get(URL + ARCHIVE_PATH, **answer)
    with pytest.raises(APIResponseValidationError, match="expected a redirect"):
        api.weights.get_checkpoint_archive_url(RUN, CKPT)


def test_ids_travel_raw_where_they_may_and_quoted_where_they_must(web, api):
    """Colons of run ids and the slash of checkpoint ids stay; anything that would change the path does not."""
    web.delete(f"{URL}/api/v1/training_runs/{RUN}/checkpoints/weights/a.b%3Fc%20d%23%25", status=204)
    api.weights.delete_checkpoint(RUN, "weights/a.b?c d#%")
    web.get(f"{URL}/api/v1/sessions/a%2Fb", json={"training_run_ids": [], "sampler_ids": []})
    api.service.get_session("a/b")


@pytest.mark.parametrize("bad", ["", "weights/", "../weights/x", "weights/..", "weights//x", "."])
def test_ids_that_lead_elsewhere_are_refused_before_sending(api, bad):
    """No id can address another path."""
    with pytest.raises(InvalidInputError, match="checkpoint_id"):
        api.weights.delete_checkpoint(RUN, bad)


def test_a_request_of_another_type_is_refused_before_sending(api):
    """The message names the endpoint, the type it takes and the type it got."""
    with pytest.raises(InvalidInputError, match=r"training\.forward takes a ForwardRequest, got dict"):
        api.training.forward({"model_id": RUN})


def test_options_make_an_api_over_the_same_connections(web, api):
    """Another timeout for some calls, and last words while closing."""
    web.get(f"{URL}/api/v1/healthz", json={"status": "ok"})
    api.with_options(timeout=2.0).service.health_check()
    assert web.calls[0].request.req_kwargs["timeout"] == (5.0, 2.0)
    once = api.with_options(retry=RetryPolicy.none(), stop=threading.Event())
    assert (once.config.retry.max_attempts, api.config.retry.max_attempts) == (1, 3)


def test_every_method_is_documented_with_its_path():
    """The docstring of each endpoint's method shows the method and path of its row in the table."""
    with TinkexAPI(ClientConfig(base_url=URL)) as api:
        for name, endpoint in ENDPOINTS.items():
            doc = getattr(_resource(api, name), name.split(".")[1]).__doc__
            assert f"``{endpoint.method} /api/v1{endpoint.path}``" in doc, name
