"""Sessions: making, looking up, heartbeats, finishing."""

from __future__ import annotations

import queue

import requests


def test_a_repeated_creation_returns_the_same_session(api):
    """The idempotency key tells a repeat."""
    body = {"tags": [], "user_metadata": {"exp": "a"}, "sdk_version": "1", "display_name": "mine"}
    first, again, other = (
        api.post("create_session", body, headers={"X-Idempotency-Key": key})["session_id"] for key in ("1", "1", "2")
    )
    assert first == again != other
    found = api.get(f"sessions/{first}")
    assert found == {"training_run_ids": [], "sampler_ids": [], "user_metadata": {"exp": "a"}, "display_name": "mine"}


def test_a_session_lists_its_models_and_samplers(api):
    """By id, in the order of creation."""
    session = api.session()
    model, sampler = api.model(session), api.sampler(session)
    found = api.get(f"sessions/{session}")
    assert (found["training_run_ids"], found["sampler_ids"]) == ([model], [sampler])


def test_sessions_are_listed_in_pages(api):
    """The newest first."""
    made = [api.session() for _ in range(3)]
    assert api.get("sessions?limit=2")["sessions"] == made[:0:-1]
    assert api.get("sessions?limit=1&offset=2")["sessions"] == made[:1]
    for query in ("limit=x", "offset=-1", "limit=9999999999999999"):
        assert "whole number" in api.get(f"sessions?{query}", status=422)["detail"]


