"""RestClient over a real socket."""

from __future__ import annotations

import datetime

import pytest

import tinkex

WAIT = 30.0


@pytest.fixture
def saved(stage):
    """A training checkpoint and a sampler checkpoint of one model."""
    train = stage.train()
    return train.save_state("a").result(WAIT).path, train.save_weights_for_sampler("b").result(WAIT).path


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
