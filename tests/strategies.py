"""Hypothesis strategies for every value of the API.

``VALUES[cls]`` makes any value of a type that its constructor accepts and JSON can carry. All other names build
parts of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from tinkex import types
from tinkex.types import Datum, EncodedTextChunk, ForwardBackwardInput, LoraConfig, ModelInput, TensorData

MAX_TOKEN = 2**31 - 1

texts = st.text(min_size=1, max_size=20)
any_texts = st.text(max_size=20)
int64s = st.integers(-(2**63), 2**63 - 1)
naturals = st.integers(0, 2**31)
tokens = st.integers(0, MAX_TOKEN)
seeds = st.integers(-(2**63), 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=zones)
json_values = st.recursive(
    st.none() | st.booleans() | int64s | finite | any_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(any_texts, json_values, max_size=3)
text_maps = st.dictionaries(any_texts, any_texts, max_size=3)
numbers_by_name = st.dictionaries(texts, finite, max_size=3)
ttls = st.integers(3600, 10 * 366 * 24 * 3600)


def either(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make values of a strategy, or None."""
    return st.none() | strategy


def of(cls: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make values of an attrs class: fields without a default always, the others sometimes."""
    required = {field.alias for field in attrs.fields(cls) if field.default is attrs.NOTHING}
    return st.fixed_dictionaries(
        {name: fields[name] for name in required},
        optional={name: strategy for name, strategy in fields.items() if name not in required},
    ).map(lambda given: cls(**given))


def as_list_or_array(values: list[Any], dtype: str) -> st.SearchStrategy[Any]:
    """Make the same numbers, as a list or as a NumPy array."""
    return st.sampled_from([values, np.array(values, dtype=dtype)])


@st.composite
def dense_tensors(draw: st.DrawFn, dtype: str | None = None) -> TensorData:
    """Make a tensor of up to two dimensions."""
    dtype = draw(st.sampled_from(["int64", "float32"])) if dtype is None else dtype
    items = int64s if dtype == "int64" else float32s
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
    count = int(np.prod(shape))
    values = draw(st.lists(items, min_size=count, max_size=count))
    given = shape if len(shape) > 1 else draw(either(st.just(shape)))
    return TensorData(data=draw(as_list_or_array(values, dtype)), dtype=dtype, shape=given)


@st.composite
def sparse_tensors(draw: st.DrawFn) -> TensorData:
    """Make a matrix compressed by rows."""
    dtype = draw(st.sampled_from(["int64", "float32"]))
    items = int64s if dtype == "int64" else float32s
    width = draw(st.integers(1, 5))
    rows = draw(st.lists(st.sets(st.integers(0, width - 1)).map(sorted), max_size=4))
    places = [place for row in rows for place in row]
    starts = [0, *np.cumsum([len(row) for row in rows], dtype=int).tolist()]
    values = draw(st.lists(items, min_size=len(places), max_size=len(places)))
    return TensorData(
        data=draw(as_list_or_array(values, dtype)),
        dtype=dtype,
        shape=[len(rows), width],
        sparse_crow_indices=draw(as_list_or_array(starts, "int64")),
        sparse_col_indices=draw(as_list_or_array(places, "int64")),
    )


tensors = dense_tensors() | sparse_tensors()
text_chunks = (
    st.lists(tokens, max_size=8)
    .flatmap(lambda values: as_list_or_array(values, "int64"))
    .map(lambda values: EncodedTextChunk(tokens=values))
)
image_fields = {
    "format": st.sampled_from(["png", "jpeg"]),
    "expected_tokens": either(naturals),
}
chunks = st.one_of(
    text_chunks,
    of(types.ImageChunk, data=st.binary(max_size=20), **image_fields),
    of(types.ImageAssetPointerChunk, location=texts, **image_fields),
    of(types.DmelChunk, dmel=st.binary(max_size=20)),
)
model_inputs = st.lists(chunks, max_size=3).map(lambda made: ModelInput(chunks=made))
data = st.builds(Datum, model_input=model_inputs, loss_fn_inputs=st.dictionaries(texts, tensors, max_size=3))


@st.composite
def batches(draw: st.DrawFn, max_size: int = 4) -> list[Datum]:
    """Make datums that fit ``cross_entropy``: targets and weights as long as the input."""
    made = []
    for values in draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=max_size)):
        weights = draw(st.lists(float32s, min_size=len(values), max_size=len(values)))
        inputs = {"target_tokens": values, "weights": weights}
        made.append(Datum(model_input=ModelInput.from_ints(values), loss_fn_inputs=inputs))
    return made


event_fields = {
    "event_id": texts,
    "event_session_index": naturals,
    "timestamp": times,
    "severity": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
}
events = st.one_of(
    of(types.SessionStartEvent, **event_fields),
    of(types.SessionEndEvent, duration=texts, **event_fields),
    of(
        types.UnhandledExceptionEvent,
        error_type=texts,
        error_message=any_texts,
        traceback=either(any_texts),
        **event_fields,
    ),
    of(types.GenericEvent, event_name=texts, event_data=json_objects, **event_fields),
)
lora_configs = st.builds(
    LoraConfig,
    rank=st.integers(1, 512),
    seed=either(seeds),
    train_unembed=st.booleans(),
    train_mlp=st.booleans(),
    train_attn=st.just(True),
)
batch_inputs = of(
    ForwardBackwardInput,
    data=st.lists(data, max_size=2),
    loss_fn=texts,
    loss_fn_config=either(st.dictionaries(texts, finite | any_texts, max_size=2)),
)
adam_params = of(
    types.AdamParams,
    learning_rate=st.floats(0, 1),
    beta1=st.floats(0, 1, exclude_max=True),
    beta2=st.floats(0, 1, exclude_max=True),
    eps=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
    grad_clip_norm=st.floats(0, 1e9),
)
sampling_params = of(
    types.SamplingParams,
    max_tokens=either(st.integers(1, 2**31)),
    seed=either(seeds),
    stop=either(any_texts | st.lists(texts, max_size=3) | st.lists(tokens, max_size=3)),
    temperature=st.floats(0, 100),
    top_k=st.integers(-1, 1000),
    top_p=st.floats(0, 1, exclude_min=True),
)
topk_rows = st.lists(either(st.lists(st.tuples(tokens, finite), max_size=3)), max_size=3)
sequences = of(
    types.SampledSequence,
    stop_reason=st.sampled_from(["stop", "length"]),
    tokens=st.lists(tokens, max_size=5),
    logprobs=either(st.lists(finite, max_size=5)),
    topk_logprobs=either(topk_rows),
    sequence_id=either(texts),
)
alt_tokens = st.builds(types.PromptAltTokens, tokens=dense_tensors("int64"), logprobs=dense_tensors("float32"))
checkpoints = of(
    types.Checkpoint,
    checkpoint_id=texts,
    checkpoint_type=st.sampled_from(["training", "sampler", "external"]),
    time=times,
    tinker_path=texts,
    size_bytes=either(naturals),
    public=st.booleans(),
    expires_at=either(times),
    user_metadata=either(text_maps),
)
cursors = of(types.Cursor, offset=naturals, limit=naturals, total_count=naturals)
model_data = of(types.ModelData, arch=either(any_texts), model_name=either(any_texts), tokenizer_id=either(any_texts))
supported_models = of(
    types.SupportedModel,
    model_name=either(texts),
    max_context_length=either(naturals),
    trainable=either(st.booleans()),
    sampleable=either(st.booleans()),
)
training_runs = of(
    types.TrainingRun,
    training_run_id=texts,
    base_model=texts,
    model_owner=texts,
    is_lora=st.booleans(),
    last_request_time=times,
    corrupted=st.booleans(),
    lora_rank=either(naturals),
    last_checkpoint=either(checkpoints),
    last_sampler_checkpoint=either(checkpoints),
    user_metadata=either(text_maps),
)
saved_fields = {
    "model_id": texts,
    "path": either(texts),
    "seq_id": either(naturals),
    "ttl_seconds": either(ttls),
    "user_metadata": either(text_maps),
}

others = st.builds(
    types.Unrecognized,
    type=texts.map(lambda name: f"other-{name}"),
    fields=json_objects.map(lambda fields: {name: value for name, value in fields.items() if name != "type"}),
)
optimizer_configs = of(types.AdamOptimizerConfig) | of(types.DimuonOptimizerConfig) | others
dimuon_params = of(
    types.DimuonParams,
    learning_rate=st.floats(0, 1),
    grad_clip_norm=finite,
    beta1=st.floats(0, 1, exclude_max=True),
)
finish_reasons = st.one_of(
    of(types.ClientSessionFinishSuccess),
    of(types.ClientSessionFinishErrored),
    of(types.ClientSessionFinishInterrupted),
    others,
)
failed_requests = of(types.SessionFailedRequestReason, request_id=texts, request_type=texts)
failed_runs = of(types.SessionFailedTrainingRunReason, training_run_id=texts)
failed_samplers = of(types.SessionFailedSamplingSessionReason, sampling_session_id=texts)
failed_sessions = of(
    types.SessionFailed,
    category=st.sampled_from(["user", "internal"]),
    reason=failed_requests | failed_runs | failed_samplers | others,
    message=any_texts,
)
finished_sessions = of(types.ClientSessionFinished, reason=finish_reasons, detail=either(any_texts))
cancelled_sessions = of(types.SessionCancelled, detail=either(any_texts))
session_states = st.one_of(failed_sessions, cancelled_sessions, finished_sessions, of(types.SessionActive), others)
user_owners = of(types.UserSearchOwner, owner_urns=st.lists(texts, min_size=1, max_size=10))
finished_queries = of(
    types.ClientFinishedSessionStatusQuery,
    reasons=either(st.lists(st.sampled_from(["success", "errored", "interrupted"]), min_size=1, max_size=3)),
)
session_cursors = of(types.SessionSearchCursor, last_created_at=times, last_session_id=texts)
session_summaries = of(
    types.SessionSummary,
    session_id=texts,
    created_at=times,
    owner=texts,
    project_id=texts,
    checkpoints_count=naturals,
    status=either(session_states),
    display_name=either(any_texts),
    user_metadata=either(text_maps),
    checkpoint_storage_bytes=either(naturals),
)
billed = {
    types.TrainingBillingEvent: of(types.TrainingBillingEvent, token_count=naturals),
    types.SamplingPrefillBillingEvent: of(
        types.SamplingPrefillBillingEvent, cached=st.booleans(), token_count=naturals
    ),
    types.SamplingSampleBillingEvent: of(types.SamplingSampleBillingEvent, token_count=naturals),
    types.CheckpointBillingEvent: of(types.CheckpointBillingEvent, count=naturals),
    types.StorageBillingEvent: of(types.StorageBillingEvent, gigabyte_hours=finite, free=st.booleans()),
}
usage_events = of(
    types.BillingUsageEvent,
    bucket_start=times,
    bucket_end=times,
    event_info=st.one_of(*billed.values(), others),
    base_model=either(texts),
    user_id=either(texts),
    user_name=either(texts),
    session_id=either(texts),
    project_id=either(texts),
    estimated_cost_usd=either(finite),
    effective_rate_usd_per_million_tokens=either(finite),
    effective_rate_usd_per_gigabyte_month=either(finite),
)
storage_items = of(
    types.CurrentCheckpointStorageUsageItem,
    checkpoint_count=naturals,
    size_bytes=naturals,
    size_gigabytes=finite,
    project_id=either(texts),
    org_user_urn=either(texts),
    user_email=either(texts),
    user_name=either(texts),
    estimated_monthly_cost_usd=either(finite),
)
audit_entries = of(
    types.AuditLogEntry,
    timestamp=times,
    event=texts,
    event_details=json_objects,
    model_id=either(texts),
    tinker_path=either(texts),
    purpose=either(texts),
)
key_orgs = of(types.ApiKeyOrgDetails, name=any_texts)
key_users = of(types.ApiKeyUserDetails, email=any_texts)
key_details = of(types.ApiKeyDetails, org_details=key_orgs, user_details=key_users)
loss_names = st.from_regex(r"[a-z_][a-z0-9_]{0,9}", fullmatch=True)
loss_inputs = of(types.CustomLossInput, name=loss_names, rank=st.integers(0, 2))
loss_nodes = of(
    types.CustomLossNode,
    op=st.sampled_from(["placeholder", "get_attr", "call_function", "call_method", "call_module", "output"]),
    name=texts,
    target=texts,
    args=st.lists(json_values, max_size=2),
    kwargs=json_objects,
)
loss_graphs = of(types.CustomLossGraph, nodes=st.lists(loss_nodes, max_size=2))
sampler_targets = of(types.SamplingSessionFuturesTarget, sampling_session_id=texts, cloned_sampler_id=naturals)
ended = st.one_of(
    of(types.FutureFinished, request_id=texts, response_payload_uncompressed_size=either(naturals)),
    of(types.FutureFailed, request_id=texts),
)
copies = st.one_of(
    st.fixed_dictionaries({"destination_project_id": texts}),
    st.fixed_dictionaries({"session_id": texts, "model_seq_id": naturals}),
)

VALUES: dict[type[Any], st.SearchStrategy[Any]] = {
    types.AccessibleSearchOwner: of(types.AccessibleSearchOwner),
    types.ActiveSessionStatusQuery: of(types.ActiveSessionStatusQuery),
    types.AdamOptimizerConfig: of(types.AdamOptimizerConfig),
    types.ApiKeyDetails: key_details,
    types.ApiKeyOrgDetails: key_orgs,
    types.ApiKeyResponse: of(
        types.ApiKeyResponse, key_id=naturals, name=any_texts, details=key_details, note=either(any_texts)
    ),
    types.ApiKeyUserDetails: key_users,
    types.AuditLogEntry: audit_entries,
    types.AuditLogResponse: of(types.AuditLogResponse, entries=st.lists(audit_entries, max_size=2)),
    types.AuthTokenResponse: of(types.AuthTokenResponse, jwt=texts),
    **billed,
    types.BillingUsageEvent: usage_events,
    types.BillingUsageResponse: of(
        types.BillingUsageResponse,
        data=st.lists(usage_events, max_size=2),
        sessions=st.dictionaries(texts, of(types.BillingUsageSession, user_metadata=either(text_maps)), max_size=2),
        cost_data_through=either(times),
    ),
    types.BillingUsageSession: of(types.BillingUsageSession, user_metadata=either(text_maps)),
    types.CancelFutureRequest: of(types.CancelFutureRequest, request_id=texts),
    types.CancelledSessionStatusQuery: of(types.CancelledSessionStatusQuery),
    types.ClientConfigResponse: of(
        types.ClientConfigResponse,
        pjwt_auth_enabled=st.booleans(),
        credential_default_source=texts,
        fwdbwd_max_chunk_len=naturals,
        parallel_fwdbwd_chunks=st.booleans(),
    ),
    types.ClientDynamicConfigResponse: of(
        types.ClientDynamicConfigResponse,
        refresh_interval_sec=naturals,
        sample_cancel_enabled=st.booleans(),
        sample_cancel_max_batch_size=naturals,
    ),
    types.ClientFinishedSessionStatusQuery: finished_queries,
    types.ClientSessionFinished: finished_sessions,
    types.ClientSessionFinishErrored: of(types.ClientSessionFinishErrored),
    types.ClientSessionFinishInterrupted: of(types.ClientSessionFinishInterrupted),
    types.ClientSessionFinishSuccess: of(types.ClientSessionFinishSuccess),
    types.CopyWeightsRequest: st.builds(
        lambda place, **fields: types.CopyWeightsRequest(**place, **fields),
        place=copies,
        source_path=texts,
        ttl_seconds=either(ttls),
        weights_access_token=either(texts),
    ),
    types.CopyWeightsResponse: of(types.CopyWeightsResponse, tinker_path=any_texts),
    types.CreateCustomLossRequest: of(
        types.CreateCustomLossRequest,
        session_id=texts,
        custom_loss_seq_id=naturals,
        name=texts,
        inputs=st.lists(loss_inputs, max_size=3).map(
            lambda more: [types.CustomLossInput(name="logprobs", rank=1), *more]
        ),
        graph=loss_graphs,
    ),
    types.CreateCustomLossResponse: of(types.CreateCustomLossResponse, loss_id=any_texts),
    types.CurrentCheckpointStorageUsageItem: storage_items,
    types.CurrentCheckpointStorageUsageResponse: of(
        types.CurrentCheckpointStorageUsageResponse,
        data=st.lists(storage_items, max_size=2),
        effective_rate_usd_per_gigabyte_month=either(finite),
    ),
    types.CustomLossGraph: loss_graphs,
    types.CustomLossInput: loss_inputs,
    types.CustomLossNode: loss_nodes,
    types.DimuonOptimizerConfig: of(types.DimuonOptimizerConfig),
    types.DimuonParams: dimuon_params,
    types.ExternalWeightsUrlsResponse: of(types.ExternalWeightsUrlsResponse, urls=text_maps, expires=times),
    types.FailedSessionStatusQuery: of(types.FailedSessionStatusQuery),
    types.FutureFailed: of(types.FutureFailed, request_id=texts),
    types.FutureFinished: of(
        types.FutureFinished, request_id=texts, response_payload_uncompressed_size=either(naturals)
    ),
    types.FuturesRetrieveRequest: of(
        types.FuturesRetrieveRequest,
        target=sampler_targets,
        prev_cursor=naturals,
        timeout=either(st.floats(0, 100)),
        retrieved_request_ids=st.lists(texts, max_size=3),
    ),
    types.FuturesRetrieveResponse: of(
        types.FuturesRetrieveResponse, completions=st.lists(ended, max_size=3), cursor=naturals
    ),
    types.JoinSamplingSessionRequest: of(types.JoinSamplingSessionRequest, sampling_session_id=texts),
    types.JoinSamplingSessionResponse: of(types.JoinSamplingSessionResponse, client_counter=naturals),
    types.OwnSearchOwner: of(types.OwnSearchOwner),
    types.SamplingSessionFuturesTarget: sampler_targets,
    types.SaveWeightsExternalRequest: of(
        types.SaveWeightsExternalRequest,
        model_id=texts,
        path=texts,
        seq_id=either(naturals),
        ttl_seconds=either(ttls),
        age_encryption_recipients=either(st.lists(texts, max_size=2)),
    ),
    types.SaveWeightsExternalResponse: of(
        types.SaveWeightsExternalResponse, path=any_texts, size_bytes=either(naturals)
    ),
    types.SessionActive: of(types.SessionActive),
    types.SessionCancelled: cancelled_sessions,
    types.SessionFailed: failed_sessions,
    types.SessionFailedRequestReason: failed_requests,
    types.SessionFailedSamplingSessionReason: failed_samplers,
    types.SessionFailedTrainingRunReason: failed_runs,
    types.SessionSearchCursor: session_cursors,
    types.SessionSearchRequest: of(
        types.SessionSearchRequest,
        session_id=either(texts),
        project_ids=either(st.lists(texts, max_size=2)),
        user_metadata=text_maps,
        display_name=either(texts),
        owner=st.one_of(of(types.OwnSearchOwner), of(types.AccessibleSearchOwner), user_owners),
        statuses=either(
            st.lists(
                st.one_of(
                    of(types.ActiveSessionStatusQuery),
                    of(types.CancelledSessionStatusQuery),
                    of(types.FailedSessionStatusQuery),
                    finished_queries,
                ),
                min_size=1,
                max_size=3,
            )
        ),
        limit=st.integers(1, 200),
        cursor=either(session_cursors),
    ),
    types.SessionSearchResponse: of(
        types.SessionSearchResponse,
        sessions=st.lists(session_summaries, max_size=2),
        next_cursor=either(session_cursors),
    ),
    types.SessionSummary: session_summaries,
    types.TraceExportResponse: of(
        types.TraceExportResponse,
        status=st.sampled_from(["pending", "ready", "failed"]),
        url=either(any_texts),
        error=either(any_texts),
    ),
    types.Unrecognized: others,
    types.UserSearchOwner: user_owners,
    types.WhoamiResponse: of(types.WhoamiResponse, user_urn=texts, org_urn=texts, email=either(texts)),
    types.AdamParams: adam_params,
    types.Checkpoint: checkpoints,
    types.CheckpointArchiveUrlResponse: of(types.CheckpointArchiveUrlResponse, url=texts, expires=times),
    types.CheckpointsListResponse: of(
        types.CheckpointsListResponse, checkpoints=st.lists(checkpoints, max_size=2), cursor=either(cursors)
    ),
    types.CreateModelRequest: of(
        types.CreateModelRequest,
        session_id=texts,
        model_seq_id=naturals,
        base_model=texts,
        user_metadata=either(json_objects),
        lora_config=either(lora_configs),
        optimizer_config=either(optimizer_configs),
    ),
    types.CreateModelResponse: of(types.CreateModelResponse, model_id=any_texts),
    types.CreateSamplingSessionRequest: st.builds(
        types.CreateSamplingSessionRequest,
        session_id=texts,
        sampling_session_seq_id=naturals,
        base_model=either(texts),
        model_path=texts,
    ),
    types.CreateSamplingSessionResponse: of(types.CreateSamplingSessionResponse, sampling_session_id=texts),
    types.CreateSessionRequest: of(
        types.CreateSessionRequest,
        tags=st.lists(any_texts, max_size=3),
        user_metadata=either(json_objects),
        sdk_version=texts,
        project_id=either(texts),
        display_name=either(texts),
    ),
    types.CreateSessionResponse: of(
        types.CreateSessionResponse,
        session_id=texts,
        info_message=either(any_texts),
        warning_message=either(any_texts),
        error_message=either(any_texts),
    ),
    types.Cursor: cursors,
    types.Datum: data,
    types.DmelChunk: of(types.DmelChunk, dmel=st.binary(max_size=20)),
    types.EncodedTextChunk: text_chunks,
    types.ForwardBackwardInput: batch_inputs,
    types.ForwardBackwardOutput: of(
        types.ForwardBackwardOutput,
        loss_fn_output_type=any_texts,
        loss_fn_outputs=st.lists(st.dictionaries(texts, dense_tensors("float32"), max_size=2), max_size=3),
        metrics=numbers_by_name,
    ),
    types.ForwardBackwardRequest: of(
        types.ForwardBackwardRequest,
        forward_backward_input=batch_inputs,
        model_id=texts,
        seq_id=either(st.integers(1, 2**31)),
    ),
    types.ForwardRequest: of(
        types.ForwardRequest,
        forward_input=batch_inputs,
        model_id=texts,
        seq_id=either(st.integers(1, 2**31)),
    ),
    types.FutureRetrieveRequest: of(types.FutureRetrieveRequest, request_id=texts, allow_metadata_only=st.booleans()),
    types.GenericEvent: of(types.GenericEvent, event_name=texts, event_data=json_objects, **event_fields),
    types.GetInfoRequest: of(types.GetInfoRequest, model_id=texts),
    types.GetInfoResponse: of(
        types.GetInfoResponse,
        model_id=texts,
        model_data=model_data,
        is_lora=either(st.booleans()),
        lora_rank=either(naturals),
        model_name=either(texts),
        optimizer_config=optimizer_configs,
    ),
    types.GetSamplerResponse: of(
        types.GetSamplerResponse, sampler_id=texts, base_model=texts, model_path=either(texts)
    ),
    types.GetServerCapabilitiesResponse: of(
        types.GetServerCapabilitiesResponse, supported_models=st.lists(supported_models, max_size=3)
    ),
    types.GetSessionResponse: of(
        types.GetSessionResponse,
        training_run_ids=st.lists(texts, max_size=3),
        sampler_ids=st.lists(texts, max_size=3),
        user_metadata=either(json_objects),
        display_name=either(texts),
    ),
    types.HealthResponse: of(types.HealthResponse, status=st.just("ok")),
    types.ImageAssetPointerChunk: of(types.ImageAssetPointerChunk, location=texts, **image_fields),
    types.ImageChunk: of(types.ImageChunk, data=st.binary(max_size=20), **image_fields),
    types.ListSessionsResponse: of(types.ListSessionsResponse, sessions=st.lists(texts, max_size=3)),
    types.LoadWeightsRequest: of(
        types.LoadWeightsRequest,
        path=texts,
        optimizer=st.booleans(),
        model_id=either(texts),
        seq_id=either(naturals),
        session_id=either(texts),
        model_seq_id=either(naturals),
        base_model=either(texts),
        user_metadata=either(json_objects),
        optimizer_config=either(optimizer_configs),
        weights_access_token=either(texts),
    ),
    types.LoadWeightsResponse: of(types.LoadWeightsResponse, path=either(texts), model_id=either(texts)),
    types.LoraConfig: lora_configs,
    types.ModelData: model_data,
    types.ModelInput: model_inputs,
    types.OptimStepRequest: st.builds(
        types.OptimStepRequest.of,
        adam_params | dimuon_params | others,
        model_id=texts,
        seq_id=either(st.integers(1, 2**31)),
    ),
    types.OptimStepResponse: of(types.OptimStepResponse, metrics=either(numbers_by_name)),
    types.RequestFailedResponse: of(
        types.RequestFailedResponse, error=any_texts, category=st.sampled_from(["user", "server", "unknown"])
    ),
    types.PromptAltTokens: alt_tokens,
    types.ResultMetadata: of(types.ResultMetadata, response_payload_size=naturals),
    types.SampledSequence: sequences,
    types.SampleRequest: of(
        types.SampleRequest,
        prompt=model_inputs,
        sampling_params=sampling_params,
        num_samples=st.integers(1, 1000),
        base_model=either(texts),
        model_path=either(texts),
        sampling_session_id=either(texts),
        seq_id=either(naturals),
        prompt_logprobs=st.booleans(),
        topk_prompt_logprobs=naturals,
        topk_sample_logprobs=naturals,
        target_prompt_logprobs=either(dense_tensors("int64")),
        prompt_alt_tokens_k=naturals,
        prompt_logprobs_last_n=either(st.integers(1, 100)),
        record_stability_info=st.booleans(),
    ),
    types.SampleResponse: of(
        types.SampleResponse,
        sequences=st.lists(sequences, max_size=3),
        prompt_logprobs=either(st.lists(either(finite), max_size=4)),
        topk_prompt_logprobs=either(topk_rows),
        target_prompt_logprobs=either(tensors),
        prompt_cache_hit_tokens=naturals,
        prompt_alt_tokens=either(alt_tokens),
    ),
    types.SamplingParams: sampling_params,
    types.SaveWeightsForSamplerRequest: of(
        types.SaveWeightsForSamplerRequest,
        sampling_session_seq_id=either(naturals),
        kind=st.sampled_from(["snapshot", "inflight"]),
        **saved_fields,
    ),
    types.SaveWeightsForSamplerResponse: of(
        types.SaveWeightsForSamplerResponse, path=either(texts), sampling_session_id=either(texts)
    ),
    types.SaveWeightsRequest: of(types.SaveWeightsRequest, overwrite=st.booleans(), **saved_fields),
    types.SaveWeightsResponse: of(types.SaveWeightsResponse, path=any_texts),
    types.SessionEndEvent: of(types.SessionEndEvent, duration=texts, **event_fields),
    types.SessionHeartbeatRequest: of(types.SessionHeartbeatRequest, session_id=texts),
    types.SessionHeartbeatResponse: of(types.SessionHeartbeatResponse),
    types.SessionStartEvent: of(types.SessionStartEvent, **event_fields),
    types.SupportedModel: supported_models,
    types.TelemetryResponse: of(types.TelemetryResponse, status=st.just("accepted")),
    types.TelemetrySendRequest: of(
        types.TelemetrySendRequest,
        events=st.lists(events, max_size=3),
        platform=texts,
        sdk_version=texts,
        session_id=texts,
        process_uuid=either(texts),
    ),
    types.TensorData: tensors,
    types.TrainingRun: training_runs,
    types.TrainingRunsResponse: of(
        types.TrainingRunsResponse, training_runs=st.lists(training_runs, max_size=2), cursor=cursors
    ),
    types.TryAgainResponse: of(
        types.TryAgainResponse,
        request_id=either(texts),
        queue_state=any_texts,
        queue_state_reason=either(any_texts),
    ),
    types.UnhandledExceptionEvent: of(
        types.UnhandledExceptionEvent,
        error_type=texts,
        error_message=any_texts,
        traceback=either(any_texts),
        **event_fields,
    ),
    types.UnloadModelRequest: of(types.UnloadModelRequest, model_id=texts),
    types.UnloadModelResponse: of(types.UnloadModelResponse, model_id=texts),
    types.UntypedAPIFuture: of(
        types.UntypedAPIFuture,
        request_id=any_texts,
        model_id=either(texts),
        sample_sequence_ids=either(st.lists(texts, max_size=3)),
    ),
    types.WeightsInfoRequest: of(types.WeightsInfoRequest, tinker_path=texts),
    types.WeightsInfoResponse: of(
        types.WeightsInfoResponse,
        base_model=texts,
        is_lora=st.booleans(),
        lora_rank=either(naturals),
        train_unembed=either(st.booleans()),
        train_mlp=either(st.booleans()),
        train_attn=either(st.booleans()),
        optimizer_config=optimizer_configs,
    ),
}
"""A strategy for each value that travels."""
