"""RestClient over a real socket."""

from __future__ import annotations

import datetime
import inspect

import pytest
import requests

import tinkex
from tinkex import types

BASE = "acme/small"
WAIT = 30.0


@pytest.fixture
def saved(stage):
    """A training checkpoint and a sampler checkpoint of one model."""
    train = stage.train()
    return train.save_state("a").result(WAIT).path, train.save_weights_for_sampler("b").result(WAIT).path


IDS = {
    "get_training_run": ("training_run_id",),
    "list_checkpoints": ("training_run_id",),
    "get_checkpoint_archive_url": ("training_run_id", "checkpoint_id"),
    "delete_checkpoint": ("training_run_id", "checkpoint_id"),
    "get_session": ("session_id",),
    "assign_session_project": ("session_id", "project_id"),
    "export_session_trace": ("session_id",),
    "get_sampler": ("sampler_id",),
}


@pytest.mark.parametrize("nothing", [None, 5, b"x", "", "..", "a//b"])
@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in IDS.items() for name in names])
def test_what_is_no_id_is_refused_at_the_call(method, name, nothing):
    """The error names the argument, and nothing is sent."""
    with tinkex.RestClient(base_url="http://127.0.0.1:1", api_key="k") as rest:
        arguments = {each: nothing if each == name else "x" for each in IDS[method]}
        with pytest.raises(tinkex.InvalidInputError, match=f"{name} must be a non-empty id, got ") as caught:
            getattr(rest, method)(**arguments)
    assert caught.value.field == name


def test_every_method_that_takes_an_id_is_looked_at():
    """None is left out above."""
    methods = vars(tinkex.RestClient)
    taking = {
        name: tuple(each for each in inspect.signature(method).parameters if each.endswith("_id"))
        for name, method in methods.items()
        if inspect.isfunction(method) and not name.startswith("_") and not name.endswith("_async")
    }
    optional = {"list_training_runs", "iter_training_runs", "copy_weights"}
    assert {name: ids for name, ids in taking.items() if ids and name not in optional} == IDS


def test_checkpoints_are_listed_with_their_paths(stage, saved):
    """Both listings name both checkpoints, the newest first in that of the account."""
    rest = stage.service.create_rest_client()
    run_id = saved[0].split("/")[2]
    by_run = rest.list_checkpoints(run_id).result(WAIT).checkpoints
    by_user = rest.list_user_checkpoints(limit=1).result(WAIT)
    assert set(saved) == {checkpoint.tinker_path for checkpoint in by_run}
    assert {"weights/a", "sampler_weights/b"} == {checkpoint.checkpoint_id for checkpoint in by_run}
    assert (1, 2) == (len(by_user.checkpoints), by_user.cursor.total_count)


def test_a_checkpoint_can_be_published_timed_and_deleted(stage, saved):
    """Each change shows in the listing."""
    rest, path = stage.service.create_rest_client(), saved[0]

    def shown():
        listed = rest.list_checkpoints(path.split("/")[2]).result(WAIT).checkpoints
        return next((checkpoint for checkpoint in listed if checkpoint.tinker_path == path), None)

    assert rest.publish_checkpoint_from_tinker_path(path).result(WAIT) is None
    assert shown().public
    rest.unpublish_checkpoint_from_tinker_path(path).result(WAIT)
    assert not shown().public
    rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result(WAIT)
    assert shown().expires_at > datetime.datetime.now(datetime.timezone.utc)
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result(WAIT)
    assert shown().expires_at is None
    rest.delete_checkpoint_from_tinker_path(path).result(WAIT)
    assert shown() is None
    with pytest.raises(tinkex.NotFoundError):
        rest.delete_checkpoint_from_tinker_path(path).result(WAIT)


