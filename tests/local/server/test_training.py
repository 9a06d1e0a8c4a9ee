"""Models: creation, order of operations, repeats, gaps, failures."""

from __future__ import annotations

import random

import pytest

from tinkex.errors import InvalidInputError, RequestFailedError, TinkexError
from tinkex.local import Limits


def test_ids_are_those_that_clients_compute(api):
    """Newer clients put the id of a model together themselves."""
    session = api.session()
    promise = api.post("create_model", {"session_id": session, "model_seq_id": 3, "base_model": "tinkex/tiny-0.9m"})
    assert promise == {"request_id": f"{session}:train:3:0", "model_id": f"{session}:train:3"}
    assert api.result(promise["request_id"]) == {"model_id": f"{session}:train:3", "type": "create_model"}


def test_get_info_works_as_soon_as_the_model_is_there(api):
    """Newer clients ask right after creation."""
    model = api.model(api.session(), rank=4)
    info = api.post("get_info", {"model_id": model})
    assert info["model_data"]["model_name"] == "tinkex/tiny-0.9m"
    assert (info["model_id"], info["is_lora"], info["lora_rank"]) == (model, True, 4)


def test_training_lowers_the_loss(api):
    """Operations reach the engine and their results come back."""
    model = api.new_model()
    losses = []
    for step in range(3):
        losses.append(api.run("forward_backward", api.forward_backward(model, 2 * step + 1))["metrics"]["loss:sum"])
        assert "metrics" in api.run("optim_step", api.optim_step(model, 2 * step + 2))
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 3


def test_forward_has_its_own_path(api, engine):
    """``forward`` computes a loss and no gradient."""
    model = api.new_model()
    result = api.run("forward", {"model_id": model, "seq_id": 1, "forward_input": api.batch()})
    assert result["loss_fn_outputs"][0]["logprobs"]["shape"] == [3]
    assert engine.operations(model)[-1] == "forward"


def test_operations_run_by_number_whatever_order_they_arrive_in(api, engine):
    """Early ones wait for those before them."""
    model = api.new_model()
    bodies = {seq: ("optim_step", api.optim_step(model, seq)) for seq in range(2, 31, 2)}
    bodies |= {seq: ("forward_backward", api.forward_backward(model, seq)) for seq in range(1, 31, 2)}
    order = list(bodies)
    random.Random(7).shuffle(order)
    promises = [api.post(*bodies[seq])["request_id"] for seq in order]
    for request_id in promises:
        assert "error" not in api.result(request_id)
    assert engine.operations(model)[1:] == ["forward_backward", "optim_step"] * 15


def test_a_repeat_gets_the_original_future(api, engine):
    """A client that lost an answer sends the same number again, and nothing runs twice."""
    model = api.new_model()
    first = api.post("optim_step", api.optim_step(model, 1), headers={"X-Idempotency-Key": "a"})
    again = api.post("optim_step", api.optim_step(model, 1), headers={"X-Idempotency-Key": "b"})
    assert first == again
    api.result(first["request_id"])
    assert api.post("optim_step", api.optim_step(model, 1)) == first
    assert engine.operations(model).count("optim_step") == 1


def test_without_a_number_the_idempotency_key_tells_a_repeat(api, engine):
    """The same key gives the same future, another key a new one."""
    model = api.new_model()
    ids = [
        api.post("optim_step", api.optim_step(model, None), headers={"X-Idempotency-Key": key})["request_id"]
        for key in ("k", "k", "other")
    ]
    assert ids[0] == ids[1] != ids[2]
    for request_id in ids:
        api.result(request_id)
    assert engine.operations(model).count("optim_step") == 2


