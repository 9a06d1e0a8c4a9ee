"""Steps that look around, tidy up and leave."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from world import RANK, World, done, loss, step


@step()
def capabilities(w: World) -> None:
    """The server names a model, and says how long its context is to those who know the field."""
    models = w.capabilities().supported_models
    assert models
    assert isinstance(models[0].model_name, str)
    if w.generation >= (0, 18):
        assert models[0].max_context_length > 100
    if w.generation >= (0, 26):
        assert models[0].trainable is True
        assert models[0].sampleable is True


@step()
def create(w: World) -> None:
    """A new model has the id, the base and the rank that were asked for."""
    train = w.train(train_mlp=True, train_attn=True, train_unembed=False)
    info = train.get_info()
    assert info.model_id == train.model_id
    assert info.model_id.split(":")[1:] == ["train", train.model_id.rsplit(":", 1)[1]]
    assert info.model_data.model_name == w.base
    assert (info.is_lora, info.lora_rank) == (True, RANK)


@step()
def metadata(w: World) -> None:
    """What was said when a run was made can be read back: run, session and sampler know one another."""
    train, _ = w.shared()
    done(train.save_weights_for_sampler("meta"))
    path = done(train.save_state("meta")).path
    run = done(w.rest.get_training_run(train.model_id))
    assert (run.training_run_id, run.base_model) == (train.model_id, w.base)
    assert (run.is_lora, run.lora_rank, run.corrupted) == (True, RANK, False)
    assert run.user_metadata == {"recipe": "peer"}
    assert run.last_checkpoint.checkpoint_type == "training"
    assert run.last_sampler_checkpoint.checkpoint_type == "sampler"
    assert done(w.rest.get_training_run_by_tinker_path(path)).training_run_id == train.model_id
    info = done(w.rest.get_weights_info_by_tinker_path(path))
    assert (info.base_model, info.is_lora, info.lora_rank) == (w.base, True, RANK)
    listed = done(w.rest.list_training_runs(limit=1000))
    assert train.model_id in [one.training_run_id for one in listed.training_runs]
    assert listed.cursor.total_count >= 1
    assert len(done(w.rest.list_training_runs(limit=1, offset=0)).training_runs) == 1


@step()
def sessions(w: World) -> None:
    """The session of a model is listed, and knows its runs and samplers."""
    train, _ = w.shared()
    done(w.home.create_sampling_client(base_model=w.base))
    listed = done(w.rest.list_sessions(limit=1000)).sessions
    mine = [one for one in listed if train.model_id.startswith(one)]
    assert len(mine) == 1
    found = done(w.rest.get_session(mine[0]))
    assert train.model_id in found.training_run_ids
    assert len(found.sampler_ids) >= 2
    sampler = done(w.rest.get_sampler(found.sampler_ids[0]))
    assert (sampler.sampler_id, sampler.base_model) == (found.sampler_ids[0], w.base)


@step()
def checkpoints(w: World) -> None:
    """Checkpoints are listed, published and deleted."""
    train = w.train()
    paths = [done(train.save_state("one")).path, done(train.save_weights_for_sampler("two")).path]
    listed = {one.tinker_path: one for one in done(w.rest.list_checkpoints(train.model_id)).checkpoints}
    assert sorted(listed) == sorted(paths)
    assert [listed[path].checkpoint_id for path in paths] == ["weights/one", "sampler_weights/two"]
    assert [listed[path].checkpoint_type for path in paths] == ["training", "sampler"]
    assert all(one.size_bytes > 0 and not one.public for one in listed.values())
    everybody = done(w.rest.list_user_checkpoints(limit=1000, offset=0))
    assert set(paths) <= {one.tinker_path for one in everybody.checkpoints}
    for publish, public in (("publish", True), ("unpublish", False)):
        done(getattr(w.rest, f"{publish}_checkpoint_from_tinker_path")(paths[0]))
        listed = {one.tinker_path: one for one in done(w.rest.list_checkpoints(train.model_id)).checkpoints}
        assert listed[paths[0]].public is public
    done(w.rest.delete_checkpoint_from_tinker_path(paths[0]))
    done(w.rest.delete_checkpoint(train.model_id, "sampler_weights/two"))
    assert done(w.rest.list_checkpoints(train.model_id)).checkpoints == []


@step(since="0.13")
def lifetimes(w: World) -> None:
    """A checkpoint's time is set and taken away."""
    train, _ = w.shared()
    path = done(train.save_state("short", ttl_seconds=7200)).path

    def expires() -> Any:
        listed = done(w.rest.list_checkpoints(train.model_id)).checkpoints
        return next(one for one in listed if one.tinker_path == path).expires_at

    assert expires() is not None
    done(w.rest.set_checkpoint_ttl_from_tinker_path(path, None))
    assert expires() is None
    done(w.rest.set_checkpoint_ttl_from_tinker_path(path, 3600))
    assert expires() is not None


def refusal(attempt: Callable[[], Any], kind: type[BaseException]) -> Any:
    """Return the error that an attempt ends with; it must come before a client gives up retrying."""
    start = time.monotonic()
    try:
        answer = attempt()
    except kind as error:
        assert time.monotonic() - start < 20
        return error
    raise AssertionError(f"was not refused: {answer!r}")


