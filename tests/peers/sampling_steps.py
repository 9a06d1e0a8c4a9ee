"""Steps that sample."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

from world import World, close, done, logprobs, loss, near, step, steps, text


@step()
def samplers(w: World) -> None:
    """Samplers with and without a name give the same tokens, and stay as they were when training goes on."""
    train = w.train()
    steps(train, w, 4)
    plain = done(train.save_weights_and_get_sampling_client())
    path = done(train.save_weights_for_sampler("named")).path
    assert path == f"tinker://{train.model_id}/sampler_weights/named"
    steps(train, w, 6)
    later = done(train.save_weights_and_get_sampling_client("name"))
    named = [done(w.service.create_sampling_client(model_path=path)), done(train.create_sampling_client(path))]
    base = done(w.service.create_sampling_client(base_model=w.base))
    futures = [one.sample(w.prompt(), 1, w.params(stop=[])) for one in (plain, *named, later, base)]
    tokens = [list(done(future).sequences[0].tokens) for future in futures]
    scores = [done(one.compute_logprobs(w.prompt())) for one in (plain, *named, later, base)]
    assert tokens[0] == tokens[1] == tokens[2]
    assert scores[0][1:] == scores[1][1:] == scores[2][1:]
    assert sum(scores[3][1:]) > sum(scores[0][1:]) > sum(scores[4][1:])
    if w.generation >= (0, 18):
        assert named[0].get_base_model() == w.base
    w.note("tokens", *itertools.chain(*tokens))
    w.note("scores", *itertools.chain(*(one[1:] for one in scores)))


@step()
def sample(w: World) -> None:
    """Sequences have a logprob for each token; a seed repeats them; the first logprobs are those of the text."""
    _, sampler = w.shared()
    params = w.params(temperature=0.9, seed=11, top_k=40, top_p=0.95)
    # One after the other: in one batch, or not, their last digits would differ.
    first, second = (
        done(sampler.sample(prompt=w.prompt(), num_samples=3, sampling_params=params)).sequences for _ in range(2)
    )
    assert [list(one.tokens) for one in first] == [list(one.tokens) for one in second]
    assert len(first) == 3
    for one in first:
        assert 1 <= len(one.tokens) <= 12
        assert len(one.logprobs) == len(one.tokens)
        assert all(value <= 0 for value in one.logprobs)
        assert one.stop_reason in ("stop", "length")
        w.note("tokens", *one.tokens)
        w.note("logprobs", *one.logprobs)
    whole = w.types.ModelInput.from_ints(text(2, 9) + list(first[0].tokens))
    scores = done(sampler.compute_logprobs(whole))
    assert near(scores[9:], first[0].logprobs, 1e-3)


@step()
def prompt_logprobs(w: World) -> None:
    """A prompt's logprobs are those of training; the best k at each place come with them, best first."""
    train, sampler = w.shared()
    answer = done(sampler.sample(w.prompt(), 1, w.params(), include_prompt_logprobs=True, topk_prompt_logprobs=3))
    own = answer.prompt_logprobs
    assert own[0] is None
    assert len(own) == 9
    assert near(own[1:], done(sampler.compute_logprobs(w.prompt()))[1:])
    trained = logprobs(done(train.forward([w.datum(2, 8, weights=[1.0] * 8)], "cross_entropy")))[0]
    assert near(own[1:], trained, 1e-3)
    best = answer.topk_prompt_logprobs
    assert best[0] is None
    assert [len(row) for row in best[1:]] == [3] * 8
    for row, token, value in zip(best[1:], text(2, 9)[1:], own[1:], strict=True):
        assert [score for _, score in row] == sorted((score for _, score in row), reverse=True)
        assert all(close(score, value) for candidate, score in row if candidate == token)
        w.note("best", *itertools.chain(*row))
    w.note("logprobs", *own[1:])
    plain = done(sampler.sample(w.prompt(), 1, w.params()))
    assert plain.prompt_logprobs is None
    assert plain.topk_prompt_logprobs is None


@step()
def stops(w: World) -> None:
    """A stop is a token, a text or several; what it ends includes it."""
    train, sampler = w.shared()
    words = train.get_tokenizer()

    def draw(stop: Any) -> Any:
        return done(sampler.sample(w.prompt(), 1, w.params(max_tokens=16, stop=stop))).sequences[0]

    free = draw([])
    assert (len(free.tokens), free.stop_reason) == (16, "length")
    tokens = list(free.tokens)
    ending = tokens[5]
    stopped = draw([ending])
    assert stopped.stop_reason == "stop"
    assert list(stopped.tokens) == tokens[: tokens.index(ending) + 1]
    said = words.decode(tokens[4:7])
    for stop in (said, ["never said", said]):
        spoken = draw(stop)
        got = list(spoken.tokens)
        assert spoken.stop_reason == "stop"
        assert got == tokens[: len(got)]
        assert said in words.decode(got)
        assert said not in words.decode(got[:-1])
        w.note("tokens", *got)


