"""Sessions: making, looking up, heartbeats, finishing."""

from __future__ import annotations


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
    """What was queued runs, its results can be read, the rest is refused with 410, and its models are freed."""
    session = api.session()
    model, sampler = api.model(session), api.sampler(session)
    assert api.post("session_heartbeat", {"session_id": session}) == {"type": "session_heartbeat"}
    step = api.post("optim_step", api.optim_step(model, 1))
    sampled = api.post("asample", api.sample(sampler, 0))
    for reason in ("success", "errored"):
        body = {"reason": {"type": reason}, "detail": None}
        assert api.call("POST", f"sessions/{session}/finish", body).status_code == 204
    assert "metrics" in api.result(step["request_id"])
    assert "sequences" in api.result(sampled["request_id"])
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
