"""What code written for the official SDK relies on, beyond names."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json

import pytest

import tinkex
from tests.compat.official import SIGNATURES
from tinkex.testing.faults import FaultPlan

BASE = "acme/small"


def make_datum(tinker, **inputs: object):
    given = {"target_tokens": [2, 3, 4], **inputs}
    return tinker.Datum(model_input=tinker.ModelInput.from_ints([1, 2, 3]), loss_fn_inputs=given)


def test_clients_stand_for_their_own_futures(tinker, service) -> None:
    """What a factory returns is a client at once, and answers result, await, coroutine and future with itself."""
    training = service.create_lora_training_client(BASE, rank=4)
    sampling = training.save_weights_and_get_sampling_client()

    async def all_ways(client) -> list[object]:
        return [await client, await client.result_async(), *await asyncio.gather(client.coroutine(), client)]

    for client in (training, sampling, service.create_rest_client()):
        assert client.result(timeout=1) is client
        assert client.future().result() is client
        assert asyncio.run(all_ways(client)) == [client] * 4


def test_futures_answer_in_every_spelling(tinker, service) -> None:
    """result, await, result_async, coroutine and future().add_done_callback give the same output."""
    training = service.create_lora_training_client(BASE, rank=4)
    future = training.forward_backward([make_datum(tinker)], loss_fn="cross_entropy")
    assert isinstance(future, tinker.APIFuture)
    assert tinker.APIFuture[tinker.ForwardBackwardOutput] is not None

    async def all_ways() -> list[object]:
        return [await future, await future.result_async(), *await asyncio.gather(future.coroutine())]

    called: list[object] = []
    future.future().add_done_callback(called.append)
    assert asyncio.run(all_ways()) == [future.result(timeout=10)] * 3
    assert called == [future]


def test_async_twins_give_what_the_sdk_gives(tinker, service) -> None:
    """An awaited twin of a factory is a client, of a training call the unresolved future, of a sample the value."""

    async def program() -> tuple[object, object, object]:
        training = await service.create_lora_training_client_async(BASE, rank=4)
        future = await training.forward_backward_async([make_datum(tinker)], "cross_entropy")
        step = await training.optim_step_async(tinker.AdamParams(learning_rate=1e-3))
        await step
        sampling = await training.save_weights_and_get_sampling_client_async()
        prompt = tinker.ModelInput.from_ints([1])
        answer = await sampling.sample_async(prompt, 1, tinker.SamplingParams(max_tokens=2))
        listed = await service.create_rest_client().list_sessions_async()
        assert isinstance(listed, tinker.types.ListSessionsResponse)
        return training, future, answer

    training, future, answer = asyncio.run(program())
    assert isinstance(training, tinker.TrainingClient)
    assert isinstance(future, tinker.APIFuture)
    assert isinstance(answer, tinker.SampleResponse)


def test_closing_takes_the_words_of_the_sdk(tinker, service) -> None:
    """close("success") ends the session and returns a future; again, or at the end of ``with``, it does nothing."""
    service.create_lora_training_client(BASE, rank=4)
    assert service.close("success").result(timeout=10) is None
    assert service.close("errored", detail="late").result(timeout=10) is None


def test_values_copy_what_they_are_given(tinker) -> None:
    """Clearing a list that a chunk, a tensor or a datum was made from changes none of them."""
    tokens, numbers, inputs = [1, 2, 3], [0.5, 0.5], {"weights": [1.0, 1.0]}
    chunk = tinker.EncodedTextChunk(tokens=tokens)
    tensor = tinker.TensorData(data=numbers, dtype="float32")
    datum = tinker.Datum(model_input=tinker.ModelInput(chunks=[chunk]), loss_fn_inputs=inputs)
    tokens.clear()
    numbers.clear()
    inputs.clear()
    assert chunk.tokens == [1, 2, 3]
    assert tensor.data == [0.5, 0.5]
    assert list(datum.loss_fn_inputs) == ["weights"]


def test_datum_is_a_dataclass_with_a_dict(tinker) -> None:
    """dataclasses.replace works on it, its dict can be changed, and plain lists get the dtype of their name."""
    datum = make_datum(tinker, mask=tinker.TensorData(data=[0, 1, 1], dtype="int64"))
    kept = {name: tensor for name, tensor in datum.loss_fn_inputs.items() if name != "mask"}
    stripped = dataclasses.replace(datum, loss_fn_inputs=kept)
    assert list(stripped.loss_fn_inputs) == ["target_tokens"]
    stripped.loss_fn_inputs["advantages"] = tinker.TensorData(data=[1.0, 1.0, 1.0], dtype="float32")
    assert stripped.loss_fn_inputs["target_tokens"].dtype == "int64"


def test_provenance_covers_a_datum(tinker) -> None:
    """Spans must cover each token once; they survive dataclasses.replace and can themselves be replaced."""
    prompt = tinker.PromptProvenanceSpan(sequence_id="s", length=2)
    sampled = tinker.SampledProvenanceSpan(sequence_id="s", length=1)
    datum = make_datum(tinker).with_provenance(
        model_input=[prompt, sampled],
        loss_fn_inputs=[
            dataclasses.replace(prompt, offset=1, length=1),
            tinker.SampledProvenanceSpan(sequence_id="s", length=2),
        ],
    )
    assert make_datum(tinker).with_provenance(datum.model_input_spans, datum.loss_fn_input_spans) == datum
    changed = dataclasses.replace(datum, loss_fn_inputs={"target_tokens": [1, 1, 1]})
    assert changed.model_input_spans == [prompt, sampled]
    with pytest.raises(tinkex.InvalidInputError, match="cover 2 tokens, and there are 3"):
        datum.with_provenance(model_input=[prompt], loss_fn_inputs=[prompt, sampled])
    with pytest.raises(tinkex.InvalidInputError, match="together"):
        tinker.Datum(datum.model_input, datum.loss_fn_inputs, model_input_spans=[prompt, sampled])
    with pytest.raises(tinkex.InvalidInputError, match=r"model_input_spans\[0\]"):
        datum.with_provenance(model_input=[3], loss_fn_inputs=[prompt, sampled])
    with pytest.raises(tinkex.InvalidInputError, match="offset"):
        tinker.PromptProvenanceSpan(sequence_id="s", offset=-1, length=1)


def test_sequences_hold_lists_and_an_id(tinker, service) -> None:
    """Tokens and logprobs are lists that go through json, and every sequence has an id of its own."""
    sampling = service.create_sampling_client(base_model=BASE)
    prompt = tinker.ModelInput.from_ints([1, 2])
    answers = [sampling.sample(prompt, 2, tinker.SamplingParams(max_tokens=3)).result(timeout=10) for _ in range(2)]
    sequences = [sequence for answer in answers for sequence in answer.sequences]
    first = sequences[0]
    assert json.loads(json.dumps(first.tokens + first.tokens[:-1])) == [*first.tokens, *first.tokens[:-1]]
    assert isinstance(first.logprobs, list)
    ids = [sequence.sequence_id for sequence in sequences]
    assert len(set(ids)) == 4
    assert all(isinstance(one, str) for one in ids)


@pytest.mark.parametrize("name", ["ServiceClient", "TrainingClient", "SamplingClient", "RestClient"])
def test_clients_are_plain_classes(tinker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their methods are found on the class and can be replaced there."""
    cls = getattr(tinker, name)
    method = next(member for member in ("sample", "optim_step", "list_sessions", "close") if hasattr(cls, member))
    assert inspect.isfunction(inspect.getattr_static(cls, method))
    monkeypatch.setattr(cls, method, lambda self, *_, **__: "patched")
    assert getattr(cls.__new__(cls), method)() == "patched"