def test_unknown_sessions(api):
    """Every endpoint says 404."""
    api.get("sessions/none", status=404)
    api.post("session_heartbeat", {"session_id": "none"}, status=404)
    api.post("sessions/none/finish", {"reason": {"type": "success"}, "detail": None}, status=404)
    body = {"session_id": "none", "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
    assert "ServiceClient" in api.post("create_model", body, status=404)["detail"]


def test_a_finished_session_takes_no_more_work(api, engine):
    """What has run can be read, the rest is refused with 410, and its models are freed."""
    session = api.session()
    model, sampler = api.model(session), api.sampler(session)
    assert api.post("session_heartbeat", {"session_id": session}) == {"type": "session_heartbeat"}
    api.run("asample", api.sample(sampler, 0))
    with engine.hold("optim_step") as held:
        step = api.post("optim_step", api.optim_step(model, 1))
        assert held.reached.wait(10)
        for reason in ("success", "errored"):
            body = {"reason": {"type": reason}, "detail": None}
            assert api.call("POST", f"sessions/{session}/finish", body).status_code == 204
    assert "metrics" in api.result(step["request_id"])
    assert "sequences" in api.result(f"{sampler}:0")
    assert "success" in api.post("session_heartbeat", {"session_id": session}, status=410)["detail"]
    body = {"session_id": session, "model_seq_id": 1, "base_model": "tinkex/tiny-0.9m"}
    refused = [
        ("optim_step", api.optim_step(model, 2)),
        ("create_model", body),
        ("create_sampling_session", {"session_id": session, "sampling_session_seq_id": 9, "base_model": "x"}),
        ("asample", api.sample(sampler, 1)),
    ]
    for path, body in refused:
        assert "finished" in api.post(path, body, status=410)["detail"]
    assert api.post("optim_step", api.optim_step(model, 1)) == step
    other = api.session()
    api.run("optim_step", api.optim_step(api.model(other), 1))
    assert "drop_model" in engine.operations(model)
    assert "close_sampler" in engine.operations(sampler)


def made(api, **fields):
    """Make a session that says more of itself."""
    body = {"tags": [], "user_metadata": {"test": "search"}, "sdk_version": "1", **fields}
    return api.post("create_session", body)["session_id"]


def found(api, **conditions):
    """Search, and return the ids."""
    return [session["session_id"] for session in api.post("sessions/search", conditions)["sessions"]]


def test_sessions_are_found_by_what_is_said_of_them(serve):
    """All conditions must hold; only a name and an id are alternatives."""
    api = serve()
    night = made(api, display_name="Nightly run 7", project_id="p")
    day = made(api, user_metadata={"lr": 0.1})
    assert found(api) == [day, night]
    assert found(api, display_name="RUN night") == [night]
    assert found(api, display_name="run day") == []
    assert found(api, display_name="nightly", session_id=day) == [day, night]
    assert found(api, session_id=night) == [night]
    assert found(api, project_ids=["p"]) == [night]
    assert found(api, project_ids=["p"], session_id=day) == []
    assert found(api, user_metadata={"lr": "0.1"}) == [day]
    assert found(api, user_metadata={"lr": "0.1", "no": "x"}) == []
    assert found(api, owner={"type": "accessible"}) == [day, night]
    assert found(api, owner={"type": "user", "owner_urns": ["somebody"]}) == []
    assert found(api, owner={"type": "user", "owner_urns": ["local"]}) == [day, night]


def test_sessions_are_found_by_how_they_ended(serve):
    """The reason and the words that the client gave are in the answer."""
    api = serve()
    going, failed, done = made(api), made(api), made(api)
    api.call("POST", f"sessions/{failed}/finish", {"reason": {"type": "errored"}, "detail": "out of data"})
    api.call("POST", f"sessions/{done}/finish", {"reason": {"type": "success"}, "detail": None})
    assert found(api, statuses=[{"type": "active"}]) == [going]
    assert found(api, statuses=[{"type": "client_finished"}]) == [done, failed]
    assert found(api, statuses=[{"type": "client_finished", "reasons": ["errored"]}]) == [failed]
    assert found(api, statuses=[{"type": "cancelled"}, {"type": "active"}]) == [going]
    (summary,) = api.post("sessions/search", {"session_id": failed})["sessions"]
    assert summary["status"] == {"type": "client_finished", "reason": {"type": "errored"}, "detail": "out of data"}


def test_what_is_found_comes_in_pages(serve):
    """The cursor of a page leads to the next one, and the last page has none."""
    api = serve()
    sessions = [made(api) for _ in range(5)]
    pages, cursor = [], None
    while not pages or cursor:
        page = api.post("sessions/search", {"limit": 2, "cursor": cursor})
        pages.append([session["session_id"] for session in page["sessions"]])
        cursor = page.get("next_cursor")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [session for page in pages for session in page] == sessions[::-1]
    assert "limit" in api.post("sessions/search", {"limit": 0}, status=422)["detail"]


def test_a_session_that_is_found_counts_its_checkpoints(api):
    """And how much room they take."""
    session = api.session()
    model = api.model(session)
    api.run("save_weights", {"model_id": model, "path": "a", "seq_id": 1})
    (summary,) = api.post("sessions/search", {"session_id": session})["sessions"]
    assert summary["checkpoints_count"] == 1
    assert summary["checkpoint_storage_bytes"] > 0
    assert (summary["owner"], summary["project_id"], summary["status"]) == ("local", "local", {"type": "active"})


def test_a_session_is_moved_to_a_project(api):
    """Its runs are then listed with the project, and not with another."""
    session = api.session()
    model = api.model(session)
    assert api.call("PUT", f"sessions/{session}/project", {"project_id": "p"}).status_code == 204
    runs = api.get("training_runs?project_id=p")["training_runs"]
    assert [run["training_run_id"] for run in runs] == [model]
    assert api.get("training_runs?project_id=q")["training_runs"] == []
    assert api.call("PUT", f"sessions/{session}/project", {}).status_code == 400
    assert api.call("PUT", "sessions/none/project", {"project_id": "p"}).status_code == 404


def test_what_a_session_did_can_be_drawn(serve):
    """The trace has a row for each model and a bar for each operation, with the time that it waited."""
    now = [100.0]
    api = serve(clock=lambda: now[0])
    session = api.session()
    model = api.model(session)
    now[0] += 2
    bad = {"model_id": model, "seq_id": 1, "path": "tinker://s:train:0/weights/x", "optimizer": False}
    assert "error" in api.run("load_weights", bad)
    answer = api.get(f"sessions/{session}/trace_export")
    assert answer["status"] == "ready"
    events = requests.get(answer["url"], timeout=10).json()["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == [model]
    bars = {event["name"]: event for event in events if event["ph"] == "X"}
    assert (bars["create_model"]["ts"], bars["load_weights"]["ts"]) == (0, 2e6)
    assert bars["load_weights"]["args"] == {"request_id": f"{model}:1", "queued_s": 0.0, "failed": True}
    assert not bars["create_model"]["args"]["failed"]
    assert requests.get(answer["url"], timeout=10).status_code == 404
    api.get("sessions/none/trace_export", status=404)


def test_an_operation_is_in_the_trace_before_its_result_can_be_had(api, engine):
    """Whoever has waited for a result and then asks for the trace finds the operation there."""
    model = api.new_model()
    service, seen = api.server._parts().service, queue.SimpleQueue()
    with engine.hold("optim_step") as held:
        request_id = api.post("optim_step", api.optim_step(model, 1))["request_id"]
        assert held.reached.wait(10)
        service.futures.watch(request_id, lambda: seen.put(service.traces.export(model.partition(":")[0])))
    assert b'"optim_step"' in seen.get(timeout=10)
