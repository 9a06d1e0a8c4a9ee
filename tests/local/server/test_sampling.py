"""Samplers and samples."""

from __future__ import annotations

import pytest

from tinkex.errors import InvalidInputError
from tinkex.local import Limits


def test_a_sample_names_its_sequences(api):
    """Newest clients need an id for each sequence, in the order of the result."""
    sampler = api.sampler(api.session())
    promise = api.post("asample", api.sample(sampler, 0, num_samples=2))
    assert promise["sample_sequence_ids"] == [f"{sampler}:0:0", f"{sampler}:0:1"]
    assert promise["request_id"] == f"{sampler}:0"
    assert [len(item["tokens"]) for item in api.result(promise["request_id"])["sequences"]] == [2, 2]


def test_prompt_logprobs_come_once_and_only_if_asked_for(api):
    """Absent counts as no."""
    sampler = api.sampler(api.session())
    plain = api.run("asample", api.sample(sampler, 0))
    assert plain.get("prompt_logprobs") is None
    asked = api.run("asample", api.sample(sampler, 1, prompt_logprobs=True, topk_prompt_logprobs=2))
    assert asked["prompt_logprobs"] == [None, -1.0]
    assert asked["topk_prompt_logprobs"][1] == [[0, -1.0], [1, -2.0]]


def test_a_repeat_gets_the_original_sample(api, engine):
    """Also from a copy of a client, whose numbers are beyond 32 bits, and in any order."""
    sampler = api.sampler(api.session())
    seqs = [10**18 + 5, 0, 10**18 + 5]
    promises = [api.post("asample", api.sample(sampler, seq)) for seq in seqs]
    assert promises[0] == promises[2]
    for promise in promises:
        assert "sequences" in api.result(promise["request_id"])
    assert sum(call.size for call in engine.calls if call.target == sampler and call.operation == "sample") == 2


def test_queued_samples_of_a_sampler_run_as_one_batch(api, engine):
    """Up to 64 sequences together; others of the queue come after."""
    session = api.session()
    sampler, model = api.sampler(session), api.model(session)
    with engine.hold("optim_step") as held:
        api.post("optim_step", api.optim_step(model, 1))
        assert held.reached.wait(10)
        ids = [api.post("asample", api.sample(sampler, seq, num_samples=10))["request_id"] for seq in range(8)]
    for request_id in ids:
        assert len(api.result(request_id)["sequences"]) == 10
    assert [call.size for call in engine.calls if call.target == sampler and call.operation == "sample"] == [6, 2]


def test_a_bad_request_fails_alone(api, engine):
    """The others of its batch get their samples."""
    session = api.session()
    sampler, model = api.sampler(session), api.model(session)
    bad = api.sample(sampler, 1) | {"prompt": {"chunks": [{"tokens": [9999]}]}}
    with engine.hold("optim_step") as held:
        api.post("optim_step", api.optim_step(model, 1))
        assert held.reached.wait(10)
        bodies = [api.sample(sampler, 0), bad, api.sample(sampler, 2), api.sample(sampler, 3, topk_prompt_logprobs=99)]
        ids = [api.post("asample", body)["request_id"] for body in bodies]
    answers = [api.result(request_id) for request_id in ids]
    assert "9999" in answers[1]["error"]
    assert "the limit is 20" in answers[3]["error"]
    assert {answers[1]["category"], answers[3]["category"]} == {"user"}
    assert "sequences" in answers[0]
    assert "sequences" in answers[2]


def test_a_batch_that_breaks_is_run_again_one_by_one(api, engine):
    """One request that breaks the engine costs the others nothing."""
    session = api.session()
    sampler, model = api.sampler(session), api.model(session)
    engine.fail("sample", MemoryError("too much"))
    engine.fail("sample", MemoryError("too much"), nth=2)
    with engine.hold("optim_step") as held:
        api.post("optim_step", api.optim_step(model, 1))
        assert held.reached.wait(10)
        ids = [api.post("asample", api.sample(sampler, seq))["request_id"] for seq in range(2)]
    first, second = (api.result(request_id) for request_id in ids)
    assert "too much" in first["error"]
    assert "sequences" in second


def test_a_sampler_that_cannot_be_opened_fails_its_samples(api, engine):
    """The reason is the engine's."""
    sampler = api.sampler(api.session())
    engine.fail("open_sampler", InvalidInputError("wrong base"))
    assert api.run("asample", api.sample(sampler, 0)) == {"error": "wrong base", "category": "user"}
    assert "sequences" in api.run("asample", api.sample(sampler, 1))


