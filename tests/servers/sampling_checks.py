"""Samplers and what they answer."""

from __future__ import annotations

import math
import pickle

from tests.servers.world import World, check, done, near, run, tokens_of


def _finite(values: list[float | None]) -> None:
    assert values, "there are none"
    assert all(value is None or math.isfinite(value) for value in values), values


@check("sampler of the base model")
def _base(w: World) -> None:
    w.base_sampler()


@check("sample of the base model")
def _base_sample(w: World) -> None:
    assert 1 <= len(tokens_of(w.draw(w.base_sampler()))[0]) <= 4


@check("sampler of the weights of a model, save_weights_and_get_sampling_client")
def _ephemeral(w: World) -> None:
    sampler = done(w.trained.train.save_weights_and_get_sampling_client())
    assert tokens_of(w.draw(sampler))[0]


@check("sampler by path")
def _by_path(w: World) -> None:
    sampler = done(w.service().create_sampling_client(model_path=w.trained.weights))
    assert tokens_of(w.draw(sampler))[0]


@check("sampler by path, of the training client")
def _by_path_of_train(w: World) -> None:
    assert tokens_of(w.draw(done(w.trained.train.create_sampling_client(w.trained.weights))))[0]


@check("sampler by path, async")
def _by_path_async(w: World) -> None:
    async def program() -> list[list[int]]:
        sampler = await w.service().create_sampling_client_async(model_path=w.trained.weights)
        return tokens_of(await sampler.sample_async(w.prompt(), 1, w.greedy()))

    assert run(program())[0]


@check("two sequences with a logprob for each token")
def _logprobs(w: World) -> None:
    params = w.types.SamplingParams(max_tokens=6, temperature=1.0, seed=3)
    answer = w.draw(w.base_sampler(), 2, sampling_params=params)
    assert len(answer.sequences) == 2
    for sequence in answer.sequences:
        assert len(sequence.logprobs) == len(sequence.tokens)
        assert sequence.stop_reason in ("stop", "length")
        _finite(list(sequence.logprobs))


@check("temperature 0 gives the same tokens")
def _greedy(w: World) -> None:
    sampler = w.base_sampler()
    assert tokens_of(w.draw(sampler)) == tokens_of(w.draw(sampler))


@check("a seed gives the same tokens")
def _seed(w: World) -> None:
    sampler = w.base_sampler()
    params = w.types.SamplingParams(max_tokens=8, temperature=1.0, seed=11)
    first, second = (tokens_of(w.draw(sampler, sampling_params=params)) for _ in range(2))
    assert first == second


@check("top_k 1 gives the tokens of temperature 0")
def _top_k(w: World) -> None:
    sampler = w.base_sampler()
    params = w.types.SamplingParams(max_tokens=4, temperature=1.0, top_k=1, seed=5)
    assert tokens_of(w.draw(sampler)) == tokens_of(w.draw(sampler, sampling_params=params))


@check("top_p")
def _top_p(w: World) -> None:
    params = w.types.SamplingParams(max_tokens=4, temperature=1.0, top_p=0.5)
    assert tokens_of(w.draw(w.base_sampler(), sampling_params=params))[0]


@check("a stop token ends a sequence")
def _stop_token(w: World) -> None:
    sampler = w.base_sampler()
    tokens = tokens_of(w.draw(sampler))[0]
    ended = w.draw(sampler, sampling_params=w.greedy(stop=[tokens[0]])).sequences[0]
    assert (list(ended.tokens), ended.stop_reason) == (tokens[:1], "stop"), ended


@check("a stop text is taken")
def _stop_text(w: World) -> None:
    assert tokens_of(w.draw(w.base_sampler(), sampling_params=w.greedy(stop=["zzz"])))[0]


@check("sample, async")
def _async(w: World) -> None:
    sampler = w.base_sampler()

    async def program() -> list[list[int]]:
        return tokens_of(await sampler.sample_async(w.prompt(), 1, w.greedy()))

    assert run(program())[0]


@check("twelve samples at once")
def _many(w: World) -> None:
    sampler = w.base_sampler()
    futures = [sampler.sample(w.prompt(10, 20, 30 + at), 1, w.greedy()) for at in range(12)]
    assert all(tokens_of(done(future))[0] for future in futures)


@check("logprobs of the prompt")
def _prompt_logprobs(w: World) -> None:
    answer = w.draw(w.base_sampler(), include_prompt_logprobs=True)
    assert len(answer.prompt_logprobs) == 4, answer.prompt_logprobs
    _finite(list(answer.prompt_logprobs)[1:])


@check("the likeliest tokens of the prompt")
def _topk_prompt(w: World) -> None:
    answer = w.draw(w.base_sampler(), include_prompt_logprobs=True, topk_prompt_logprobs=3)
    assert [3, 3, 3] == [len(row) for row in list(answer.topk_prompt_logprobs)[1:]]


@check("compute_logprobs")
def _compute(w: World) -> None:
    values = done(w.base_sampler().compute_logprobs(w.prompt()))
    assert len(values) == 4, values
    _finite(list(values)[1:])


@check("compute_logprobs, async")
def _compute_async(w: World) -> None:
    sampler = w.base_sampler()

    async def program() -> list[float | None]:
        return list(await sampler.compute_logprobs_async(w.prompt()))

    values = run(program())
    assert len(values) == 4, values


@check("sampler and model agree on logprobs")
def _agree(w: World) -> None:
    datum = w.datum(1)
    sampler = done(w.trained.train.save_weights_and_get_sampling_client())
    output = done(w.trained.train.forward([datum], "cross_entropy")).loss_fn_outputs[0]["logprobs"]
    tokens = [*datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].data[-1]]
    seen = list(done(sampler.compute_logprobs(w.prompt(*map(int, tokens)))))
    for value, expected in zip(seen[1:], output.data, strict=True):
        near(float(value), float(expected), 2e-2)


@check("base model and tokenizer of a sampler")
def _base_model(w: World) -> None:
    sampler = w.base_sampler()
    assert sampler.get_base_model() == w.base_model
    assert sampler.get_tokenizer().encode("the fox")


@check("base model and tokenizer of a sampler of a model")
def _base_model_of_trained(w: World) -> None:
    sampler = done(w.trained.train.save_weights_and_get_sampling_client())
    assert sampler.get_base_model() == w.base_model
    assert sampler.get_tokenizer().encode("the fox")


@check("a pickled sampler samples")
def _pickled(w: World) -> None:
    sampler = pickle.loads(pickle.dumps(w.base_sampler()))
    assert tokens_of(w.draw(sampler))[0]


@check("a chat is rendered, sampled and read")
def _chat(w: World) -> None:
    sampler = w.base_sampler()
    tokenizer = sampler.get_tokenizer()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "fox?"}], add_generation_prompt=True, tokenize=False
    )
    prompt = w.prompt(*tokenizer.encode(text))
    answer = done(sampler.sample(prompt=prompt, num_samples=1, sampling_params=w.greedy()))
    assert isinstance(tokenizer.decode(tokens_of(answer)[0]), str)
