"""Long operations: others have their turns in between, and they end with the client that asked for them."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tinkex.local import Limits

SILENCE_S = 60


@pytest.fixture
def now():
    """The time, in a list, for a test to move."""
    return [0.0]


@pytest.fixture
def slow(serve, now):
    """A server whose clock only a test moves."""
    return serve(Limits(session_s=SILENCE_S, gap_s=10_000), clock=lambda: now[0])


def store_of(api):
    """What the server knows of sessions."""
    return api.server._parts().service.store


def let_pass(api, now, seconds):
    """Let time pass in which the server listens."""
    for _ in range(seconds):
        now[0] += 1
        store_of(api).tick()


def beat(api, session):
    """Send a heartbeat."""
    api.post("session_heartbeat", {"session_id": session})


def finish(api, session):
    """Say that a session is over."""
    api.call("POST", f"sessions/{session}/finish", {"reason": {"type": "errored"}, "detail": None})


def large(api, model, seq):
    """The body of a forward_backward in three steps."""
    body = api.forward_backward(model, seq)
    body["forward_backward_input"]["data"] *= 3
    return body


def outcomes(api, ids):
    """Return results, after waiting for all of them in a way that is no sign of life."""
    for request_id in ids:
        done = threading.Event()
        api.server._parts().service.futures.watch(request_id, done.set)
        assert done.wait(10)
    return [api.result(request_id) for request_id in ids]


def test_another_model_has_its_turn_between_two_steps(api, engine):
    """It runs while the long one is not at its end; what is behind the long one in its own lane waits."""
    first, second = api.new_model(), api.new_model()
    with engine.hold("forward_backward") as begun, engine.hold("optim_step") as turn:
        ids = [
            api.post("forward_backward", large(api, first, 1))["request_id"],
            api.post("optim_step", api.optim_step(first, 2))["request_id"],
            api.post("optim_step", api.optim_step(second, 1))["request_id"],
        ]
        assert begun.reached.wait(10)
        begun.release()
        assert turn.reached.wait(10)
        assert engine.operations(second)[-1] == "optim_step"
        assert engine.operations(first)[-1] == "forward_backward"
        assert api.server._parts().service.futures.find(ids[0]).explain() == "running"
    results = [api.result(request_id) for request_id in ids]
    assert len(results[0]["loss_fn_outputs"]) == 3
    assert results[1]["metrics"]["grad_norm:mean"] == 3


def test_samples_have_their_turn_between_two_steps(api, engine):
    """A sampler is a lane like any other."""
    model, sampler = api.new_model(), api.sampler(api.session())
    with engine.hold("forward_backward") as begun, engine.hold("sample") as turn:
        long = api.post("forward_backward", large(api, model, 1))["request_id"]
        assert begun.reached.wait(10)
        sampled = api.post("asample", api.sample(sampler, 0))["request_id"]
        begun.release()
        assert turn.reached.wait(10)
        assert api.server._parts().service.futures.find(long).explain() == "running"
    assert "sequences" in api.result(sampled)
    assert "loss_fn_outputs" in api.result(long)


def test_the_work_of_a_finished_session_is_dropped(slow, engine):
    """Between two steps and in the queue, training and samples; the model stays as it was until it is freed."""
    session = slow.session()
    model, sampler = slow.model(session), slow.sampler(session)
    with engine.hold("forward_backward") as begun:
        ids = [
            slow.post("forward_backward", large(slow, model, 1))["request_id"],
            slow.post("optim_step", slow.optim_step(model, 2))["request_id"],
            slow.post("asample", slow.sample(sampler, 0))["request_id"],
        ]
        assert begun.reached.wait(10)
        finish(slow, session)
    failures = [slow.result(request_id) for request_id in ids]
    assert all("was finished (errored), so this was" in failure["error"] for failure in failures)
    assert {failure["category"] for failure in failures} == {"user"}
    slow.run("optim_step", slow.optim_step(slow.new_model(), 1))
    assert engine.operations(model) == ["create_model", "forward_backward", "drop_model"]
    assert engine.operations(sampler) == []


def test_a_model_of_a_finished_session_is_not_made(slow, engine):
    """Its creation was queued behind the work of others."""
    session, other = slow.session(), slow.new_model()
    with engine.hold("optim_step") as held:
        slow.post("optim_step", slow.optim_step(other, 1))
        assert held.reached.wait(10)
        body = {"session_id": session, "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
        promise = slow.post("create_model", body)
        finish(slow, session)
    assert "was finished" in slow.result(promise["request_id"])["error"]
    assert "create_model" not in engine.operations(promise["model_id"])


def test_the_work_of_a_session_that_fell_silent_is_dropped(slow, engine, now):
    """It was heard of regularly and then no more: the failures say for how long, and the model is as before."""
    session = slow.session()
    model, sampler = slow.model(session), slow.sampler(session)
    beat(slow, session)
    with engine.hold("forward_backward") as begun:
        ids = [
            slow.post("forward_backward", large(slow, model, 1))["request_id"],
            slow.post("optim_step", slow.optim_step(model, 2))["request_id"],
            slow.post("asample", slow.sample(sampler, 0))["request_id"],
        ]
        assert begun.reached.wait(10)
        let_pass(slow, now, SILENCE_S + 5)
    assert all("silent for 65 s" in failure["error"] for failure in outcomes(slow, ids))
    assert engine.operations(model) == ["create_model", "forward_backward"]
    assert engine.operations(sampler) == []
    step = slow.run("optim_step", slow.optim_step(model, 3))
    assert step["metrics"]["grad_norm:mean"] == 0


def test_what_was_sent_before_an_operation_was_dropped_does_not_run(slow, engine, now):
    """A client that comes back shall not find that its step was made without its gradient; what it sends then runs."""
    session = slow.session()
    model, other = slow.model(session), slow.new_model()
    beat(slow, session)
    with engine.hold("forward_backward") as begun:
        dropped = slow.post("forward_backward", large(slow, model, 1))["request_id"]
        behind = slow.post("optim_step", slow.optim_step(model, 2))["request_id"]
        assert begun.reached.wait(10)
        with engine.hold("optim_step") as turn:
            slow.post("optim_step", slow.optim_step(other, 1))
            let_pass(slow, now, SILENCE_S + 1)
            begun.release()
            assert turn.reached.wait(10)
            # The long operation is between two steps, and finds its session silent at its next turn.
            with engine.hold("forward_backward") as last:
                slow.post("forward_backward", slow.forward_backward(other, 2))
                turn.release()
                assert last.reached.wait(10)
                beat(slow, session)
    assert "silent" in slow.result(dropped)["error"]
    assert "sent before this one was dropped" in slow.result(behind)["error"]
    for path, body in (
        ("forward_backward", slow.forward_backward(model, 3)),
        ("optim_step", slow.optim_step(model, 4)),
    ):
        result = slow.run(path, body)
        assert "error" not in result
    assert result["metrics"]["grad_norm:mean"] == 1


def test_a_session_with_heartbeats_never_loses_work(slow, engine, now):
    """However long it takes."""
    session = slow.session()
    model = slow.model(session)
    beat(slow, session)
    with engine.hold("forward_backward") as begun:
        ids = [
            slow.post("forward_backward", large(slow, model, 1))["request_id"],
            slow.post("optim_step", slow.optim_step(model, 2))["request_id"],
        ]
        assert begun.reached.wait(10)
        for _ in range(10):
            let_pass(slow, now, SILENCE_S - 1)
            beat(slow, session)
    assert all("error" not in result for result in outcomes(slow, ids))


def test_a_session_that_never_sent_a_heartbeat_never_loses_work(slow, engine, now):
    """Whoever speaks plain HTTP may submit an operation and come back for the result."""
    model, sampler = slow.new_model(), slow.sampler(slow.session())
    with engine.hold("forward_backward") as begun:
        ids = [
            slow.post("forward_backward", large(slow, model, 1))["request_id"],
            slow.post("optim_step", slow.optim_step(model, 2))["request_id"],
            slow.post("asample", slow.sample(sampler, 0))["request_id"],
        ]
        assert begun.reached.wait(10)
        let_pass(slow, now, 10 * SILENCE_S)
    assert all("error" not in result for result in outcomes(slow, ids))


def test_a_server_that_was_stopped_blames_no_client(slow, engine, now):
    """Time in which the process did not run, as under Ctrl-Z or in a debugger, is no silence."""
    session = slow.session()
    model = slow.model(session)
    beat(slow, session)
    with engine.hold("forward_backward") as begun:
        promise = slow.post("forward_backward", large(slow, model, 1))["request_id"]
        assert begun.reached.wait(10)
        now[0] += 100 * SILENCE_S
        store_of(slow).tick()
    (result,) = outcomes(slow, [promise])
    assert "loss_fn_outputs" in result


@pytest.mark.parametrize("bulk", [False, True])
def test_a_request_that_is_held_open_is_a_sign_of_life(serve, engine, now, monkeypatch, bulk):
    """Whoever waits for a result is there, also without heartbeats; when it is answered, the silence begins anew."""
    limits = Limits(session_s=SILENCE_S, hold_s=60, gap_s=10_000, bulk_retrieval=True)
    api = serve(limits, clock=lambda: now[0])
    session = api.session()
    model, sampler = api.model(session), api.sampler(session)
    beat(api, session)
    store, held_open = store_of(api), threading.Event()
    polled = store.polled

    @contextlib.contextmanager
    def noticed(session_id):
        with polled(session_id):
            held_open.set()
            yield

    monkeypatch.setattr(store, "polled", noticed)
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
    with engine.hold("forward_backward") as begun, contextlib.ExitStack() as end:
        ids = [
            api.post("forward_backward", large(api, model, 1))["request_id"],
            api.post("asample", api.sample(sampler, 0))["request_id"],
        ]
        assert begun.reached.wait(10)
        wanted = {"target": target, "prev_cursor": 0} if bulk else {"request_id": ids[0]}
        poll = threading.Thread(target=poll_once, args=(api, "retrieve_futures" if bulk else "retrieve_future", wanted))
        poll.start()
        end.callback(poll.join)
        assert held_open.wait(10)
        let_pass(api, now, 10 * SILENCE_S)
        begun.release()
        assert all("error" not in result for result in outcomes(api, ids))
    assert store.silent_s(store.session(session)) == 0
    let_pass(api, now, 7)
    assert store.silent_s(store.session(session)) == 7


def poll_once(api, path, body):
    """Ask for results on a connection of its own."""
    own = type(api)(api.server)
    own.post(path, body)
    own.http.close()


def test_looking_at_a_session_is_no_sign_of_its_life(slow, now):
    """Whoever lists runs and sessions is somebody else."""
    session = slow.session()
    slow.model(session)
    let_pass(slow, now, 5)
    for path in (f"sessions/{session}", "sessions", "training_runs"):
        slow.get(path)
    store = store_of(slow)
    assert store.silent_s(store.session(session)) == 5


def test_the_server_counts_how_long_it_listens(serve):
    """Its own loop does, and nothing else moves the time here."""
    api = serve()
    store, session = store_of(api), api.session()
    before = store.silent_s(store.session(session))
    while store.silent_s(store.session(session)) == before:
        threading.Event().wait(0.001)