def test_runs_sessions_and_samplers_can_be_looked_up(stage, saved):
    """What was made is found again by its id."""
    rest = stage.service.create_rest_client()
    run = rest.get_training_run_by_tinker_path(saved[0]).result(WAIT)
    assert run == next(iter(rest.list_training_runs().result(WAIT).training_runs))
    assert ("acme/small", saved[0], saved[1]) == (
        run.base_model,
        run.last_checkpoint.tinker_path,
        run.last_sampler_checkpoint.tinker_path,
    )
    assert 4 == rest.get_weights_info_by_tinker_path(saved[0]).result(WAIT).lora_rank
    sampler = stage.service.create_sampling_client(model_path=saved[1])
    session_id = rest.list_sessions().result(WAIT).sessions[0]
    session = rest.get_session(session_id).result(WAIT)
    assert [run.training_run_id] == session.training_run_ids
    assert saved[1] == rest.get_sampler(session.sampler_ids[-1]).result(WAIT).model_path
    assert saved[1] in repr(sampler)


def test_an_archive_url_is_found_and_expires_later(stage, saved):
    """The address of the archive comes with the time until which it is good."""
    rest = stage.service.create_rest_client()
    answer = rest.get_checkpoint_archive_url_from_tinker_path(saved[1]).result(WAIT)
    assert answer.url.startswith("http")
    assert answer.expires > datetime.datetime.now(datetime.timezone.utc)


def test_lookups_need_no_session(stage):
    """A RestClient alone opens no session on the server."""
    with stage.new_service() as service:
        service.create_rest_client().list_training_runs().result(WAIT)
        assert "no session yet" in repr(service)
        assert stage.server.base_url in repr(service.create_rest_client())


def test_a_rest_client_can_be_made_without_a_service(stage):
    """It reads the same settings, opens no session, and ends its threads when it is left."""
    before = len(stage.service.create_rest_client().list_sessions().result(WAIT).sessions)
    with tinkex.RestClient(base_url=stage.server.base_url, api_key=stage.server.api_key) as rest:
        assert BASE == rest.get_server_capabilities().result(WAIT).supported_models[0].model_name
        assert before == len(rest.list_sessions().result(WAIT).sessions)
        assert rest is rest.result()
    with pytest.raises(tinkex.ClientClosedError):
        rest.list_sessions()
    with pytest.raises(tinkex.ConfigurationError, match="either config= or single settings"):
        tinkex.RestClient(config=stage.service.config, api_key="tml-x")


def test_closing_the_rest_client_of_a_service_leaves_the_service_open(stage):
    """The connection is not its own."""
    with stage.service.create_rest_client() as rest:
        rest.list_sessions().result(WAIT)
    rest.list_sessions().result(WAIT)


def test_all_checkpoints_and_runs_come_without_paging(stage):
    """Pages are fetched as they are needed, and nothing is missing or twice."""
    train, other = stage.train(), stage.train()
    names = [f"c{number}" for number in range(5)]
    paths = [train.save_state(name).result(WAIT).path for name in names]
    rest = stage.service.create_rest_client()
    found = rest.iter_checkpoints(page_size=2)
    asked = stage.faults.count("checkpoints")
    assert paths[-1] == next(found).tinker_path
    assert asked + 1 == stage.faults.count("checkpoints")
    assert paths[-2::-1] == [checkpoint.tinker_path for checkpoint in found]
    assert asked + 3 == stage.faults.count("checkpoints")
    runs = rest.iter_training_runs(page_size=1)
    assert {train.model_id, other.model_id} == {run.training_run_id for run in runs}
    assert [] == list(rest.iter_training_runs(project_id="none"))


def test_lookups_say_whose_things_they_want(stage, saved):
    """The scope travels; the embedded server has one owner and does not mind."""
    rest, run_id = stage.service.create_rest_client(), saved[0].split("/")[2]
    session_id = run_id.split(":")[0]
    for call in (
        lambda: rest.get_training_run(run_id, "accessible"),
        lambda: rest.get_training_run_by_tinker_path(saved[0], access_scope="accessible"),
        lambda: rest.list_training_runs(access_scope="accessible"),
        lambda: rest.get_session(session_id, "accessible"),
        lambda: rest.list_sessions(5, 0, "accessible"),
    ):
        assert call().result(WAIT)


