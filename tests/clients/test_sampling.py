"""SamplingClient over a real socket."""

from __future__ import annotations

import concurrent.futures
import gc
import math
import threading

import pytest

import tinkex
from tests.clients.conftest import until
from tinkex import types

WAIT = 30.0
PROMPT = types.ModelInput.from_ints([1, 2, 3])


def sampler_of(stage) -> tinkex.SamplingClient:
    return stage.service.create_sampling_client(base_model="acme/small")


def test_a_sample_has_what_was_asked_for(stage):
    """Sequences, their logprobs, and on request those of the prompt and its top k."""
    answer = (
        sampler_of(stage)
        .sample(PROMPT, 2, types.SamplingParams(max_tokens=4), include_prompt_logprobs=True, topk_prompt_logprobs=2)
        .result(WAIT)
    )
    assert 2 == len(answer.sequences)
    assert all(len(sequence.tokens) == len(sequence.logprobs) <= 4 for sequence in answer.sequences)
    assert answer.prompt_logprobs[0] is None
    assert 3 == len(answer.prompt_logprobs) == len(answer.topk_prompt_logprobs)
    assert 2 == len(answer.topk_prompt_logprobs[1])


def test_parameters_may_be_a_dict(stage):
    """As the official SDK takes them; a key that is none of theirs is named."""
    assert sampler_of(stage).sample(PROMPT, 1, {"max_tokens": 2}).result(WAIT).sequences
    with pytest.raises(tinkex.InvalidInputError, match=r"must be a SamplingParams, got {'max_token': 2}"):
        sampler_of(stage).sample(PROMPT, 1, {"max_token": 2})


def test_compute_logprobs_gives_one_number_for_each_token(stage):
    """The first token has no logprob, the others have."""
    logprobs = sampler_of(stage).compute_logprobs(PROMPT).result(WAIT)
    assert [None, True, True] == [logprobs[0], *(isinstance(value, float) for value in logprobs[1:])]


def test_many_samples_are_in_flight_at_once_on_few_threads(stage):
    """500 samples all come back, and the number of threads does not grow with them."""
    sampler = sampler_of(stage)
    params = types.SamplingParams(max_tokens=2)
    with stage.engine.hold("sample"):
        futures = [sampler.sample(PROMPT, 1, params) for _ in range(500)]
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("tinkex-")]
        assert len(threads) < 70
    done, pending = concurrent.futures.wait(futures, timeout=WAIT)
    assert not pending
    assert all(future.exception() is None for future in done)
    assert 500 == len({future.request_id for future in futures})


def test_a_busy_server_is_asked_again_with_the_same_number(stage):
    """A 429 pauses the sampler, and the sample then arrives under the number it had."""
    sampler = sampler_of(stage)
    stage.faults.answer(429, path="asample", headers={"retry-after-ms": "1"})
    future = sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1))
    future.result(WAIT)
    assert future.request_id.endswith(":0")
    assert 2 == stage.faults.count("asample")


def test_one_failed_sample_does_not_touch_the_others(stage):
    """A sample that the server refuses fails alone."""
    sampler = sampler_of(stage)
    params = types.SamplingParams(max_tokens=1)
    bad = sampler.sample(types.ModelInput.from_ints([999_999]), 1, params)
    good = sampler.sample(PROMPT, 1, params)
    assert good.result(WAIT).sequences
    with pytest.raises(tinkex.RequestFailedError, match="999999") as failure:
        bad.result(WAIT)
    assert "user" == failure.value.category


def test_a_sampler_of_a_checkpoint_knows_its_base_model(stage):
    """get_base_model asks the server when the client was not told."""
    path = stage.train().save_weights_for_sampler("one").result(WAIT).path
    assert "acme/small" == stage.service.create_sampling_client(model_path=path).get_base_model()


def test_every_question_about_a_prompt_is_answered(stage):
    """Other tokens, chosen tokens and the likeliest of each position come back in the shape of the question."""
    asked = types.TensorData(data=[7, -1], dtype="int64", shape=[2, 1])
    answer = (
        sampler_of(stage)
        .sample(
            PROMPT,
            2,
            types.SamplingParams(max_tokens=4),
            topk_sample_logprobs=3,
            target_prompt_logprobs=asked,
            prompt_alt_tokens_k=2,
        )
        .result(WAIT)
    )
    assert [[3] * 4] * 2 == [[len(row) for row in sequence.topk_logprobs] for sequence in answer.sequences]
    assert [[-1.0], [0.0]] == answer.target_prompt_logprobs.tolist()
    assert (2, 2) == answer.prompt_alt_tokens.tokens.full_shape == answer.prompt_alt_tokens.logprobs.full_shape


