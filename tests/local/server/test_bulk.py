"""Asking for many samples at once, giving up on some, and sharing a sampler."""

from __future__ import annotations

import threading

import pytest

from tinkex.local import Limits


@pytest.fixture
def bulk(serve):
    """A server that offers retrieve_futures, and a sampler of it."""
    api = serve(Limits(bulk_retrieval=True, hold_s=60))
    return api, api.sampler(api.session())


def ask(api, sampler, cursor=0, **more):
    """Ask which samples have ended."""
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": more.pop("clone", 0)}
    return api.post("retrieve_futures", {"target": target, "prev_cursor": cursor, **more})


def test_clients_are_told_that_they_may_ask_for_many(bulk, api):
    """The setting goes with the option, and without it the path is as good as not there."""
    assert bulk[0].post("client/config", {})["sample_use_retrieve_futures"] is True
    assert "sample_use_retrieve_futures" not in api.post("client/config", {})
    assert "retrieve_future" in api.post("retrieve_futures", {}, status=404)["detail"]


def test_what_has_ended_is_told_until_it_is_acknowledged(bulk):
    """In the order of the ends, again to who asks with the old cursor, and never after the new one."""
    api, sampler = bulk
    for seq in range(3):
        api.run("asample", api.sample(sampler, seq))
    first = ask(api, sampler)
    while len(first["completions"]) < 3:  # a result may be there before it is told of
        first = ask(api, sampler)
    assert [done["request_id"] for done in first["completions"]] == [f"{sampler}:{seq}" for seq in range(3)]
    assert all(done["response_payload_uncompressed_size"] > 10 for done in first["completions"])
    assert ask(api, sampler, cursor=first["cursor"] - 1)["completions"] == first["completions"][2:]
    assert ask(api, sampler, cursor=first["cursor"], timeout=0) == {"completions": [], "cursor": 3}
    api.run("asample", api.sample(sampler, 9))
    assert [done["request_id"] for done in ask(api, sampler, cursor=3)["completions"]] == [f"{sampler}:9"]


def test_a_failed_sample_is_told_as_failed(bulk):
    """Its words are where the result would have been."""
    api, sampler = bulk
    bad = api.sample(sampler, 0) | {"prompt": {"chunks": [{"tokens": [9999]}]}}
    promise = api.post("asample", bad)
    assert ask(api, sampler)["completions"] == [{"state": "failed", "request_id": promise["request_id"]}]
    assert "9999" in api.result(promise["request_id"])["error"]


def test_who_asks_waits_for_the_next_end(bulk, engine):
    """The answer comes when a sample ends, not when the time is up."""
    api, sampler = bulk
    completions, waits, answers = api.server._parts().service.completions, threading.Event(), []
    since = completions.since

    def noticed(*given):
        answer = since(*given)
        waits.set()
        return answer

    completions.since = noticed
    asking = threading.Thread(target=lambda: answers.append(ask(api, sampler)))
    with engine.hold("sample") as held:
        promise = api.post("asample", api.sample(sampler, 0))
        assert held.reached.wait(10)
        asking.start()
        assert waits.wait(10)
    asking.join(10)
    assert [done["request_id"] for done in answers[0]["completions"]] == [promise["request_id"]]


def test_each_client_of_a_sampler_hears_of_its_own_samples(bulk):
    """The number of the client is that of the sample, in thousand millions."""
    api, sampler = bulk
    own, other = api.sample(sampler, 5), api.sample(sampler, 7 * 10**9 + 5)
    for body in (own, other):
        api.run("asample", body)
    assert [done["request_id"] for done in ask(api, sampler)["completions"]] == [f"{sampler}:5"]
    assert [done["request_id"] for done in ask(api, sampler, clone=7)["completions"]] == [f"{sampler}:7000000005"]


def test_results_that_were_fetched_are_not_kept(bulk):
    """Only those of the sampler that is asked about."""
    api, sampler = bulk
    stranger = api.sampler(api.session())
    mine, theirs = (api.post("asample", api.sample(one, 0))["request_id"] for one in (sampler, stranger))
    for request_id in (mine, theirs):
        api.result(request_id)
    ask(api, sampler, cursor=1, timeout=0, retrieved_request_ids=[mine, theirs])
    api.post("retrieve_future", {"request_id": mine}, status=410)
    assert "sequences" in api.result(theirs)
    assert "unknown" in api.post("retrieve_futures", {"target": {"sampling_session_id": "no"}}, status=404)["detail"]


def test_a_sample_that_has_not_begun_is_not_drawn(api, engine):
    """Its future fails at once, and the engine never hears of it."""
    session = api.session()
    sampler, model = api.sampler(session), api.model(session)
    with engine.hold("optim_step") as held:
        api.post("optim_step", api.optim_step(model, 1))
        assert held.reached.wait(10)
        doomed, kept = (api.post("asample", api.sample(sampler, seq))["request_id"] for seq in range(2))
        assert api.post("cancel_future", {"request_id": doomed}) == {}
        assert "cancelled" in api.result(doomed)["error"]
    assert "sequences" in api.result(kept)
    assert sum(call.size for call in engine.calls if call.target == sampler and call.operation == "sample") == 1


def test_what_cannot_be_taken_back_goes_on(api, engine):
    """A number of a model must not be lost, and what has begun or has ended stays as it is."""
    session = api.session()
    sampler, model, other = api.sampler(session), api.model(session, 0), api.model(session, 1)
    sampled = api.post("asample", api.sample(sampler, 0))["request_id"]
    api.result(sampled)
    with engine.hold("optim_step") as held:
        begun = api.post("optim_step", api.optim_step(model, 1))["request_id"]
        assert held.reached.wait(10)
        queued = api.post("optim_step", api.optim_step(other, 1))["request_id"]
        for request_id in (begun, queued, sampled):
            assert api.post("cancel_future", {"request_id": request_id}) == {}
    assert "metrics" in api.result(begun)
    assert "metrics" in api.result(queued)
    assert "sequences" in api.result(sampled)
    api.post("cancel_future", {"request_id": "none"}, status=404)


def test_clients_that_join_a_sampler_get_numbers_of_their_own(api):
    """1, 2, 3, ...; the client that made it is 0."""
    sampler = api.sampler(api.session())
    numbers = [api.post("join_sampling_session", {"sampling_session_id": sampler})["client_counter"] for _ in "ab"]
    assert numbers == [1, 2]
    api.post("join_sampling_session", {"sampling_session_id": "none"}, status=404)
