"""What holds for every request: who may ask, in what form, and how a refusal looks."""

from __future__ import annotations

import socket
import threading

import pytest
import requests

from tinkex.local import Limits

PATHS = ["get_server_capabilities", "sessions", "training_runs", "checkpoints", "samplers/x"]


def test_healthz_needs_no_key(api):
    """The health check answers without a key."""
    answer = requests.get(api.url("healthz"), timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["", "tml-wrong", "\u00e9"])
def test_everything_else_needs_the_key(api, path, key):
    """A missing or wrong key gets 401 and is told where the right one comes from."""
    answer = requests.get(api.url(path), headers={"X-API-Key": key.encode("utf-8")}, timeout=10)
    assert answer.status_code == 401
    assert "TINKER_API_KEY" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_foreign_host_names_are_refused(api, host):
    """A page that rebinds its name to this machine cannot reach the server."""
    answer = api.call("GET", "healthz", headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_loopback_names_are_accepted(api, host):
    """Every name of this machine will do, with any port."""
    assert api.call("GET", "healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["create_session", "telemetry", "sessions/x/finish"])
def test_a_form_cannot_post(api, path):
    """A body that is not JSON by its content type is refused, which stops forms of foreign pages."""
    answer = api.http.post(api.url(path), data={"tags": "x"}, timeout=10)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_an_unknown_compression_is_refused(api):
    """415 says what to send."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    answer = api.http.post(api.url("create_session"), data=b"x", headers=headers, timeout=10)
    assert answer.status_code == 415
    assert "as it is" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(serve, chunked):
    """The limit holds whether the size is announced or not, and the client sees the answer."""
    api = serve(Limits(body_bytes=1000))
    body = b"x" * 20_000_000
    data = iter([body]) if chunked else body
    answer = api.http.post(api.url("asample"), data=data, headers={"Content-Type": "application/json"}, timeout=10)
    assert answer.status_code == 413
    assert "1000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "nothing", 404), ("GET", "asample", 405), ("DELETE", "sessions", 405), ("POST", "healthz", 405)],
)
def test_unknown_paths_and_methods(api, method, path, status):
    """They get a JSON body too, with its length."""
    answer = api.call(method, path)
    assert answer.status_code == status
    assert path in answer.json()["detail"]
    assert int(answer.headers["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("create_session", {"sdk_version": "1"}, "tags"),
        ("create_session", [], "object"),
        ("get_info", {"model_id": 7}, "model_id"),
        ("optim_step", {"model_id": "m", "adam_params": {"beta1": "x"}}, "beta1"),
        ("forward_backward", {"model_id": "m", "forward_backward_input": {"data": [{}], "loss_fn": "ppo"}}, "data"),
        ("save_weights_for_sampler", {"model_id": "m"}, "path"),
        ("load_weights", {"path": "tinker://a/weights/b", "optimizer": True}, "model_id"),
        ("telemetry", [], "object"),
    ],
)
def test_a_body_of_the_wrong_shape_names_the_field(api, path, body, field):
    """The client is told at once, with 422 and the field."""
    detail = api.post(path, body, status=422)["detail"]
    assert field in detail


def test_a_body_that_is_not_json(api):
    """Broken JSON is the client's mistake."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = api.http.post(api.url("create_session"), data=b"{", headers=headers, timeout=10)
    assert answer.status_code == 422
    assert "JSON" in answer.json()["detail"]


def test_old_and_new_clients_are_understood(api):
    """``type`` may be there or not, null equals absent, and unknown keys do not matter."""
    body = {"tags": [], "user_metadata": {"a": 1}, "sdk_version": "9", "project_id": None, "novelty": [1]}
    for extra in ({}, {"type": "create_session"}):
        assert api.post("create_session", {**body, **extra})["session_id"]


def test_clients_are_told_what_training_requests_may_look_like(api):
    """Newer clients ask for settings first; those that are left out have the clients' defaults."""
    assert api.post("client/config", {"sdk_version": "0.38.0"}) == {
        "create_model_via_load_weights": True,
        "sample_join_sampling_session": True,
        "proto_write_fwdbwd": True,
        "fwdbwd_max_chunk_len": 1024,
        "fwdbwd_max_chunk_bytes_count": 5_000_000,
    }
    dynamic = api.post("client/dynamic_config", {"sdk_version": "0.38.0"})
    assert (dynamic["sample_cancel_enabled"], dynamic["refresh_interval_sec"]) == (True, 300)


def test_telemetry_is_counted_and_forgotten(api):
    """Any events are accepted, of whatever version."""
    body = {"events": [{"event": "NEW"}, {}], "platform": "Linux", "sdk_version": "1", "session_id": "s"}
    assert api.post("telemetry", body) == {"status": "accepted"}


def test_capabilities_list_what_the_engine_serves(api):
    """The list is the engine's."""
    (model,) = api.get("get_server_capabilities")["supported_models"]
    assert model["model_name"] == "tinkex/tiny-0.9m"


def test_a_request_costs_no_delayed_acknowledgement(api):
    """Connections have Nagle's algorithm off; with it every answer would wait 40 ms."""
    api.get("sessions")
    accepted = [c.transport.get_extra_info("socket") for c in api.server._parts().server.server_state.connections]
    assert accepted
    assert all(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for raw in accepted)


def test_a_client_that_leaves_in_the_middle_of_a_body_hurts_nobody(api):
    """The server goes on."""
    address = api.server._parts().address
    with socket.create_connection(address, timeout=10) as raw:
        key = api.server.api_key
        head = f"POST /api/v1/asample HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 100\r\n\r\n{{"
        raw.sendall(head.encode())
    api.get("healthz")


def test_few_threads_answer_many_polls(api, engine):
    """A hundred polls of one future are held by one thread and all get the result."""
    before = threading.active_count()
    model = api.new_model()
    answers = []
    with engine.hold("optim_step") as held:
        request_id = api.post("optim_step", api.optim_step(model, 1))["request_id"]
        assert held.reached.wait(10)

        def poll() -> None:
            body = {"request_id": request_id}
            headers = {"X-API-Key": api.server.api_key}
            answers.append(requests.post(api.url("retrieve_future"), json=body, headers=headers, timeout=30).json())

        threads = [threading.Thread(target=poll) for _ in range(100)]
        for thread in threads:
            thread.start()
        promise = api.server._parts().service.futures._open[request_id]
        while len(promise.wakers) < 100:
            api.get("healthz")
        assert threading.active_count() == before + len(threads)
    for thread in threads:
        thread.join(30)
    assert len(answers) == 100
    assert all("metrics" in answer for answer in answers)
