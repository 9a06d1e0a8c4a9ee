"""Checkpoints: saved, loaded, listed, sent away."""

from __future__ import annotations

import io
import tarfile
import urllib.request

from tests.servers.world import World, check, done, near, run


@check("save_state")
def _save(w: World) -> None:
    assert "://" in done(w.model().save_state(w.name())).path


@check("save_state, async")
def _save_async(w: World) -> None:
    train = w.model()

    async def program() -> str:
        return (await (await train.save_state_async(w.name()))).path

    assert run(program())


@check("save_state with a time to live")
def _save_ttl(w: World) -> None:
    assert done(w.model().save_state(w.name(), ttl_seconds=7200)).path


@check("save_weights_for_sampler")
def _save_sampler(w: World) -> None:
    assert "://" in done(w.model().save_weights_for_sampler(w.name())).path


@check("save_weights_for_sampler with a time to live")
def _save_sampler_ttl(w: World) -> None:
    assert done(w.model().save_weights_for_sampler(w.name(), ttl_seconds=7200)).path


@check("training goes on after a save, unchanged by it")
def _after_save(w: World) -> None:
    train = w.model()
    w.steps(train, 1)
    before = w.loss_of(train)
    done(train.save_state(w.name()))
    near(before, w.loss_of(train), 1e-4)
    w.steps(train, 1)


@check("a model of a checkpoint: the loss is the saved one")
def _from_state(w: World) -> None:
    train = done(w.service().create_training_client_from_state(w.trained.state))
    near(w.loss_of(train), w.trained.loss)


@check("a model of a checkpoint with its optimizer: the loss, and one step further")
def _from_state_with_optimizer(w: World) -> None:
    train = done(w.service().create_training_client_from_state_with_optimizer(w.trained.state))
    near(w.loss_of(train), w.trained.loss)
    w.steps(train, 1)


@check("a model of a checkpoint, async")
def _from_state_async(w: World) -> None:
    async def program() -> object:
        return await w.service().create_training_client_from_state_async(w.trained.state)

    near(w.loss_of(run(program())), w.trained.loss)


@check("load_state as the first request of a model")
def _load_first(w: World) -> None:
    state, loss = w.trained.state, w.trained.loss
    train = w.model()
    done(train.load_state(state))
    near(w.loss_of(train), loss)


@check("load_state_with_optimizer as the first request of a model")
def _load_optimizer_first(w: World) -> None:
    state, loss = w.trained.state, w.trained.loss
    train = w.model()
    done(train.load_state_with_optimizer(state))
    near(w.loss_of(train), loss)


@check("load_state into a model that was trained")
def _load_later(w: World) -> None:
    state, loss = w.trained.state, w.trained.loss
    train = w.model()
    w.steps(train, 2)
    done(train.load_state(state))
    near(w.loss_of(train), loss)


@check("list the checkpoints of a run")
def _list(w: World) -> None:
    names = [one.checkpoint_id for one in done(w.rest().list_checkpoints(w.trained.train.model_id)).checkpoints]
    assert any(name.endswith(w.trained.state.rpartition("/")[2]) for name in names), names


@check("list the checkpoints of a user")
def _list_user(w: World) -> None:
    assert w.trained
    assert done(w.rest().list_user_checkpoints(limit=50)).checkpoints


@check("list the runs of a user")
def _list_runs(w: World) -> None:
    assert w.trained
    assert done(w.rest().list_training_runs(limit=5)).training_runs


@check("look at a run")
def _run(w: World) -> None:
    run_id = w.trained.train.model_id
    found = done(w.rest().get_training_run(run_id))
    assert (found.training_run_id, found.base_model) == (run_id, w.base_model), found


@check("look at a run by the path of a checkpoint")
def _run_by_path(w: World) -> None:
    found = done(w.rest().get_training_run_by_tinker_path(w.trained.state))
    assert found.training_run_id == w.trained.train.model_id, found


@check("what a checkpoint needs, weights_info")
def _weights_info(w: World) -> None:
    info = done(w.rest().get_weights_info_by_tinker_path(w.trained.state))
    assert (info.base_model, info.lora_rank) == (w.base_model, 8), info


def _open_archive(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        names = tarfile.open(fileobj=io.BytesIO(answer.read())).getnames()
    assert any("adapter" in name for name in names), names


@check("address of the archive of weights, by path")
def _archive(w: World) -> None:
    assert "://" in done(w.rest().get_checkpoint_archive_url_from_tinker_path(w.trained.weights)).url


@check("the archive of weights, by path, has the adapter")
def _open_by_path(w: World) -> None:
    _open_archive(done(w.rest().get_checkpoint_archive_url_from_tinker_path(w.trained.weights)).url)


@check("the archive of weights, by what the list calls them, has the adapter")
def _open_by_id(w: World) -> None:
    rest, run_id, name = w.rest(), w.trained.train.model_id, w.trained.weights.rpartition("/")[2]
    listed = done(rest.list_checkpoints(run_id)).checkpoints
    (found,) = [one for one in listed if one.checkpoint_type == "sampler" and one.checkpoint_id.endswith(name)]
    _open_archive(done(rest.get_checkpoint_archive_url(run_id, found.checkpoint_id)).url)


@check("publish a checkpoint")
def _publish(w: World) -> None:
    done(w.rest().publish_checkpoint_from_tinker_path(w.trained.state))


@check("publish a checkpoint, and take it back")
def _unpublish(w: World) -> None:
    rest, path = w.rest(), done(w.model().save_state(w.name())).path
    done(rest.publish_checkpoint_from_tinker_path(path))
    done(rest.unpublish_checkpoint_from_tinker_path(path))


@check("change the time to live of a checkpoint")
def _ttl(w: World) -> None:
    done(w.rest().set_checkpoint_ttl_from_tinker_path(w.trained.state, 7200))


@check("delete a checkpoint")
def _delete(w: World) -> None:
    train = w.model()
    kept, gone = (done(train.save_state(w.name())).path for _ in range(2))
    rest = w.rest()
    done(rest.delete_checkpoint_from_tinker_path(gone))
    listed = str(done(rest.list_checkpoints(train.model_id)).checkpoints)
    assert kept.rpartition("/")[2] in listed
    assert gone.rpartition("/")[2] not in listed


@check("copy a checkpoint")
def _copy(w: World) -> None:
    assert done(w.service().copy_weights(w.trained.state))