def test_only_the_last_tokens_of_a_prompt_are_scored(stage):
    """With prompt_logprobs_last_n the entries before are None, in sample and in compute_logprobs."""
    sampler, params = sampler_of(stage), types.SamplingParams(max_tokens=1)
    answer = sampler.sample(PROMPT, 1, params, True, 2, prompt_logprobs_last_n=1).result(WAIT)
    assert [None, None, -1.0] == answer.prompt_logprobs
    assert [None, None] == answer.topk_prompt_logprobs[:2]
    assert [None, None, -1.0] == sampler.compute_logprobs(PROMPT, 1).result(WAIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_logprobs_last_n": 1}, "include_prompt_logprobs"),
        ({"include_prompt_logprobs": True, "prompt_logprobs_last_n": 3}, "has 2 that can be scored"),
        ({"include_prompt_logprobs": True, "prompt_logprobs_last_n": 0}, "prompt_logprobs_last_n"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k"),
        ({"target_prompt_logprobs": types.TensorData(data=[1, 2, 3], dtype="int64", shape=[3, 1])}, r"\[2, K\]"),
        ({"target_prompt_logprobs": types.TensorData(data=[1.0, 2.0], dtype="float32", shape=[2, 1])}, "int64"),
        ({"target_prompt_logprobs": [[1], [2]]}, "TensorData"),
    ],
)
def test_questions_that_no_server_answers_are_refused(stage, options, message):
    """The error names the argument, and nothing is sent."""
    sampler = sampler_of(stage)
    with pytest.raises(tinkex.InvalidInputError, match=message):
        sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1), **options)
    assert 0 == stage.faults.count("asample")


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_alt_tokens_k": 1},
        {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 1},
        {"target_prompt_logprobs": types.TensorData(data=[1, 2], dtype="int64", shape=[2, 1])},
    ],
)
def test_a_server_that_ignores_a_question_is_named(stage, options, monkeypatch):
    """An older server answers without what was asked for; then the future fails instead of passing that off."""
    plain = types.SampleResponse(
        sequences=[types.SampledSequence(stop_reason="length", tokens=[1])], prompt_logprobs=[None, -1.0, -1.0]
    )
    monkeypatch.setattr(stage.engine, "sample", lambda sampler_id, requests: [plain for _ in requests])
    with pytest.raises(tinkex.RequestFailedError, match=[*options][-1]):
        sampler_of(stage).sample(PROMPT, 1, types.SamplingParams(max_tokens=1), **options).result(WAIT)


def test_a_sample_whose_result_was_lost_is_drawn_again(stage):
    """A 410 sends it once more, under a new number."""
    stage.faults.answer(410, path="retrieve_future")
    future = sampler_of(stage).sample(PROMPT, 1, types.SamplingParams(max_tokens=1))
    assert future.result(WAIT).sequences
    assert future.request_id.endswith(":1")


def test_a_result_that_is_lost_every_time_fails(stage):
    """Drawing again ends after a few times."""
    stage.faults.answer(410, path="retrieve_future", times=100)
    future = sampler_of(stage).sample(PROMPT, 1, types.SamplingParams(max_tokens=1))
    with pytest.raises(tinkex.FutureExpiredError):
        future.result(WAIT)
    assert 4 == stage.faults.count("asample")


@pytest.mark.parametrize("told", [True, False])
def test_a_sample_can_be_cancelled_while_it_is_drawn(stage, told):
    """cancel() ends the wait at once; the server is told if it wants to know."""
    stage.faults.answer(200, {"sample_cancel_enabled": told}, path="client/dynamic_config")
    sampler = sampler_of(stage)
    with stage.engine.hold("sample"):
        future = sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1))
        until(lambda: future.request_id)
        assert future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(WAIT)
        assert future.cancelled()
    assert sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1)).result(WAIT)
    stage.service.close()
    assert int(told) == stage.faults.count("cancel_future")


def test_a_pause_holds_for_all_clients_of_a_key(stage):
    """Clients of one server and key pass one gate, which a 429 closes; another key has its own."""
    gate = stage.service._session._dispatcher._gate
    with stage.new_service() as same, stage.new_service(api_key="another") as other:
        assert gate is same._session._dispatcher._gate
        assert gate is not other._session._dispatcher._gate


PAUSED = {"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room"}


def test_a_sampler_hears_of_the_queue_by_the_method_it_has_then(stage):
    """A program that replaces on_queue_state_change is told of each change, and at the end that the queue goes on."""
    sampler, heard = sampler_of(stage), []
    usual = sampler.on_queue_state_change
    assert usual(types.QueueState.PAUSED_CAPACITY, None) is None
    sampler.on_queue_state_change = lambda *news: heard.append(news)
    stage.faults.answer(200, PAUSED, path="retrieve_future", times=2)
    sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1)).result(WAIT)
    until(lambda: len(heard) > 1)
    assert heard == [(types.QueueState.PAUSED_CAPACITY, "no room"), (types.QueueState.ACTIVE, None)]
    assert heard[0][0] == "paused_capacity"


