"""A save whose answer was lost, on a server that tells saves apart by their names only."""

from __future__ import annotations

import logging

import pytest

import tinkex
from tests.clients.stand_in import BASE, RUN, StandIn, running
from tinkex import types

WAIT = 30.0
SAVES = {
    "save_state": ("save_weights", "weights"),
    "save_weights_for_sampler": ("save_weights_for_sampler", "sampler_weights"),
    "save_weights_external": ("save_weights_external", "external_weights"),
}
LISTING = f"training_runs/{RUN}/checkpoints"


@pytest.fixture
def server():
    """A server that others have written."""
    with running(StandIn()) as server:
        yield server


@pytest.fixture
def train(server):
    """A model on it."""
    retry = tinkex.RetryPolicy(initial_wait_s=0.0, max_elapsed_s=WAIT)
    with tinkex.ServiceClient(base_url=server.url, api_key="k", telemetry=False, retry=retry) as service:
        yield service.create_lora_training_client(BASE, rank=4)


@pytest.mark.parametrize("save", SAVES)
def test_the_echo_of_a_save_is_not_somebody_else_s_checkpoint(server, train, save):
    """The server calls the name taken, the listing has it: that is the checkpoint. The next number is the next."""
    endpoint, kind = SAVES[save]
    server.saved = [(other, "one") for _, other in SAVES.values() if other != kind]
    server.lost[endpoint] = 1
    assert f"tinker://{RUN}/{kind}/one" == getattr(train, save)("one").result(WAIT).path
    assert train.optim_step(types.AdamParams()).result(WAIT) is not None
    assert [1, 1] == [body["seq_id"] for body in server.bodies(endpoint)]
    assert [2] == [body["seq_id"] for body in server.bodies("optim_step")]


def test_a_sampler_is_made_of_weights_whose_answer_was_lost(server, train):
    """Of the path in the listing."""
    server.lost["save_weights_for_sampler"] = 1
    assert f"tinker://{RUN}/sampler_weights/one" == train.save_weights_and_get_sampling_client("one").model_path


def test_a_save_that_is_still_being_done_is_waited_for(server, train, caplog):
    """The listing comes to have it."""
    server.lost["save_weights"], server.unlisted = 1, 3
    with caplog.at_level(logging.INFO, logger="tinkex"):
        assert train.save_state("one").result(WAIT).path.endswith("/one")
    assert 4 == server.paths("GET").count(LISTING)
    assert "the answer to a save of 'one' was lost" in caplog.text


def test_what_was_submitted_before_is_done_before_the_listing_is_asked(server, train):
    """A listing cannot have what waits for its turn."""
    server.lost["save_weights"] = 1
    step, save = train.optim_step(types.AdamParams()), train.save_state("one")
    save.result(WAIT)
    assert step.done()
    paths = [path for _, path, _ in server.asked]
    assert paths.index(LISTING) > max(at for at, path in enumerate(paths) if path == "retrieve_future")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_name_that_this_client_had_used_is_taken(server, train, lost):
    """Whether or not the refusal of the first attempt arrived: it has met the same conflict."""
    train.save_state("one").result(WAIT)
    server.lost["save_weights"] = lost
    with pytest.raises(tinkex.ConflictError, match="choose another name") as caught:
        train.save_state("one").result(WAIT)
    assert bool(lost) == caught.value.repeated
    assert LISTING not in server.paths("GET")
    assert train.save_state("two").result(WAIT).path


def test_a_conflict_with_the_first_attempt_is_a_conflict(server, train):
    """No listing is asked, and the pipeline goes on."""
    server.saved = [("weights", "one")]
    with pytest.raises(tinkex.ConflictError) as caught:
        train.save_state("one").result(WAIT)
    assert (caught.value.repeated, caught.value.retryable) == (False, False)
    assert LISTING not in server.paths("GET")
    assert train.save_state("two").result(WAIT).path


def test_weights_without_a_name_cannot_be_looked_up(server, train):
    """The error says so, and what comes next goes on: the number of the save was used."""
    server.lost["save_weights_for_sampler"] = 1
    with pytest.raises(tinkex.ConflictError, match="without a name it cannot be looked up; save again"):
        train.save_weights_and_get_sampling_client()
    assert LISTING not in server.paths("GET")
    assert train.optim_step(types.AdamParams()).result(WAIT) is not None
    assert [2] == [body["seq_id"] for body in server.bodies("optim_step")]


@pytest.mark.parametrize(
    ("missing", "said"),
    [(set(), r"the listing of the run did not have it within 0\.05 s"), ({LISTING}, "could not be listed .*404")],
)
def test_a_save_that_cannot_be_found_is_a_conflict_that_may_be_its_own(server, missing, said):
    """The error says so. The number was used, and what comes next goes on."""
    server.missing, server.unlisted, server.lost["save_weights"] = missing, 10**6, 1
    retry = tinkex.RetryPolicy(initial_wait_s=0.0, max_elapsed_s=0.05, first_contact_s=WAIT)
    with tinkex.ServiceClient(base_url=server.url, api_key="k", telemetry=False, retry=retry) as service:
        train = service.create_lora_training_client(BASE, rank=4)
        with pytest.raises(tinkex.ConflictError, match=f"may be its own, but .*{said}") as caught:
            train.save_state("one").result(WAIT)
        assert "choose another name" in str(caught.value)
        assert train.optim_step(types.AdamParams()).result(WAIT) is not None
    assert [2] == [body["seq_id"] for body in server.bodies("optim_step")]
