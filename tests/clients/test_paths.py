"""Paths that a server has made in its own form."""

from __future__ import annotations

import pytest

import tinkex
from tests.clients.stand_in import BASE, RUN, StandIn, running
from tinkex import types
from tinkex.recipes.recovery import SavePoint

WAIT = 30.0
FORMS = ["tinker://{run}/checkpoints/{name}", "tinker://{run}/{name}", "twinkle://{run}/{kind}/{name}", "/data/{name}"]
SHORT = f"tinker://{RUN}/one"


@pytest.fixture
def server():
    """A server that others have written."""
    with running(StandIn()) as server:
        yield server


@pytest.fixture
def service(server):
    """A client of it."""
    once = tinkex.RetryPolicy(max_attempts=2, initial_wait_s=0.0)
    settings = {"base_url": server.url, "api_key": "k", "telemetry": False, "retry": once, "wire": "json"}
    with tinkex.ServiceClient(**settings) as service:
        yield service


@pytest.mark.parametrize("form", FORMS)
def test_a_path_goes_back_to_the_server_that_made_it(server, service, form):
    """Restoring, loading, sampling, asking and copying send it as it came."""
    server.form = form
    train = service.create_lora_training_client(BASE, rank=4)
    path = train.save_state("one").result(WAIT).path
    assert form.format(run=RUN, kind="weights", name="one") == path
    for load in (train.load_state, train.load_state_with_optimizer):
        load(path).result(WAIT)
    for restore in (
        service.create_training_client_from_state,
        service.create_training_client_from_state_with_optimizer,
    ):
        assert BASE == restore(path).base_model
    assert [path] * 4 == [body["path"] for body in server.bodies("load_weights")]
    to_sample = train.save_weights_for_sampler("two").result(WAIT).path
    train.create_sampling_client(to_sample)
    service.create_sampling_client(to_sample)
    train.save_weights_and_get_sampling_client("three")
    asked = [body["model_path"] for body in server.bodies("create_sampling_session")]
    assert [to_sample, to_sample, form.format(run=RUN, kind="sampler_weights", name="three")] == asked
    rest = service.create_rest_client()
    assert 4 == rest.get_weights_info_by_tinker_path(path).result(WAIT).lora_rank
    for copying in (service.copy_weights(path), rest.copy_weights(path, "project")):
        with pytest.raises(tinkex.NotFoundError):
            copying.result(WAIT)
    assert [path] * 2 == [body["source_path"] for body in server.bodies("copy_weights")]
    assert path == SavePoint(step=1, path=path).path


