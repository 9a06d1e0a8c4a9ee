"""Whatever happens inside, a future raises errors of tinkex."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tinkex
from tests.clients.conftest import Stage, make_datum
from tinkex import types
from tinkex.http.transport import Transport
from tinkex.resources import futures as polls
from tinkex.resources._base import Resource

WAIT = 30.0
BATCH = [make_datum(1, 2, 3)]
PROMPT, PARAMS = types.ModelInput.from_ints([1, 2]), types.SamplingParams(max_tokens=2)


class BoomError(Exception):
    """What nobody has thought of."""


OPERATIONS = {
    "forward": lambda play: play.train.forward(BATCH, "cross_entropy"),
    "forward_backward": lambda play: play.train.forward_backward(BATCH, "cross_entropy"),
    "optim_step": lambda play: play.train.optim_step(types.AdamParams()),
    "save_state": lambda play: play.train.save_state("one"),
    "save_weights_for_sampler": lambda play: play.train.save_weights_for_sampler("one"),
    "load_state": lambda play: play.train.load_state(play.saved),
    "unload": lambda play: play.train.unload(),
    "sample": lambda play: play.sampler.sample(PROMPT, 1, PARAMS),
    "compute_logprobs": lambda play: play.sampler.compute_logprobs(PROMPT),
    "list_checkpoints": lambda play: play.rest.list_checkpoints(play.train.model_id),
    "get_training_run": lambda play: play.rest.get_training_run(play.train.model_id),
    "list_user_checkpoints": lambda play: play.rest.list_user_checkpoints(),
    "copy_weights": lambda play: play.service.copy_weights(play.saved),
}
NOT_POLLED = {"list_checkpoints", "get_training_run", "list_user_checkpoints", "copy_weights"}
PLACES = {
    "the request is written": (Resource, "_call"),
    "the request is sent": (Transport, "send"),
    "the answer to a poll is read": (polls, "decode_result"),
}


class Play:
    """Clients of every kind, ready before anything goes wrong."""

    def __init__(self, stage: Stage) -> None:
        self.service = stage.service
        self.train = stage.train()
        self.saved = self.train.save_state("zero").result(WAIT).path
        self.sampler = self.train.save_weights_and_get_sampling_client()
        self.sampler.sample(PROMPT, 1, PARAMS).result(WAIT)
        self.rest = stage.service.create_rest_client()


CASES = [
    (operation, place)
    for operation in sorted(OPERATIONS)
    for place in sorted(PLACES)
    if operation not in NOT_POLLED or not place.startswith("the answer")
]


@pytest.mark.parametrize(("operation", "place"), CASES)
def test_an_exception_inside_comes_out_as_one_of_ours(stage, monkeypatch, operation, place):
    """With the exception as its cause, and a word that it should be reported."""
    with stage.new_service(wire="json") as service:
        play = Play(Stage(service, stage.server, stage.engine, stage.faults))
        explode(monkeypatch, *PLACES[place])
        error = OPERATIONS[operation](play).exception(WAIT)
        monkeypatch.undo()
        assert (tinkex.UnexpectedError, BoomError) == (type(error), type(error.__cause__))
        assert "report" in str(error)


def explode(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let a function raise, but for the requests that keep the session."""
    real: Callable[..., object] = getattr(owner, name)

    def call(*args: object, **options: object) -> object:
        if any("heartbeat" in repr(arg) or "finish" in repr(arg) for arg in args):
            return real(*args, **options)
        raise BoomError("inside")

    monkeypatch.setattr(owner, name, call)


def test_what_a_custom_loss_raises_comes_out_as_it_is(stage, batch):
    """It is code of the user, who looks for their own exception."""
    pytest.importorskip("torch")

    def loss(data, logprobs):
        raise BoomError("mine")

    future = stage.train().forward_backward_custom(batch, loss)
    with pytest.raises(BoomError, match="mine"):
        future.result(WAIT)