def test_attributes_that_tracing_reads(tinker, service) -> None:
    """A sampler tells its session, path and base model; a training client its model."""
    training = service.create_lora_training_client(BASE, rank=4)
    path = training.save_weights_for_sampler("one").result(timeout=10).path
    sampling = training.create_sampling_client(path)
    assert sampling.model_path == path
    assert isinstance(sampling._sampling_session_id, str)
    assert service.create_sampling_client(base_model=BASE).base_model == BASE
    assert training.model_id in path


def test_errors_have_the_names_and_the_servers_words(tinker, service) -> None:
    """What a program catches is a TinkerError of the SDK's name, and its text has what the server said."""
    with pytest.raises(tinker.NotFoundError) as caught:
        service.create_rest_client().get_training_run("no-such-run").result(timeout=10)
    assert isinstance(caught.value, tinker.APIStatusError)
    assert isinstance(caught.value, tinker.TinkerError)
    assert caught.value.body["detail"] in str(caught.value)
    assert tinker.types.RequestErrorCategory.User == "user"


def test_retry_settings_of_a_sampler_count(tinker, service, faults: FaultPlan) -> None:
    """RetryConfig has the SDK's fields, and becomes the retry policy of the sampler that it is given to."""
    from tinker.lib.retry_handler import RetryConfig

    policy = RetryConfig(progress_timeout=5, retry_delay_base=0.1, retry_delay_max=2, jitter_factor=0.5).policy()
    assert (policy.max_elapsed_s, policy.initial_wait_s, policy.max_wait_s, policy.jitter) == (5, 0.1, 2, 0.5)
    assert policy.progress_timeout_s == 5
    assert RetryConfig(enable_retry_logic=False).policy() == tinkex.RetryPolicy.none()
    assert RetryConfig(enable_stuck_detection=False).policy().progress_timeout_s is None
    assert RetryConfig(enable_retry_logic=False, progress_timeout=9).policy().progress_timeout_s == 9
    request = (tinker.ModelInput.from_ints([1]), 1, tinker.SamplingParams(max_tokens=1))
    faults.answer(500, path="asample", times=2)
    once = service.create_sampling_client(base_model=BASE, retry_config=RetryConfig(enable_retry_logic=False))
    with pytest.raises(tinker.InternalServerError):
        once.sample(*request).result(timeout=10)
    again = service.create_sampling_client(base_model=BASE, retry_config=RetryConfig(retry_delay_base=0.0))
    assert again.sample(*request).result(timeout=10).sequences
    assert faults.count("asample") == 3
    with pytest.raises(tinkex.InvalidInputError, match="retry_config"):
        service.create_sampling_client(base_model=BASE, retry_config=3)


@pytest.mark.parametrize("method", SIGNATURES)
def test_signatures_are_those_of_the_sdk(method: str) -> None:
    """Every method of the SDK's clients takes its arguments: by position in the same order, the others by name."""
    cls, _, name = method.partition(".")
    positional, _, named = SIGNATURES[method].partition("*")
    ours = inspect.signature(getattr(getattr(tinkex, cls), name)).parameters.values()
    by_position = [one.name for one in ours if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"]
    assert by_position[: len(positional.split())] == positional.split()
    assert set(named.split()) <= {one.name for one in ours}
    assert all(one.default is not one.empty for one in ours if one.name not in ["self", *SIGNATURES[method].split()])
