"""Sampling parameters, requests and what comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinkex.errors import InvalidInputError
from tinkex.types import (
    DmelChunk,
    EncodedTextChunk,
    ImageChunk,
    ModelInput,
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SamplingParams,
)
from tinkex.types.sampling import check_prompt

PROMPT = ModelInput.from_ints([1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, got 0"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number of at least 1"),
        ({"max_tokens": True}, "max_tokens must be a whole number"),
        ({"seed": 2**64}, f"seed must be a whole number of at least {-(2**63)} and at most {2**64 - 1}"),
        ({"seed": -(2**63) - 1}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"temperature": -0.1}, "temperature must be a finite number of at least 0, got -0.1"),
        ({"temperature": math.nan}, "temperature must be a finite number of at least 0, got nan"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"temperature": "1"}, "temperature must be a finite number"),
        ({"top_k": -2}, "top_k must be a whole number of at least -1"),
        ({"top_k": 1.0}, "top_k must be a whole number"),
        ({"top_p": 0}, "top_p must be a finite number above 0 and at most 1, got 0"),
        ({"top_p": 1.01}, "top_p must be a finite number above 0 and at most 1"),
    ],
)  # fmt: skip
def test_parameters_out_of_bounds_are_refused(fields, message):
    """Each bound is named, with what was given."""
    with pytest.raises(InvalidInputError, match=rf"SamplingParams\.{message}") as caught:
        SamplingParams(**fields)
    assert caught.value.field == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 1},
        {"seed": 2**64 - 1},
        {"seed": -(2**63)},
        {"temperature": 0},
        {"top_k": -1},
        {"top_p": 1},
        {"top_p": 1e-9},
    ],
)
def test_parameters_at_the_bounds_are_accepted(fields):
    """The bounds themselves are allowed where the message says so."""
    name, value = next(iter(fields.items()))
    assert getattr(SamplingParams(**fields), name) == value


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("\n", "\n"),
        ([], []),
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        ([1, 2], [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (range(2), [0, 1]),
    ],
)
def test_a_stop_is_a_text_texts_or_ids(given, kept):
    """Every form is kept as the wire has it, as plain values."""
    stop = SamplingParams(stop=given).stop
    assert stop == kept
    assert {type(item) for item in stop or []} <= {int, str}


@pytest.mark.parametrize("bad", [5, ["a", 1], [True], [1.0], [None], [b"a"], [["a"]]])
def test_a_mixed_stop_is_refused(bad):
    """Texts and ids do not mix, and a number alone is not a list."""
    with pytest.raises(
        InvalidInputError, match=r"stop must be a text, a list of texts or a list of token ids \(not mixed\)"
    ):
        SamplingParams(stop=bad)


def test_the_list_of_stops_may_be_reused():
    """Changing it afterwards does not reach the parameters."""
    stops = ["a"]
    params = SamplingParams(stop=stops)
    stops.append("b")
    assert params.stop == ["a"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"seq_id": -1}, "seq_id"),
        ({"topk_prompt_logprobs": -1}, "topk_prompt_logprobs"),
        ({"topk_sample_logprobs": -1}, "topk_sample_logprobs"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k"),
        ({"prompt_logprobs_last_n": 0}, "prompt_logprobs_last_n"),
    ],
)
def test_a_request_out_of_bounds_is_refused(fields, name):
    """Counts are whole numbers, and the error names the field."""
    with pytest.raises(InvalidInputError, match=rf"SampleRequest\.{name} must be a whole number of at least [01]"):
        SampleRequest(prompt=PROMPT, sampling_params=SamplingParams(), **fields)


@pytest.mark.parametrize(
    "prompt", [PROMPT, ModelInput(chunks=[EncodedTextChunk(tokens=[]), ImageChunk(data=b"", format="png")])]
)
def test_a_prompt_with_something_in_it_passes(prompt):
    """One token, or a picture whose size only the server knows, is enough."""
    check_prompt(prompt)


@pytest.mark.parametrize(
    "prompt",
    [ModelInput.empty(), ModelInput.from_ints([]), ModelInput(chunks=[DmelChunk(dmel=bytes([7, 1, 0]))])],
)
def test_an_empty_prompt_is_refused(prompt):
    """There must be something to go on from."""
    with pytest.raises(InvalidInputError, match="prompt is empty: it needs at least one token"):
        check_prompt(prompt)


@pytest.mark.parametrize("bad", ["Hello", [1, 2], None])
def test_a_prompt_is_a_model_input(bad):
    """Bare token ids and texts are refused with the way out."""
    with pytest.raises(InvalidInputError, match=r"prompt must be a ModelInput.*ModelInput.from_ints\(tokens\)"):
        check_prompt(bad)


def test_a_sampled_sequence_holds_plain_lists():
    """Programs join tokens with ``+``, slice them and write them as JSON."""
    sequence = SampledSequence(
        stop_reason="stop", tokens=np.array([1, 2]), logprobs=np.array([-0.5, -1.0], dtype="float32")
    )
    assert sequence.tokens + [3] == [1, 2, 3]  # noqa: RUF005 - the sum is the test
    assert {type(value) for value in sequence.tokens} == {int}
    assert {type(value) for value in sequence.logprobs} == {float}


def test_responses_do_not_follow_their_source():
    """A server may reuse its lists."""
    tokens, logprobs, prompt_logprobs, topk = [1], [-0.5], [None, -0.5], [None]
    sequences = [SampledSequence(stop_reason="length", tokens=tokens, logprobs=logprobs)]
    made = SampleResponse(sequences=sequences, prompt_logprobs=prompt_logprobs, topk_prompt_logprobs=topk)
    for source in (tokens, logprobs, prompt_logprobs, topk, sequences):
        source.clear()
    assert made == SampleResponse(
        sequences=[SampledSequence(stop_reason="length", tokens=[1], logprobs=[-0.5])],
        prompt_logprobs=[None, -0.5],
        topk_prompt_logprobs=[None],
    )


def test_a_sequence_ends_for_one_of_two_reasons():
    """The wire knows no other."""
    with pytest.raises(InvalidInputError, match=r"stop_reason must be one of 'stop', 'length'"):
        SampledSequence(stop_reason="eos", tokens=[])


def test_a_million_tokens_are_shown_in_a_line():
    """A long sequence shows its first tokens and logprobs, and how many there are."""
    sequence = SampledSequence(stop_reason="stop", tokens=[150_000] * 10**6, logprobs=[-1 / 3] * 10**6)
    assert len(repr(sequence)) < 300
    assert repr(sequence).count("... 1000000 in all") == 2
    response = SampleResponse(sequences=[sequence], prompt_logprobs=[-1.0] * 10**6, topk_prompt_logprobs=[None] * 10**6)
    assert len(repr(response)) < 600
