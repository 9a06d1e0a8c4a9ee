"""What a user gets wrong is reported at the call, with the field, the datum and the way out; nothing is sent."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinkex
from tinkex import types

WAIT = 30.0
POLICY = {"logprobs": [0.0] * 3, "advantages": [1.0] * 3}


def broken_batches(datum):
    good = datum(1, 2, 3)
    policy = datum(1, 2, 3, **POLICY)
    return {
        "empty data": ([], "cross_entropy", None, "data is empty: pass at least one Datum"),
        "one datum": (good, "cross_entropy", None, r"data is a single Datum: pass a list, \[datum\]"),
        "no list": (None, "cross_entropy", None, "data must be a list of Datum, got None"),
        "no datum": ([good, 7], "cross_entropy", None, r"data\[1\] must be a Datum, got 7"),
        "no loss": ([good], None, None, "None is unknown; use one of cross_entropy, .*forward_backward_custom"),
        "missing input": (
            [policy, good],
            "ppo",
            None,
            r"data\[1\]\.loss_fn_inputs\['logprobs'\] is missing: ppo needs target_tokens, logprobs, advantages",
        ),
        "unknown input": (
            [datum(1, 2, weight=np.ones(2))],
            "cross_entropy",
            None,
            r"data\[0\].*unknown to cross_entropy.*remove it",
        ),
        "wrong length": (
            [good, datum(1, 2, 3, weights=[1.0, 1.0])],
            "cross_entropy",
            None,
            r"data\[1\]\.loss_fn_inputs\['weights'\] has shape \[2\]",
        ),
        "no token id": (
            [good, datum(1, 2, 3, target_tokens=[-100, 2, 3], weights=[0.0, 1.0, 1.0])],
            "cross_entropy",
            None,
            r"data\[1\]\.loss_fn_inputs\['target_tokens'\]\[0\] is -100, which is no token id",
        ),
        "no tokens": (
            [types.Datum(model_input=types.ModelInput.empty(), loss_fn_inputs={"target_tokens": []})],
            "cross_entropy",
            None,
            r"data\[0\]\.model_input is empty",
        ),
        "unknown setting": ([policy], "ppo", {"epsilon": 0.2}, "loss_fn_config\\['epsilon'\\] is unknown to ppo"),
        "setting of a wrong type": ([policy], "ppo", {"clip_low_threshold": [0.2]}, "must be a finite number"),
        "NaN setting": ([policy], "ppo", {"clip_low_threshold": math.nan}, "must be a finite number"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "empty data",
        "one datum",
        "no list",
        "no datum",
        "no loss",
        "missing input",
        "unknown input",
        "wrong length",
        "no token id",
        "no tokens",
        "unknown setting",
        "setting of a wrong type",
        "NaN setting",
    ],
)
@pytest.mark.parametrize("method", ["forward", "forward_backward"])
def test_a_batch_that_cannot_run_is_refused_at_the_call(stage, datum, batch, case, method):
    """The message names the mistake, and the client goes on working with the next number."""
    train = stage.train()
    data, loss_fn, config, message = broken_batches(datum)[case]
    with pytest.raises(tinkex.InvalidInputError, match=message):
        getattr(train, method)(data, loss_fn, config)

    future = train.forward_backward(batch, "cross_entropy")
    future.result(WAIT)
    assert f"{train.model_id}:1" == future.request_id


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: types.TensorData(data=[1.0, math.nan], dtype="float32"), r"data\[1\] is nan"),
        (lambda: types.TensorData(data=[1.0, 2.0], dtype="float32", shape=[3]), r"shape \[3\] needs 3 values"),
        (lambda: types.ModelInput.from_ints([1, -1]), r"tokens\[1\] is -1"),
        (lambda: types.ModelInput.from_ints([1.5]), r"tokens\[0\] must be a whole number"),
        (lambda: types.AdamParams(learning_rate=-1.0), "learning_rate must be a finite number of at least 0"),
        (lambda: types.SamplingParams(temperature=math.inf), "temperature must be a finite number"),
        (lambda: types.LoraConfig(rank=0), "rank must be a whole number of at least 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_when_it_is_made(build, message):
    """Constructors check; the message names the field and the position."""
    with pytest.raises(tinkex.InvalidInputError, match=message):
        build()


def test_checkpoints_of_the_wrong_kind_are_refused_before_anything_is_sent(stage):
    """A training path is not sampled from, a sampler path is not trained from, and each message says what to use."""
    train = stage.train()
    weights, sampler = train.save_state("a").result(WAIT).path, train.save_weights_for_sampler("b").result(WAIT).path
    sent = len([seen for seen in stage.faults.seen if "heartbeat" not in seen[1]])
    for sample in (stage.service.create_sampling_client, train.create_sampling_client):
        with pytest.raises(tinkex.InvalidInputError, match="save_weights_for_sampler"):
            sample(weights)
    for resume in (
        stage.service.create_training_client_from_state,
        stage.service.create_training_client_from_state_with_optimizer,
        train.load_state,
        train.load_state_with_optimizer,
    ):
        with pytest.raises(tinkex.InvalidInputError, match="save_state"):
            resume(sampler)
    assert sent == len([seen for seen in stage.faults.seen if "heartbeat" not in seen[1]])


@pytest.mark.parametrize("save", ["save_state", "save_weights_for_sampler"])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"ttl_seconds": 60}, "ttl_seconds must be a whole number of at least 3600"),
        ({"user_metadata": {"step": 7}}, r"user_metadata\['step'\] must be a text under a name, got 7"),
        ({"user_metadata": {7: "step"}}, r"user_metadata\[7\] must be a text under a name, got 'step'"),
        ({"user_metadata": ["step"]}, r"user_metadata must be a dict, got \['step'\]"),
    ],
)
def test_a_save_that_cannot_be_is_refused_at_the_call(stage, save, mistake, message):
    """A mistyped option does not end the training: the next operation has the next number."""
    train = stage.train()
    with pytest.raises(tinkex.InvalidInputError, match=message):
        getattr(train, save)("a", **mistake)
    future = getattr(train, save)("a", ttl_seconds=3600, user_metadata={"step": "7"})
    future.result(WAIT)
    assert f"{train.model_id}:1" == future.request_id


def test_arguments_of_the_wrong_type_are_named(stage, batch):
    """Mistaking one argument for another is reported with what to pass instead."""
    train, sampler = stage.train(), stage.service.create_sampling_client(base_model="acme/small")
    with pytest.raises(tinkex.InvalidInputError, match="loss_fn must be a function of your own, got 'ppo'"):
        train.forward_backward_custom(batch, "ppo")
    with pytest.raises(tinkex.InvalidInputError, match="optim_params must be an AdamParams"):
        train.optim_step(0.1)
    with pytest.raises(tinkex.InvalidInputError, match="without tinker://"):
        train.save_state("tinker://x/weights/y")
    with pytest.raises(tinkex.InvalidInputError, match=r"ModelInput\.from_ints"):
        sampler.sample([1, 2], 1, types.SamplingParams())
    with pytest.raises(tinkex.InvalidInputError, match="prompt is empty"):
        sampler.sample(types.ModelInput.empty(), 1, types.SamplingParams())
    with pytest.raises(tinkex.InvalidInputError, match="must be a SamplingParams"):
        sampler.sample(types.ModelInput.from_ints([1]), 1, 5)
    with pytest.raises(tinkex.InvalidInputError, match="num_samples"):
        sampler.sample(types.ModelInput.from_ints([1]), 0, types.SamplingParams())
    with pytest.raises(tinkex.InvalidInputError, match=r"base_model .* or model_path"):
        stage.service.create_sampling_client()
    with pytest.raises(tinkex.InvalidInputError, match="nothing would be trained"):
        stage.train(train_mlp=False, train_attn=False, train_unembed=False)


def test_a_wrong_key_says_where_keys_come_from(stage):
    """401 names the argument and the variable, and does not show the key."""
    with stage.new_service(api_key="tml-wrong") as service:
        with pytest.raises(tinkex.AuthenticationError, match="TINKER_API_KEY") as failure:
            service.create_lora_training_client("acme/small")
    assert "tml-wrong" not in str(failure.value)


def test_a_dead_server_is_named(stage, batch):
    """Nobody listens: the error has the address, and comes when the retries are over."""
    url = stage.server.base_url
    stage.server.stop()
    once = tinkex.RetryPolicy.none()
    with tinkex.ServiceClient(base_url=url, api_key="k", retry=once) as service:
        with pytest.raises(tinkex.APIConnectionError, match=url.removeprefix("http://")) as failure:
            service.get_server_capabilities()
    assert not failure.value.maybe_sent


def test_a_wrong_path_of_the_server_is_named(stage):
    """A base URL that leads elsewhere gives a 404 that shows where."""
    with stage.new_service(base_url=stage.server.base_url + "/elsewhere") as service:
        with pytest.raises(tinkex.NotFoundError, match=r"no such path.*elsewhere"):
            service.get_server_capabilities()


def test_settings_are_given_once(monkeypatch):
    """Neither key nor URL, an unknown setting, and two sources of settings are refused with the way out."""
    with pytest.raises(tinkex.ConfigurationError, match=r'TINKER_API_KEY.*base_url="local"'):
        tinkex.ServiceClient()
    with pytest.raises(tinkex.ConfigurationError, match="unknown setting speed"):
        tinkex.ServiceClient(base_url="http://127.0.0.1:1", speed=3)
    config = tinkex.ClientConfig(base_url="http://127.0.0.1:1")
    with pytest.raises(tinkex.ConfigurationError, match="not both"):
        tinkex.ServiceClient(config=config, api_key="k")
    assert config == tinkex.ServiceClient(config=config).config


def test_an_unknown_model_and_checkpoint_fail_at_creation(stage):
    """Creating a client is where a wrong name shows, with what is offered."""
    with pytest.raises(tinkex.RequestFailedError, match="acme/small"):
        stage.service.create_lora_training_client("acme/large")
    with pytest.raises(tinkex.NotFoundError):
        stage.service.create_training_client_from_state("tinker://nobody:train:0/weights/x")