def test_a_session_is_found_moved_and_drawn(stage):
    """By what was said when it was made; its trace can be fetched without a key."""
    with stage.new_service(display_name="Nightly", user_metadata={"exp": "7"}) as service:
        run_id = service.create_lora_training_client(BASE, rank=4).model_id
        rest, session_id = service.create_rest_client(), run_id.split(":")[0]
        wanted = types.SessionSearchRequest(display_name="night", user_metadata={"exp": "7"})
        (found,) = rest.search_sessions(wanted).result(WAIT).sessions
        assert (session_id, types.SessionActive()) == (found.session_id, found.status)
        assert rest.search_sessions().result(WAIT).sessions
        rest.assign_session_project(session_id, "p").result(WAIT)
        assert [run_id] == [run.training_run_id for run in rest.iter_training_runs(project_id="p")]
        url = rest.export_session_trace(session_id).result(WAIT)
    # The server has ended nothing with the session: the link is good.
    assert "create_model" in requests.get(url, timeout=10).text


def test_a_trace_that_is_being_built_is_waited_for(stage, monkeypatch):
    """The future is done when the trace is; a failure is told in the server's words."""
    monkeypatch.setattr("tinkex.clients.rest._TRACE_POLL_S", 0.001)
    session_id, rest = stage.train().model_id.split(":")[0], stage.service.create_rest_client()
    stage.faults.answer(200, path="*/trace_export", times=2, body=b'{"status": "pending"}')
    assert rest.export_session_trace(session_id).result(WAIT).startswith("http")
    stage.faults.answer(200, path="*/trace_export", body=b'{"status": "failed", "error": "no disk"}')
    with pytest.raises(tinkex.RequestFailedError, match="no disk"):
        rest.export_session_trace(session_id).result(WAIT)


def test_a_copy_needs_a_place(stage, saved, monkeypatch):
    """A project for a RestClient; a ServiceClient without one copies into its session."""
    rest = stage.service.create_rest_client()
    with pytest.raises(tinkex.InvalidInputError, match="TINKER_PROJECT_ID"):
        rest.copy_weights(saved[0])
    copy = rest.copy_weights(saved[0], "p", ttl_seconds=3600).result(WAIT)
    assert copy.endswith("/weights/a")
    monkeypatch.setenv("TINKER_PROJECT_ID", "q")
    with tinkex.RestClient(base_url=stage.server.base_url, api_key=stage.server.api_key) as other:
        assert copy != other.copy_weights(copy).result(WAIT)
    monkeypatch.delenv("TINKER_PROJECT_ID")
    mine = stage.service.copy_weights(saved[1]).result(WAIT)
    session_id = saved[1].split("/")[2].split(":")[0]
    assert mine == f"tinker://{session_id}:train:1/sampler_weights/b"
    assert f"{session_id}:train:2" == stage.train().model_id


def test_external_weights_have_an_address_for_each_file(stage):
    """They are saved in the order of the other operations, and read back whole."""
    train, rest = stage.train(), stage.service.create_rest_client()
    path = train.save_weights_external("out", ttl_seconds=3600).result(WAIT).path
    assert f"tinker://{train.model_id}/external_weights/out" == path
    files = rest.get_external_weights_urls(path).result(WAIT)
    assert {"adapter_config.json", "adapter_model.safetensors"} == set(files.urls)
    assert 4 == requests.get(files.urls["adapter_config.json"], timeout=10).json()["rank"]
    for wrong in (path.replace("external_", ""), "nonsense"):
        with pytest.raises(tinkex.InvalidInputError):
            rest.get_external_weights_urls(wrong)
    with pytest.raises(tinkex.InvalidInputError, match="a list of texts"):
        train.save_weights_external("x", age_encryption_recipients="age1x")
    with pytest.raises(tinkex.RequestFailedError, match="does not encrypt"):
        train.save_weights_external("x", age_encryption_recipients=["age1x"]).result(WAIT)