@step()
def policy_gradient(w: World) -> None:
    """What was just sampled has a ratio of one, so the loss is minus the sum of the advantages."""
    train, sampler = w.shared()
    prompt = text(2, 9)
    sequences = done(sampler.sample(w.prompt(), 4, w.params(temperature=1.0, seed=3))).sequences
    data, gains = [], 0.0
    for number, one in enumerate(sequences):
        tokens, gain, before = list(one.tokens), number - 1.5, len(prompt) - 1
        gains += gain * len(tokens)
        data.append(
            w.types.Datum(
                model_input=w.types.ModelInput.from_ints(prompt + tokens[:-1]),
                loss_fn_inputs={
                    "target_tokens": prompt[1:] + tokens,
                    "logprobs": [0.0] * before + list(one.logprobs),
                    "advantages": [0.0] * before + [gain] * len(tokens),
                },
            )
        )
    losses = [loss(train.forward(data, name)) for name in ("importance_sampling", "ppo")]
    assert close(losses[0], -gains, 1e-3)
    assert close(losses[1], losses[0], 1e-3)
    w.note("losses", *losses)


@step()
def many_samples(w: World) -> None:
    """Sixty-four prompts in flight come back each to its own future."""
    _, sampler = w.shared()
    prompts = [w.types.ModelInput.from_ints(text(number, 3 + number % 5)) for number in range(64)]
    futures = [sampler.compute_logprobs(prompt) for prompt in prompts]
    scores = [done(future) for future in futures]
    assert [len(one) for one in scores] == [3 + number % 5 for number in range(64)]
    for number in (0, 17, 63):
        alone = done(sampler.compute_logprobs(prompts[number]))
        assert near(scores[number][1:], alone[1:])
    w.note("scores", *(one[1] for one in scores))


@step(since="0.26")
def rich_samples(w: World) -> None:
    """The newest generation asks for more: the best k at each sampled place, named targets, the last n of a prompt."""
    _, sampler = w.shared()
    one = done(sampler.sample(w.prompt(), 1, w.params(max_tokens=4, stop=[]), topk_sample_logprobs=3)).sequences[0]
    assert [len(row) for row in one.topk_logprobs] == [3] * 4
    assert [row[0][0] for row in one.topk_logprobs] == list(one.tokens)
    assert near([row[0][1] for row in one.topk_logprobs], one.logprobs)
    own = done(sampler.compute_logprobs(w.prompt()))
    last = done(sampler.compute_logprobs(w.prompt(), prompt_logprobs_last_n=2))
    assert all(value is None for value in last[:-2])
    assert near(last[-2:], own[-2:])
    targets = w.types.TensorData(data=text(2, 9)[1:], dtype="int64", shape=[8, 1])
    answer = done(sampler.sample(w.prompt(), 1, w.params(max_tokens=1), target_prompt_logprobs=targets))
    assert near(answer.target_prompt_logprobs.to_numpy()[:, 0].tolist(), own[1:])
    answer = done(sampler.sample(w.prompt(), 1, w.params(max_tokens=1), prompt_alt_tokens_k=2))
    assert list(answer.prompt_alt_tokens.tokens.shape) == [8, 2]


@step(since="0.26")
def sequence_ids(w: World) -> None:
    """Each sampled sequence has a name of its own."""
    _, sampler = w.shared()
    params = w.params(temperature=1.0)
    names = [
        one.sequence_id
        for _ in range(2)
        for one in done(sampler.sample(prompt=w.prompt(), num_samples=3, sampling_params=params)).sequences
    ]
    assert len(set(names)) == 6


@step(since="0.26", clients=("tinker",))
def handles(w: World) -> None:
    """A sampler passed on as a text or a pickle gives the same tokens."""
    _, sampler = w.shared()
    copies = [
        sampler,
        w.sdk.SamplingClient.from_sampler_handle(sampler.get_sampler_handle(), api_key=w.address["api_key"]),
        pickle.loads(pickle.dumps(sampler)),
    ]
    tokens = [list(done(one.sample(w.prompt(), 1, w.params())).sequences[0].tokens) for one in copies]
    assert tokens[0] == tokens[1] == tokens[2]


@step(since="0.26", clients=("tinker",))
def inflight(w: World) -> None:
    """A sampler that follows its model gives other scores once the model has learned and was saved again."""
    train = w.train()
    before = done(train.save_weights_and_get_sampling_client(kind="inflight"))
    old = done(before.compute_logprobs(w.prompt()))
    steps(train, w, 4)
    done(train.save_weights_and_get_sampling_client(kind="inflight"))
    new = done(before.compute_logprobs(w.prompt()))
    assert sum(new[1:]) > sum(old[1:])