def test_a_model_is_created_once_for_its_number(api, engine):
    """A repeated create_model makes no second model."""
    session = api.session()
    body = {"session_id": session, "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
    first = api.post("create_model", body)
    assert api.post("create_model", body) == first
    api.result(first["request_id"])
    assert api.post("create_model", body) == first
    assert engine.operations(first["model_id"]) == ["create_model"]


def test_one_number_for_two_operations_is_a_mistake(api):
    """It is refused at once and not taken for a repeat."""
    model = api.new_model()
    api.post("optim_step", api.optim_step(model, 1))
    detail = api.post("forward_backward", api.forward_backward(model, 1), status=400)["detail"]
    assert "optim_step" in detail


def test_a_gap_fails_what_waits_behind_it_and_names_the_missing_number(serve, engine):
    """Nobody waits for ever for a number that was never sent."""
    api = serve(Limits(gap_s=0.05))
    model = api.new_model()
    waiting = [api.post("optim_step", api.optim_step(model, seq))["request_id"] for seq in (2, 3)]
    for request_id in waiting:
        failure = api.result(request_id)
        assert "seq_id 1" in failure["error"]
        assert failure["category"] == "user"
    assert engine.operations(model) == ["create_model"]
    late = api.run("optim_step", api.optim_step(model, 1))
    assert "too late" in late["error"]
    assert "metrics" in api.run("optim_step", api.optim_step(model, 4))


def test_a_poll_says_what_an_operation_waits_for(serve, engine):
    """Not yet is answered with the reason."""
    api = serve(Limits(hold_s=0.01))
    model = api.new_model()

    def reason(request_id: str) -> str:
        answer = api.post("retrieve_future", {"request_id": request_id, "allow_metadata_only": True})
        assert (answer["type"], answer["queue_state"]) == ("try_again", "active")
        assert answer["request_id"] == request_id
        return answer["queue_state_reason"]

    with engine.hold("optim_step") as held:
        ids = [api.post("optim_step", api.optim_step(model, seq))["request_id"] for seq in (1, 2, 3, 5)]
        assert held.reached.wait(10)
        assert reason(ids[0]) == "running"
        assert reason(ids[1]) == "1 operation ahead"
        assert reason(ids[2]) == "2 operations ahead"
        assert "seq_id 4" in reason(ids[3])


def test_a_poll_is_woken_by_the_result(api, engine):
    """It is answered when the operation ends, not when the poll's time is up."""
    model = api.new_model()
    with engine.hold("optim_step") as held:
        request_id = api.post("optim_step", api.optim_step(model, 1))["request_id"]
        assert held.reached.wait(10)
        futures = api.server._parts().service.futures
        futures._open[request_id].wakers.append(held.release)
    assert api.post("retrieve_future", {"request_id": request_id})["metrics"]


def test_results_can_be_read_again(api):
    """An answer may be lost on its way."""
    request_id = api.post("optim_step", api.optim_step(api.new_model(), 1))["request_id"]
    assert api.result(request_id) == api.result(request_id)


def test_an_unknown_future(api):
    """404 says what may have happened."""
    assert "submit" in api.post("retrieve_future", {"request_id": "nope"}, status=404)["detail"]


@pytest.mark.parametrize(
    ("error", "category", "text"),
    [
        (InvalidInputError("data[0] is odd", index=0), "user", "data[0] is odd"),
        (TinkexError("no"), "server", "no"),
        (RequestFailedError("the loss is not finite", category="user"), "user", "the loss is not finite"),
        (ZeroDivisionError("division"), "server", "forward_backward failed: ZeroDivisionError: division"),
        (SystemExit(3), "server", "forward_backward failed: SystemExit: 3"),
    ],
)
def test_a_failure_is_reported_and_fails_nothing_else(api, engine, error, category, text):
    """Whatever an engine raises, the future says it and the next operation runs."""
    model = api.new_model()
    engine.fail("forward_backward", error)
    failure = api.run("forward_backward", api.forward_backward(model, 1))
    assert failure == {"error": text, "category": category}
    assert "metrics" in api.run("forward_backward", api.forward_backward(model, 2))


@pytest.mark.parametrize(
    ("limits", "batch", "text"),
    [
        (Limits(), {"token": 5000}, "token 5000"),
        (Limits(), {"tokens": 2000}, "2000 tokens"),
        (Limits(tokens=2), {}, "3 input tokens, the limit is 2"),
        (Limits(data=0), {}, "1 items, the limit is 0"),
    ],
)
def test_content_that_can_never_run_fails_its_future(serve, engine, limits, batch, text):
    """It keeps its number, so that the next operation has no gap before it."""
    api = serve(limits)
    model = api.new_model()
    failure = api.run("forward_backward", api.forward_backward(model, 1, **batch))
    assert text in failure["error"]
    assert failure["category"] == "user"
    assert "metrics" in api.run("optim_step", api.optim_step(model, 2))
    assert "forward_backward" not in engine.operations(model)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"base_model": "other"}, "other"), ({"lora_config": {"rank": 1000}}, "the limit of this server is 128")],
)
def test_a_model_that_cannot_be_made(api, change, text):
    """The creation fails, and whatever is sent later is refused with the reason."""
    body = {"session_id": api.session(), "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m", **change}
    promise = api.post("create_model", body)
    failure = api.result(promise["request_id"])
    assert text in failure["error"]
    assert failure["category"] == "user"
    assert text in api.post("optim_step", api.optim_step(promise["model_id"], 1), status=404)["detail"]
    assert text in api.post("get_info", {"model_id": promise["model_id"]}, status=404)["detail"]