def fetch(source: str | urllib.request.Request) -> bytes:
    """Download."""
    with urllib.request.urlopen(source, timeout=60) as answer:
        return answer.read()


@step(until="0.25")
def archive(w: World) -> None:
    """A checkpoint is downloaded as an archive that holds the adapter."""
    train, _ = w.shared()
    path = done(train.save_weights_for_sampler("archived")).path
    link = done(w.rest.get_checkpoint_archive_url_from_tinker_path(path))
    other = done(w.rest.get_checkpoint_archive_url(train.model_id, "sampler_weights/archived"))
    # The oldest generation leaves the zone out.
    assert link.expires.replace(tzinfo=datetime.timezone.utc) > datetime.datetime.now(datetime.timezone.utc)
    for url in (link.url, other.url):
        with tarfile.open(fileobj=io.BytesIO(fetch(url))) as files:
            assert {"adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"} <= set(files.getnames())
            assert files.getmember("adapter_model.safetensors").size > 1000
            config = json.load(files.extractfile("adapter_config.json"))
    assert config["r"] == RANK


@step(since="0.26")
def external_weights(w: World) -> None:
    """Weights are exported and downloaded file by file."""
    train, _ = w.shared()
    path = done(train.save_weights_external("outside", ttl_seconds=3600)).path
    assert path == f"tinker://{train.model_id}/external_weights/outside"
    links = done(w.rest.get_external_weights_urls(path))
    assert links.expires > datetime.datetime.now(datetime.timezone.utc)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(links.urls)
    assert json.loads(fetch(links.urls["adapter_config.json"]))["r"] == RANK
    assert len(fetch(links.urls["adapter_model.safetensors"])) > 1000


@step(since="0.26")
def copies(w: World) -> None:
    """A copy of a checkpoint is a checkpoint of its own, from which training goes on."""
    train, _ = w.shared()
    path = done(train.save_state("original")).path
    copy = done(w.service.copy_weights(path, ttl_seconds=3600))
    assert copy != path
    other = w.borrow(w.service.create_training_client_from_state(copy))
    assert loss(other.forward(w.batch(), "cross_entropy")) == loss(train.forward(w.batch(), "cross_entropy"))


@step(since="0.22")
def projects(w: World) -> None:
    """A session is moved into another project."""
    train, _ = w.shared()
    done(w.rest.assign_session_project(train.model_id.split(":")[0], "project-2"))


@step(since="0.26", clients=("tinker",))
def search(w: World) -> None:
    """A session is found by what was said about it, and by its state."""
    train, _ = w.shared()
    session = train.model_id.split(":")[0]
    request = w.types.SessionSearchRequest(session_id=session, user_metadata={"who": "peer"})
    found = done(w.rest.search_sessions(request)).sessions
    assert [one.session_id for one in found] == [session]


@step(until="0.25")
def unload(w: World) -> None:
    """A model that was unloaded is not found any more."""
    train = done(w.service.create_lora_training_client(w.base, rank=RANK))
    w.unload(train)
    refusal(train.get_info, w.sdk.NotFoundError)


@step(since="0.26", clients=("tinker",))
def finish(w: World) -> None:
    """Leaving a with block, or closing with a reason, finishes the session: the server wants no heartbeat any more."""
    with w.sdk.ServiceClient(display_name="short", **w.address) as service:
        train = done(service.create_lora_training_client(w.base, rank=RANK))
        assert loss(train.forward(w.batch(), "cross_entropy")) > 0
    other = w.connect()
    broken = done(other.create_lora_training_client(w.base, rank=RANK))
    done(other.close("errored", "on purpose"))
    for one in (train, broken):
        session = one.model_id.split(":")[0]
        request = urllib.request.Request(
            f"{w.address['base_url']}/api/v1/session_heartbeat",
            data=json.dumps({"session_id": session}).encode(),
            headers={"X-API-Key": w.address["api_key"], "Content-Type": "application/json"},
        )
        error = refusal(lambda request=request: fetch(request), urllib.error.HTTPError)
        assert error.code == 410


@step(clients=("tinker",))
def refusals(w: World) -> None:
    """What cannot be done is refused at once, in words, and training goes on after it."""
    train, _ = w.shared()
    sampler_path = done(train.save_weights_for_sampler("refused")).path
    done(train.save_state("taken"))
    wrong = w.datum(0, 6, weights=[1.0] * 4)
    attempts = {
        "weights": lambda: train.forward([wrong], "cross_entropy"),
        "clip": lambda: train.forward(w.policy_batch(train), "ppo", {"clip": 1.0}),
        "taken": lambda: train.save_state("taken"),
        "sampler_weights": lambda: w.service.create_training_client_from_state(sampler_path),
        "no-such": lambda: w.service.create_sampling_client(model_path=sampler_path.replace("refused", "no-such")),
    }
    for word, attempt in attempts.items():
        error = refusal(lambda attempt=attempt: done(attempt()), w.sdk.TinkerError)
        assert word in str(error), f"{word}: {error}"
    assert loss(train.forward(w.batch(), "cross_entropy")) > 0