CALLS = {
    "archive": ("GET", lambda rest, path: rest.get_checkpoint_archive_url_from_tinker_path(path), "/archive"),
    "delete": ("DELETE", lambda rest, path: rest.delete_checkpoint_from_tinker_path(path), ""),
    "publish": ("POST", lambda rest, path: rest.publish_checkpoint_from_tinker_path(path), "/publish"),
    "unpublish": ("DELETE", lambda rest, path: rest.unpublish_checkpoint_from_tinker_path(path), "/publish"),
    "ttl": ("PUT", lambda rest, path: rest.set_checkpoint_ttl_from_tinker_path(path, 3600), "/ttl"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("listed", ["tinker://{run}/{kind}/{name}", "tinker://{run}/{name}"])
def test_where_a_request_needs_the_parts_of_a_path_the_listing_of_the_run_has_them(server, service, call, listed):
    """By the path as it stands there, or by its last part."""
    method, ask, end = CALLS[call]
    server.saved, server.listed = [("weights", "zero"), ("sampler_weights", "one")], listed
    ask(service.create_rest_client(), SHORT).result(WAIT)
    assert f"training_runs/{RUN}/checkpoints/sampler_weights/one{end}" in server.paths(method)


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("path", [SHORT, f"tinker://{RUN}/sampler_weights/one"])
def test_a_server_that_knows_no_kinds_in_one_request_and_wants_them_in_another_is_asked_accordingly(
    server, service, path, status
):
    """An archive is asked for by the name alone if the server has no such endpoint for the whole id."""
    server.saved, server.bare = [("sampler_weights", "one")], True
    server.nothing = status, {"detail": "Not Found" if status == 404 else "Method Not Allowed"}
    rest = service.create_rest_client()
    assert rest.get_checkpoint_archive_url_from_tinker_path(path).result(WAIT).url == "http://files.test/archive"
    rest.delete_checkpoint_from_tinker_path(path).result(WAIT)
    checkpoints = f"training_runs/{RUN}/checkpoints"
    archives = [path for path in server.paths("GET") if path.endswith("/archive")]
    assert [f"{checkpoints}/sampler_weights/one/archive", f"{checkpoints}/one/archive"] == archives
    assert [f"{checkpoints}/sampler_weights/one"] == server.paths("DELETE")


def test_an_archive_that_is_nowhere_is_not_found_under_the_id_that_was_asked_for(server, service):
    """What the second attempt says is not what the caller asked."""
    server.missing = {f"training_runs/{RUN}/checkpoints/{name}/archive" for name in ("weights/one", "one")}
    asking = service.create_rest_client().get_checkpoint_archive_url_from_tinker_path(f"tinker://{RUN}/weights/one")
    with pytest.raises(tinkex.NotFoundError, match="weights/one/archive"):
        asking.result(WAIT)


def test_a_path_that_says_all_is_not_looked_up(server, service):
    """No listing is asked for."""
    service.create_rest_client().delete_checkpoint_from_tinker_path(f"tinker://{RUN}/weights/one").result(WAIT)
    assert [] == server.paths("GET")


def test_the_run_of_a_path_is_in_any_form(server, service):
    """Its first part."""
    assert RUN == service.create_rest_client().get_training_run_by_tinker_path(SHORT).result(WAIT).training_run_id


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (
            [("weights", "two")],
            rf"run '{RUN}' has no checkpoint of this path or name; it has tinker://{RUN}/weights/two",
        ),
        ([], r"no checkpoint of this path or name; it has none"),
        (
            [("weights", "one"), ("sampler_weights", "one")],
            rf"it can mean tinker://{RUN}/weights/one, tinker://{RUN}/sampler_weights/one: pass the one that is meant",
        ),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_path_that_the_listing_does_not_explain_is_refused_with_what_it_has(server, service, saved, said, call):
    """The error names the path, what was looked for and the way out; nothing is done to any checkpoint."""
    server.saved = saved
    with pytest.raises(tinkex.InvalidInputError, match=said) as caught:
        CALLS[call][1](service.create_rest_client(), SHORT).result(WAIT)
    assert repr(SHORT) in str(caught.value)
    assert "list_checkpoints" in str(caught.value)
    assert [f"training_runs/{RUN}/checkpoints"] == [path for path in server.paths("GET") if RUN in path]


def test_a_run_that_cannot_be_listed_is_named(server, service):
    """With what the server said."""
    server.missing.add(f"training_runs/{RUN}/checkpoints")
    with pytest.raises(tinkex.InvalidInputError, match=f"'{RUN}' of the path cannot be listed .*404"):
        service.create_rest_client().delete_checkpoint_from_tinker_path(SHORT).result(WAIT)


@pytest.mark.parametrize("path", ["one", "weights/one", "tinker://", f"tinker://{RUN}", "/data/one"])
@pytest.mark.parametrize("call", CALLS)
def test_a_path_that_names_no_run_is_refused_where_one_is_needed(server, service, path, call):
    """At the call."""
    with pytest.raises(tinkex.InvalidInputError, match="it names no training run"):
        CALLS[call][1](service.create_rest_client(), path)
    assert [] == server.asked


@pytest.mark.parametrize("nothing", [None, "", " ", 5, b"tinker://m/weights/a"])
def test_what_is_no_text_is_no_path(server, service, nothing):
    """Every call that takes a path says so."""
    rest = service.create_rest_client()
    calls = [
        service.create_training_client_from_state,
        service.create_training_client_from_state_with_optimizer,
        service.copy_weights,
        rest.get_weights_info_by_tinker_path,
        rest.get_training_run_by_tinker_path,
        rest.get_external_weights_urls,
        *(lambda path, ask=ask: ask(rest, path) for _, ask, _ in CALLS.values()),
    ]
    for call in calls:
        with pytest.raises(tinkex.InvalidInputError, match="path must be the path of a checkpoint as the server"):
            call(nothing)
    assert [] == server.asked


@pytest.mark.parametrize("without", [set(), {"get_info"}, {"get_info", "weights_info"}])
@pytest.mark.parametrize("one_call", [True, False])
def test_a_model_is_restored_on_a_server_that_tells_little(server, service, monkeypatch, without, one_call):
    """Its base model comes from whatever the server can be asked: the model, the checkpoint or its run."""
    monkeypatch.setattr(service._session.settings, "restores_in_one_call", lambda: one_call)
    server.missing |= without
    assert BASE == service.create_training_client_from_state(f"tinker://{RUN}/checkpoints/one").base_model


def test_a_restored_model_works_although_the_server_does_not_tell_its_base_model(server, service, monkeypatch):
    """What the caller said counts then; without it the name is empty, and operations go on."""
    monkeypatch.setattr(service._session.settings, "restores_in_one_call", lambda: True)
    server.missing |= {"get_info", "weights_info", f"training_runs/{RUN}"}
    assert "" == service.create_training_client_from_state(SHORT).base_model
    train = service.create_training_client_from_state(SHORT, BASE)
    assert BASE == train.base_model
    assert train.optim_step(types.AdamParams()).result(WAIT).metrics == {}


def test_a_server_that_tells_nothing_of_a_checkpoint_needs_the_model_to_be_made_by_hand(server, service, monkeypatch):
    """The error names the two calls."""
    monkeypatch.setattr(service._session.settings, "restores_in_one_call", lambda: False)
    server.missing |= {"weights_info", f"training_runs/{RUN}"}
    for path in (SHORT, "/data/one"):
        with pytest.raises(tinkex.ConfigurationError, match=r"create_lora_training_client\(base_model, rank=...\)"):
            service.create_training_client_from_state(path)


@pytest.mark.parametrize(
    "page",
    [
        types.SaveWeightsResponse(path=SHORT).get_console_url,
        types.SaveWeightsForSamplerResponse(path=SHORT).get_console_url,
        types.SaveWeightsForSamplerResponse(path=SHORT).get_playground_url,
    ],
)
def test_only_checkpoints_of_the_hosted_service_have_a_page(page):
    """The error says which form its paths have."""
    with pytest.raises(
        tinkex.InvalidInputError, match=rf"'{SHORT}' is of another server: there they are tinker://<run>"
    ):
        page()
