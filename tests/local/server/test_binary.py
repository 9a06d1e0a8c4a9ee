"""The binary form of training requests and of results, which the newest clients insist on."""

from __future__ import annotations

import math
import sys

import pytest

from tinkex.local import Limits
from tinkex.types import (
    Datum,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
    ModelInput,
    TensorData,
)
from tinkex.wire import proto

BINARY = {"Accept": "application/x-protobuf"}


def send(api, value):
    """Submit a binary request and return the raw answer to a poll that asks for the binary form."""
    headers = {"Content-Type": "application/x-protobuf"}
    body = proto.encode_forward_backward(value)
    submitted = api.http.post(api.url("forward_backward"), data=body, headers=headers, timeout=10)
    assert submitted.status_code == 200, submitted.text
    return api.call("POST", "retrieve_future", {"request_id": submitted.json()["request_id"]}, headers=BINARY)


def batch(token=5):
    """A batch of one datum."""
    target = TensorData(data=[token] * 3, dtype="int64")
    datum = Datum(model_input=ModelInput.from_ints([token] * 3), loss_fn_inputs={"target_tokens": target})
    return ForwardBackwardInput(data=[datum], loss_fn="cross_entropy")


def test_a_binary_request_gets_a_binary_result(api, engine):
    """It says the same as the JSON form, which can be asked for as well."""
    model = api.new_model()
    answer = send(api, ForwardBackwardRequest(model_id=model, seq_id=1, forward_backward_input=batch()))
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    output = proto.decode_output(answer.content)
    assert output.metrics == {"loss:sum": 6.0}
    assert list(output.loss_fn_outputs[0]["logprobs"].data) == [-2.0] * 3
    assert api.result(f"{model}:1")["metrics"] == {"loss:sum": 6.0}
    assert engine.operations(model)[-1] == "forward_backward"


def test_a_binary_request_may_ask_for_no_gradient(api, engine):
    """It is a forward."""
    model = api.new_model()
    send(api, ForwardRequest(model_id=model, seq_id=1, forward_input=batch()))
    assert engine.operations(model)[-1] == "forward"


def test_a_binary_sample(api):
    """The request is JSON, the result is not."""
    sampler = api.sampler(api.session())
    request_id = api.post("asample", api.sample(sampler, 0, prompt_logprobs=True, topk_prompt_logprobs=2))["request_id"]
    api.result(request_id)
    answer = api.call("POST", "retrieve_future", {"request_id": request_id}, headers=BINARY)
    response = proto.decode_sample(answer.content)
    assert response.sequences[0].tokens == [4, 5]
    assert response.prompt_logprobs == [None, -1.0]


def test_failures_and_not_yet_are_always_json(api):
    """Whatever the client asks for."""
    answer = send(api, ForwardBackwardRequest(model_id=api.new_model(), seq_id=1, forward_backward_input=batch(5000)))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["category"] == "user"


def test_other_endpoints_take_no_binary_form(api):
    """415 says what to send."""
    headers = {"Content-Type": "application/x-protobuf"}
    answer = api.http.post(api.url("optim_step"), data=b"x", headers=headers, timeout=10)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_what_is_not_protobuf_is_the_clients_mistake(api):
    """422, as for broken JSON."""
    headers = {"Content-Type": "application/x-protobuf"}
    answer = api.http.post(api.url("forward_backward"), data=b"\xff\xff", headers=headers, timeout=10)
    assert answer.status_code == 422


def post_compressed(api, body):
    """Submit a compressed binary request."""
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "zstd"}
    return api.http.post(api.url("forward_backward"), data=body, headers=headers, timeout=10)


def compressed(value):
    """Write a request as clients do that were told to compress."""
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(proto.encode_forward_backward(value))


def test_a_compressed_request_is_read(api, engine):
    """It is the same request."""
    model = api.new_model()
    body = compressed(ForwardBackwardRequest(model_id=model, seq_id=1, forward_backward_input=batch()))
    answer = post_compressed(api, body)
    assert answer.status_code == 200, answer.text
    assert api.result(f"{model}:1")["metrics"] == {"loss:sum": 6.0}


def test_what_is_not_zstd_is_the_clients_mistake(api):
    """422, as for what is not protobuf."""
    pytest.importorskip("zstandard")
    answer = post_compressed(api, b"not zstd")
    assert (answer.status_code, answer.json()["detail"][:20]) == (422, "the body is not zstd")


def test_a_small_body_that_becomes_a_large_one_is_refused(serve):
    """The limit holds for what comes out, whatever the body says of its size."""
    zstandard = pytest.importorskip("zstandard")
    api = serve(limits=Limits(body_bytes=10_000))
    for options in ({}, {"write_content_size": False}):
        bomb = zstandard.ZstdCompressor(**options).compress(bytes(10_000_000))
        assert len(bomb) < 10_000
        answer = post_compressed(api, bomb)
        assert (answer.status_code, answer.json()["detail"][:40]) == (413, "the body has more than 10000 bytes, the ")


def test_a_server_without_zstd_says_so(api, monkeypatch):
    """415 says what to do on either side."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    answer = post_compressed(api, b"x")
    assert answer.status_code == 415
    assert "send the body as it is, or install tinkex[zstd]" in answer.json()["detail"]


def test_a_result_that_json_cannot_hold_reaches_those_who_ask_for_the_binary_form(api, engine, monkeypatch):
    """A loss of NaN is a result; to a client of JSON it is a failure that says why."""
    values = {"loss_fn_output_type": "scalar", "loss_fn_outputs": [], "metrics": {"loss:sum": math.nan}}

    def forward_in_steps(*_, **__):
        yield
        return ForwardBackwardOutput(**values)

    monkeypatch.setattr(engine, "forward_in_steps", forward_in_steps)
    model = api.new_model()
    answer = send(api, ForwardBackwardRequest(model_id=model, seq_id=1, forward_backward_input=batch()))
    assert math.isnan(proto.decode_output(answer.content).metrics["loss:sum"])
    failed = api.result(f"{model}:1")
    assert "no JSON form" in failed["error"]
    assert failed["category"] == "server"
