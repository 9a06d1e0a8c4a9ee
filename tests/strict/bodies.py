"""The plainest value of every type that a request is made of: with what it must have, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, get_args, get_type_hints

import attrs

from tinkex import types as t
from tinkex.resources import ENDPOINTS
from tinkex.wire.json import encode

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PROMPT = t.ModelInput.from_ints([1, 2])
TENSOR = t.TensorData(data=[2, 3], dtype="int64", shape=[2])
DATUM = t.Datum(model_input=PROMPT, loss_fn_inputs={"target_tokens": TENSOR})
BATCH = t.ForwardBackwardInput(data=[DATUM], loss_fn="cross_entropy")
TARGET = t.SamplingSessionFuturesTarget(sampling_session_id="s")
EVENT = {"event_id": "e", "event_session_index": 0, "timestamp": NOON}
EVENTS = (
    t.SessionStartEvent(**EVENT),
    t.SessionEndEvent(**EVENT, duration="0:00:01"),
    t.UnhandledExceptionEvent(**EVENT, error_type="ValueError", error_message="no"),
    t.GenericEvent(**EVENT, event_name="epoch"),
)
NODE = t.CustomLossNode(op="output", name="out", target="output")
LOGPROBS = t.CustomLossInput(name="logprobs", rank=1)
GRAPH = t.CustomLossGraph(nodes=[NODE])

PLAIN: tuple[Any, ...] = (
    # requests
    t.CancelFutureRequest(request_id="r"),
    t.CopyWeightsRequest(source_path="tinker://r/weights/a", session_id="s", model_seq_id=0),
    t.CreateCustomLossRequest(session_id="s", custom_loss_seq_id=0, name="mine", inputs=[LOGPROBS], graph=GRAPH),
    t.CreateModelRequest(session_id="s", model_seq_id=0, base_model="b", lora_config=t.LoraConfig(rank=8)),
    t.CreateSamplingSessionRequest(session_id="s", sampling_session_seq_id=0, base_model="b"),
    t.CreateSamplingSessionRequest(session_id="s", sampling_session_seq_id=0, model_path="tinker://r/a"),
    t.CreateSessionRequest(tags=[], sdk_version="1"),
    t.ForwardBackwardRequest(forward_backward_input=BATCH, model_id="m", seq_id=1),
    t.ForwardRequest(forward_input=BATCH, model_id="m", seq_id=1),
    t.FutureRetrieveRequest(request_id="r"),
    t.FuturesRetrieveRequest(target=TARGET),
    t.GetInfoRequest(model_id="m"),
    t.JoinSamplingSessionRequest(sampling_session_id="s"),
    t.LoadWeightsRequest(path="tinker://r/weights/a", model_id="m", seq_id=1),
    t.OptimStepRequest(adam_params=t.AdamParams(), model_id="m", seq_id=1),
    t.SampleRequest(prompt=PROMPT, sampling_params=t.SamplingParams(), sampling_session_id="s", seq_id=0),
    t.SampleRequest(prompt=PROMPT, sampling_params=t.SamplingParams(), base_model="b"),
    t.SaveWeightsExternalRequest(model_id="m", path="a", seq_id=1),
    t.SaveWeightsForSamplerRequest(model_id="m", path="a", seq_id=1),
    t.SaveWeightsForSamplerRequest(model_id="m", sampling_session_seq_id=0, seq_id=1),
    t.SaveWeightsRequest(model_id="m", path="a", seq_id=1),
    t.SessionHeartbeatRequest(session_id="s"),
    t.SessionSearchRequest(),
    t.TelemetrySendRequest(events=list(EVENTS), platform="Linux", sdk_version="1", session_id="s"),
    t.UnloadModelRequest(model_id="m"),
    t.WeightsInfoRequest(tinker_path="tinker://r/weights/a"),
    # what they are made of
    *EVENTS,
    TENSOR,
    DATUM,
    BATCH,
    PROMPT,
    t.EncodedTextChunk(tokens=[1]),
    t.ImageChunk(data=b"x", format="png"),
    t.ImageAssetPointerChunk(location="x", format="png"),
    t.DmelChunk(dmel=b"x"),
    t.SamplingParams(),
    t.AdamParams(),
    t.DimuonParams(learning_rate=1e-3),
    t.LoraConfig(rank=8),
    t.AdamOptimizerConfig(),
    t.DimuonOptimizerConfig(),
    TARGET,
    LOGPROBS,
    NODE,
    GRAPH,
    t.OwnSearchOwner(),
    t.AccessibleSearchOwner(),
    t.UserSearchOwner(owner_urns=["u"]),
    t.ActiveSessionStatusQuery(),
    t.CancelledSessionStatusQuery(),
    t.FailedSessionStatusQuery(),
    t.ClientFinishedSessionStatusQuery(),
    t.SessionSearchCursor(last_created_at=NOON, last_session_id="s"),
)

NO_JSON = {
    t.PromptProvenanceSpan: "travels in the binary form only",
    t.SampledProvenanceSpan: "travels in the binary form only",
    t.Unrecognized: "is whatever the caller says",
}
"""Parts of requests that have no JSON form of ours."""


def request_types() -> set[type[Any]]:
    """Return what the endpoints take, and all that it can be made of."""
    found: set[type[Any]] = set()
    waiting = [endpoint.request for endpoint in ENDPOINTS.values() if endpoint.request not in (None, dict)]
    while waiting:
        cls = waiting.pop()
        if cls not in found and cls not in NO_JSON:
            found.add(cls)
            waiting += [part for hint in get_type_hints(cls).values() for part in _classes_in(hint)]
    return found


def _classes_in(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and (attrs.has(hint) or dataclasses.is_dataclass(hint)):
        yield hint
    for part in get_args(hint):
        yield from _classes_in(part)


def bodies(*, has_settings: bool) -> list[dict[str, Any]]:
    """Return each value as it is written, by the rules of both eras, with the name of its class.

    Args:
        has_settings: A server of this generation has settings for its clients. Such a one is told, with the events of
            telemetry, which process they come from; the classes of SDKs from 0.24 on insist on it.
    """
    named = {"process_uuid": "p"} if has_settings else {}
    values = [attrs.evolve(value, **named) if isinstance(value, t.TelemetrySendRequest) else value for value in PLAIN]
    both = [(value, era) for value in values for era in ("A", "B")]
    return [{"name": type(value).__name__, "era": era, "body": json.loads(encode(value, era))} for value, era in both]
