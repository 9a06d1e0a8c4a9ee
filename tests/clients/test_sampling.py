"""SamplingClient over a real socket."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

import tinkex
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
