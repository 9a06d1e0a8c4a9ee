"""The server itself, sessions, and calls that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.servers.world import World, check, done, nll, refused, run, settled, tokens_of


@check("capabilities name the base model")
def _capabilities(w: World) -> None:
    names = [model.model_name for model in done(w.service().get_server_capabilities()).supported_models]
    assert w.base_model in names, names


@check("capabilities, async")
def _capabilities_async(w: World) -> None:
    async def program() -> Any:
        return await w.service().get_server_capabilities_async()

    assert run(program()).supported_models


@check("list the sessions of a user")
def _sessions(w: World) -> None:
    service = w.service()
    w.model(service)
    assert done(service.create_rest_client().list_sessions()).sessions


@check("look at a session")
def _session(w: World) -> None:
    service = w.service()
    train = w.model(service)
    holder = getattr(service, "holder", None)
    session_id = holder.get_session_id() if holder else service.session_id
    found = done(service.create_rest_client().get_session(session_id))
    assert train.model_id in found.training_run_ids, found


@check("look at a sampler")
def _sampler(w: World) -> None:
    sampler = w.base_sampler()
    found = done(w.rest().get_sampler(getattr(sampler, "_sampling_session_id", None) or sampler.sampling_session_id))
    assert found.base_model == w.base_model, found


def _goes_on(name: str, bad: Callable[[World, Any], Any], settle: Callable[[Callable[[], Any]], Any] = refused) -> None:
    verb = "refused" if settle is refused else "refused or taken"

    @check(f"{verb}: {name}; the next calls of that model work")
    def _then_good(w: World) -> None:
        train = w.model()
        w.steps(train, 1)
        settle(lambda: bad(w, train))
        nll(done(train.forward_backward(w.batch(), "cross_entropy")))
        done(train.optim_step(w.adam()))
        assert done(train.save_state(w.name())).path


def _save_twice(w: World, train: Any) -> Any:
    name = w.name()
    done(train.save_state(name))
    return train.save_state(name)


_goes_on("an unknown loss", lambda w, train: train.forward_backward(w.batch(), "no_such_loss"))
_goes_on("a token that no model has", lambda w, train: train.forward([w.bad_datum()], "cross_entropy"), settled)
_goes_on("a checkpoint that is not there", lambda w, train: train.load_state(w.trained.state + "-not"))
_goes_on("data without the inputs of the loss", lambda w, train: train.forward_backward(w.batch(), "ppo"), settled)
_goes_on("a name that is taken", _save_twice, settled)


@check("refused: an unknown base model")
def _no_model(w: World) -> None:
    refused(lambda: w.service().create_lora_training_client(base_model="acme/nothing", rank=8))


@check("refused: a sampler of an unknown base model")
def _no_base(w: World) -> None:
    def use() -> Any:
        sampler = done(w.service().create_sampling_client(base_model="acme/nothing"))
        return w.draw(sampler)

    refused(use)


@check("refused: a sampler of a path that is not there")
def _no_path(w: World) -> None:
    path = w.trained.weights + "-not"
    refused(lambda: w.draw(done(w.service().create_sampling_client(model_path=path))))


@check("refused or taken: a prompt of a token that no model has; the next sample works")
def _bad_prompt(w: World) -> None:
    sampler = w.base_sampler()
    settled(lambda: sampler.sample(w.prompt(10**6), 1, w.greedy()))
    assert tokens_of(w.draw(sampler))[0]
