"""What a client sends to a server that is older than a field, and what it says when such a server refuses one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import tinkex
from tests.clients.conftest import BASE, make_datum
from tinkex import types
from tinkex.errors import APIStatusError, BadRequestError, UnprocessableEntityError
from tinkex.http.transport import Response, Transport
from tinkex.resources import ENDPOINTS
from tinkex.types._base import late_fields
from tinkex.wire.json import structure

WAIT = 30.0
PROMPT = types.ModelInput.from_ints([1, 2, 3])
GREEDY = types.SamplingParams(max_tokens=2, temperature=0.0)
REQUESTS = {
    f"/api/v1{endpoint.path}": endpoint.request for endpoint in ENDPOINTS.values() if attrs.has(endpoint.request)
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The values that went over the wire in JSON, in order."""
    seen: list[Any] = []
    send = Transport.send

    def spy(self: Transport, method: str, path: str, *, body: Any = None, **options: Any) -> Response:
        cls = REQUESTS.get(path)
        if cls is not None and isinstance(body, bytes):
            seen.append(structure(json.loads(body), cls))
        return send(self, method, path, body=body, **options)

    monkeypatch.setattr(Transport, "send", spy)
    return seen


@pytest.fixture
def old_service(stage) -> Iterator[tinkex.ServiceClient]:
    """A client of a server without settings for its clients, as before SDK 0.18."""
    stage.faults.answer(404, {"detail": "Not Found"}, path="client/config", times=10**6)
    with stage.new_service(telemetry=True) as service:
        yield service


def use(service: tinkex.ServiceClient) -> None:
    """Train, save, sample and log, with what is the default."""
    train = service.create_lora_training_client(BASE, rank=4)
    train.forward_backward([make_datum()], "cross_entropy")
    train.optim_step(types.AdamParams())
    train.save_state("kept").result(WAIT)
    train.save_weights_for_sampler("drawn").result(WAIT)
    sampler = train.save_weights_and_get_sampling_client()
    sampler.sample(PROMPT, 1, GREEDY).result(WAIT)
    assert service.get_telemetry().flush(WAIT)


def test_a_server_without_settings_is_sent_nothing_that_is_younger_than_its_request(old_service, sent):
    """Its request classes may be those of SDK 0.7, which refuse what they do not know."""
    use(old_service)
    kinds = {type(request).__name__ for request in sent}
    assert kinds >= {"FutureRetrieveRequest", "SampleRequest", "SaveWeightsRequest", "TelemetrySendRequest"}
    assert [] == [(type(request).__name__, late_fields(request)) for request in sent if late_fields(request)]


def test_a_server_with_settings_is_asked_to_announce_large_results(stage, sent):
    """The settings came four versions after the question."""
    stage.train()
    polls = [request for request in sent if isinstance(request, types.FutureRetrieveRequest)]
    assert [True] * len(polls) == [poll.allow_metadata_only for poll in polls]
    assert polls


def refused(stage, status: int, body: Any) -> APIStatusError:
    """Ask for the likeliest tokens of a sample, be refused, and return the error."""
    sampler = stage.service.create_sampling_client(base_model=BASE)
    stage.faults.answer(status, body, path="asample")
    error = sampler.sample(PROMPT, 1, GREEDY, topk_sample_logprobs=2).exception(WAIT)
    assert isinstance(error, APIStatusError)
    return error


EXTRA = {"type": "extra_forbidden", "loc": ["body", "topk_sample_logprobs"], "msg": "Extra inputs are not permitted"}
OLD_WORDS = "body -> topk_sample_logprobs: extra fields not permitted"


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [(422, {"detail": [EXTRA]}, UnprocessableEntityError), (400, {"detail": OLD_WORDS}, BadRequestError)],
)
def test_a_server_that_does_not_know_a_field_is_said_to_be_older_than_it(stage, status, body, cls):
    """The error names the field, the SDK that it came with, and the way out."""
    error = refused(stage, status, body)
    assert type(error) is cls
    assert (
        "this server does not know topk_sample_logprobs, which came with SDK 0.29: leave it out, or use a server for "
        "that SDK"
    ) in error.message


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (422, [{"loc": ["body", "topk_sample_logprobs"], "msg": "Input should be less than or equal to 1"}]),
        (422, [{"loc": ["body", "colour"], "msg": "Extra inputs are not permitted"}]),
        (422, [{"loc": ["body", "prompt_alt_tokens_k"], "msg": "Extra inputs are not permitted"}]),
        (403, [EXTRA]),
    ],
)
def test_a_refusal_for_another_reason_is_not_explained_by_age(stage, status, detail):
    """A value that the server does not like, a field that was not set, and other statuses mean something else."""
    assert "does not know" not in refused(stage, status, {"detail": detail}).message