def test_a_sampler_is_made_once_for_its_number(api):
    """A repeat returns the same; the same number for something else is a mistake."""
    session = api.session()
    body = {"session_id": session, "sampling_session_seq_id": 4, "base_model": "tinkex/tiny-0.9m"}
    first = api.post("create_sampling_session", body)
    assert first["sampling_session_id"] == f"{session}:sample:4"
    assert api.post("create_sampling_session", body) == first
    other = body | {"base_model": None, "model_path": f"tinkex://{session}:train:0/sampler_weights/x"}
    assert "already used" in api.post("create_sampling_session", other, status=400)["detail"]


@pytest.mark.parametrize(
    ("source", "status", "text"),
    [
        ({"base_model": "other"}, 400, "other"),
        ({"model_path": "tinker://a/b"}, 400, "tinker://<run>/"),
        ({"model_path": "tinker://s:train:0/weights/x"}, 400, "save_weights_for_sampler"),
        ({"model_path": "tinker://s:train:0/sampler_weights/x"}, 404, "deleted"),
        ({}, 422, "base_model"),
    ],
)
def test_a_sampler_of_nothing(api, source, status, text):
    """The answer says what to give instead."""
    body = {"session_id": api.session(), "sampling_session_seq_id": 0, **source}
    assert text in api.post("create_sampling_session", body, status=status)["detail"]


def test_sampling_without_a_sampler(api):
    """A base model or a path may stand in the request itself, but not both and not neither."""
    assert "sequences" in api.run("asample", api.sample(None, None, base_model="tinkex/tiny-0.9m"))
    for source in ({}, {"base_model": "tinkex/tiny-0.9m", "model_path": "tinker://a/sampler_weights/b"}):
        assert "exactly one" in api.post("asample", api.sample(None, None, **source), status=400)["detail"]


def test_too_many_samples_in_one_request(api):
    """The limit and the way out are named."""
    detail = api.post("asample", api.sample(api.sampler(api.session()), 0, num_samples=257), status=422)["detail"]
    assert "256" in detail


def test_an_unknown_sampler(api):
    """404 says what to do."""
    assert "create one" in api.post("asample", api.sample("s:sample:9", 0), status=404)["detail"]
    api.get("samplers/s:sample:9", status=404)


def test_an_unnamed_save_is_a_sampler_at_once(api, engine):
    """Its path is null and its weights are those of the moment."""
    session = api.session()
    model = api.model(session)
    save = {"model_id": model, "sampling_session_seq_id": 7, "path": None}
    made = api.run("save_weights_for_sampler", save | {"seq_id": 1})
    assert made.get("path") is None
    sampler = made["sampling_session_id"]
    assert sampler == f"{session}:sample:7"
    assert api.get(f"samplers/{sampler}") == {"sampler_id": sampler, "base_model": "tinkex/tiny-0.9m"}
    before = api.run("asample", api.sample(sampler, 0))
    api.run("optim_step", api.optim_step(model, 2))
    assert api.run("asample", api.sample(sampler, 1)) == before
    newer = api.run("save_weights_for_sampler", save | {"seq_id": 3, "sampling_session_seq_id": 8})
    assert api.run("asample", api.sample(newer["sampling_session_id"], 0)) != before
    clash = api.run("save_weights_for_sampler", save | {"seq_id": 4})
    assert "sampler already" in clash["error"]
    again = api.post("save_weights_for_sampler", save | {"seq_id": 3, "sampling_session_seq_id": 9})
    assert api.result(again["request_id"]) == newer


def test_a_named_sampler_keeps_its_weights(api):
    """It is made from what the checkpoint holds then; deleting the checkpoint later changes nothing."""
    session = api.session()
    model = api.model(session)
    saved = api.run("save_weights_for_sampler", {"model_id": model, "path": "one", "seq_id": 1})
    assert saved.get("sampling_session_id") is None
    path = saved["path"]
    assert path == f"tinker://{model}/sampler_weights/one"
    sampler = api.sampler(session, path)
    assert api.get(f"samplers/{sampler}")["model_path"] == path
    assert api.call("DELETE", f"training_runs/{model}/checkpoints/sampler_weights/one").status_code == 204
    assert "sequences" in api.run("asample", api.sample(sampler, 0))


def test_old_unnamed_weights_are_given_up(serve):
    """A long run does not fill the disk; the sampler says why it is gone."""
    api = serve(Limits(kept_snapshots=1))
    session = api.session()
    model = api.model(session)
    samplers = []
    for seq in (1, 2):
        body = {"model_id": model, "sampling_session_seq_id": seq, "seq_id": seq}
        samplers.append(api.run("save_weights_for_sampler", body)["sampling_session_id"])
    assert "newer ones" in api.run("asample", api.sample(samplers[0], 0))["error"]
    assert "sequences" in api.run("asample", api.sample(samplers[1], 0))