def test_what_was_queued_behind_a_failed_creation_fails_with_its_reason(api, engine):
    """It does not run on a model that is not there."""
    body = {"session_id": api.session(), "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
    engine.fail("create_model", TinkexError("no memory"))
    with engine.hold("create_model") as held:
        model = api.post("create_model", body)["model_id"]
        assert held.reached.wait(10)
        step = api.post("optim_step", api.optim_step(model, 1))
    assert "no memory" in api.result(step["request_id"])["error"]


def test_an_unloaded_model_is_gone(api, engine):
    """Operations before the unloading run, later ones are refused, and a repeat of the unloading is not."""
    model = api.new_model()
    step = api.post("optim_step", api.optim_step(model, 1))
    key = {"X-Idempotency-Key": "u"}
    promise = api.post("unload_model", {"model_id": model}, headers=key)
    assert api.result(promise["request_id"]) == {"model_id": model, "type": "unload_model"}
    assert "metrics" in api.result(step["request_id"])
    assert engine.operations(model) == ["create_model", "optim_step", "drop_model"]
    assert api.post("unload_model", {"model_id": model}, headers=key) == promise
    assert "unloaded" in api.post("optim_step", api.optim_step(model, 2), status=404)["detail"]
    assert "unloaded" in api.post("get_info", {"model_id": model}, status=404)["detail"]


@pytest.mark.parametrize("path", ["optim_step", "unload_model", "get_info"])
def test_an_unknown_model(api, path):
    """404 says that models end with the server."""
    body = {"model_id": "s:train:0", "seq_id": 1, "adam_params": {}}
    assert "server stops" in api.post(path, body, status=404)["detail"]


def test_models_of_silent_clients_make_room(serve, engine):
    """When the engine is full, a session that was not heard of for long loses its models; others do not."""
    now = [0.0]
    api = serve(Limits(live_models=2, session_s=300), clock=lambda: now[0])
    silent, awake = api.session(), api.session()
    first, second = api.model(silent), api.model(awake)
    body = {"session_id": awake, "model_seq_id": 1, "base_model": "tinkex/tiny-0.9m"}
    assert "2 models are live" in api.run("create_model", body)["error"]
    for _ in range(400):
        now[0] += 1
        api.server._parts().service.store.tick()
    api.post("session_heartbeat", {"session_id": awake})
    third = api.model(awake, seq=2)
    assert "drop_model" in engine.operations(first)
    for model in (second, third):
        assert "metrics" in api.run("optim_step", api.optim_step(model, 1))
    assert "silent" in api.post("optim_step", api.optim_step(first, 1), status=404)["detail"]


def test_too_many_open_operations_are_refused_for_a_while(serve, engine):
    """429 comes with the time to wait, and the number can be sent again."""
    api = serve(Limits(open_futures=2))
    model = api.new_model()
    with engine.hold("optim_step"):
        ids = [api.post("optim_step", api.optim_step(model, seq))["request_id"] for seq in (1, 2)]
        answer = api.call("POST", "optim_step", api.optim_step(model, 3))
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    for request_id in ids:
        api.result(request_id)
    assert "metrics" in api.run("optim_step", api.optim_step(model, 3))


def test_stopping_fails_what_is_queued_and_finishes_what_runs(serve, engine):
    """Nobody is left waiting."""
    api = serve()
    model = api.new_model()
    service = api.server._parts().service
    with engine.hold("optim_step") as held:
        ids = [api.post("optim_step", api.optim_step(model, seq))["request_id"] for seq in (1, 2)]
        promises = [service.futures._open[request_id] for request_id in ids]
        assert held.reached.wait(10)
        service.queue._cond.acquire()
        service.queue._closed = True
        service.queue._cond.release()
    api.server.stop()
    assert b"metrics" in promises[0].result.body
    assert b"stopped before" in promises[1].result.body


def test_an_optimizer_that_is_not_there_is_refused_by_name(api):
    """At the creation of the model and at the step; a step that was refused does not break the model."""
    session = api.session()
    body = {"session_id": session, "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
    dimuon = api.run("create_model", body | {"optimizer_config": {"type": "dimuon", "version": 1}})
    assert ("'dimuon'" in dimuon["error"], dimuon["category"]) == (True, "user")
    model = api.run("create_model", body | {"model_seq_id": 1, "optimizer_config": {"type": "adamw"}})["model_id"]
    step = {"model_id": model, "seq_id": 1, "optimizer_params": {"type": "lion", "learning_rate": 1}}
    assert "'lion'" in api.run("optim_step", step)["error"]
    assert "metrics" in api.run("optim_step", api.optim_step(model, 2))
    assert api.post("get_info", {"model_id": model})["optimizer_config"] == {"type": "adamw"}
    path = api.run("save_weights", {"model_id": model, "path": "a", "seq_id": 3})["path"]
    load = {"session_id": session, "model_seq_id": 2, "path": path, "optimizer": False}
    assert "'muon'" in api.run("load_weights", load | {"optimizer_config": {"type": "muon"}})["error"]


def test_an_engine_that_runs_no_custom_losses_says_so(api):
    """Clients are told in their settings, and in words if they try; see tests/clients/test_custom_losses."""
    assert "custom_loss_server_side" not in api.post("client/config", {})
    body = {
        "session_id": api.session(),
        "custom_loss_seq_id": 0,
        "name": "mine",
        "inputs": [{"name": "logprobs", "rank": 1}],
        "graph": {"format": 1, "nodes": []},
    }
    assert "forward_backward_custom" in api.post("create_custom_loss", body, status=501)["detail"]