def test_a_state_that_a_later_server_knows_is_unknown(stage):
    """A new word is passed on as unknown, not lost."""
    sampler, heard = sampler_of(stage), []
    sampler.on_queue_state_change = lambda *news: heard.append(news)
    stage.faults.answer(200, {**PAUSED, "queue_state": "asleep"}, path="retrieve_future")
    sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1)).result(WAIT)
    until(lambda: len(heard) > 1)
    assert heard[0] == (types.QueueState.UNKNOWN, "no room")


def test_a_sampler_that_nobody_holds_still_gives_its_sample(stage):
    """Hearing of the queue keeps no client alive, and a sample needs none."""
    future = sampler_of(stage).sample(PROMPT, 1, types.SamplingParams(max_tokens=1))
    gc.collect()
    assert future.result(WAIT).sequences


def test_what_is_recorded_on_stability_is_said_in_each_request(stage, monkeypatch):
    """record_stability_info of a sampling client is part of all its requests."""
    seen = []
    sampler = stage.service.create_sampling_client(base_model="acme/small", record_stability_info=True)
    plain = stage.service._session.api.sampling.asample
    monkeypatch.setattr(
        stage.service._session.api.sampling, "asample", lambda request: seen.append(request) or plain(request)
    )
    sampler.compute_logprobs(PROMPT).result(WAIT)
    assert [True] == [request.record_stability_info for request in seen]


def test_weights_in_flight_are_asked_for_by_name(stage):
    """save_weights_and_get_sampling_client takes both kinds, and no other."""
    train = stage.train()
    sampler = train.save_weights_and_get_sampling_client(kind="inflight", record_stability_info=True)
    assert sampler.compute_logprobs(PROMPT).result(WAIT)
    with pytest.raises(tinkex.InvalidInputError, match="inflight"):
        train.save_weights_and_get_sampling_client(kind="sometimes")


def test_a_server_without_prompt_logprobs_is_named(stage, monkeypatch):
    """compute_logprobs says what is missing instead of returning nothing."""
    sampler = sampler_of(stage)
    monkeypatch.setattr(
        stage.engine,
        "sample",
        lambda sampler_id, requests: [
            types.SampleResponse(sequences=[types.SampledSequence(stop_reason="length", tokens=[1])]) for _ in requests
        ],
    )
    with pytest.raises(tinkex.RequestFailedError, match="no prompt logprobs"):
        sampler.compute_logprobs(PROMPT).result(WAIT)


def test_an_inflight_sampler_follows_its_model_and_a_snapshot_does_not(stage, batch):
    """Saving again with kind="inflight" gives earlier samplers of that kind the new weights."""
    train = stage.train()
    follower = train.save_weights_and_get_sampling_client(kind="inflight")
    frozen = train.save_weights_and_get_sampling_client()
    params = types.SamplingParams(max_tokens=4, seed=3)

    def draw(sampler: tinkex.SamplingClient) -> list[int]:
        return sampler.sample(PROMPT, 1, params).result(WAIT).sequences[0].tokens

    before = draw(follower)
    assert before == draw(frozen)
    train.forward_backward(batch, "cross_entropy")
    train.optim_step(types.AdamParams())
    latest = train.save_weights_and_get_sampling_client(kind="inflight")
    assert before == draw(frozen)
    assert draw(latest) == draw(follower) != before


def test_samples_that_the_server_does_not_finish_are_given_up(stage):
    """After the time of the retry_config of their client; another client of the same session still waits."""
    params = types.SamplingParams(max_tokens=1)
    patient = sampler_of(stage)
    hasty = stage.service.create_sampling_client(
        base_model="acme/small", retry_config=tinkex.RetryPolicy(progress_timeout_s=0.2)
    )
    with stage.engine.hold("sample") as held:
        waits, ends = patient.sample(PROMPT, 1, params), hasty.sample(PROMPT, 1, params)
        assert held.reached.wait(WAIT)
        with pytest.raises(tinkex.ProgressTimeoutError, match=r"in the last 0\.\d+ s") as failure:
            ends.result(WAIT)
        assert ends.request_id == failure.value.request_id
        assert not waits.done()
    assert waits.result(WAIT).sequences


@pytest.mark.parametrize(
    ("told", "given", "limit"),
    [
        ({}, None, 7200.0),
        ({}, tinkex.RetryPolicy(progress_timeout_s=60), 60),
        ({}, tinkex.RetryPolicy(progress_timeout_s=None), math.inf),
        ({"sample_enable_stuck_detection": False}, tinkex.RetryPolicy(progress_timeout_s=60), math.inf),
    ],
)
def test_the_client_and_the_server_say_how_long_samples_are_waited_for(stage, told, given, limit):
    """The server can switch it off; a model's operations have the limit of the settings."""
    stage.faults.answer(200, told, path="client/config")
    with stage.new_service() as service:
        sampler = service.create_sampling_client(base_model="acme/small", retry_config=given)
        sampler.sample(PROMPT, 1, types.SamplingParams(max_tokens=1)).result(WAIT)
        assert limit == sampler._patience.limit_s
        assert 7200.0 == service._session._dispatcher._patience.limit_s
