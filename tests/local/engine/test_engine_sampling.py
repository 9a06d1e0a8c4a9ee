"""Sampling: what is drawn, when it ends, what is reported, and that the company in a batch does not matter."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.types import AdamParams, Datum, ModelInput, SampleResponse, TensorData

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

pytestmark = pytest.mark.engine

PROMPT = [256, 104, 105]


@pytest.fixture
def sampler(bench, tmp_path):
    """The bench with sampler ``s`` of model ``a`` and sampler ``base`` of the base alone."""
    bench.sampler_of(tmp_path / "s")
    bench.engine.open_sampler("base", bench.base_model, None)
    return bench


def forward_logprobs(bench, prompt: list[int], tokens: list[int], model_id: str = "a") -> list[float]:
    """What training's forward says of ``tokens`` after ``prompt``."""
    full = [*prompt, *tokens]
    datum = Datum(model_input=ModelInput.from_ints(full[:-1]), loss_fn_inputs={"target_tokens": full[1:]})
    return bench.logprobs([datum], model_id)[0][len(prompt) - 1 :]


def distribution(bench, prompt: list[int], temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the next token under model ``a``, from training's forward over all tokens as targets."""
    targets = np.zeros((len(prompt), 272), dtype=np.int64)
    targets[-1] = np.arange(272)
    datum = Datum(model_input=ModelInput.from_ints(prompt), loss_fn_inputs={"target_tokens": targets})
    logprobs = np.array(bench.run([datum], backward=False).loss_fn_outputs[0]["logprobs"].tolist()[-1])
    weights = np.exp((logprobs - logprobs.max()) / temperature)
    return weights / weights.sum()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_logprobs_are_those_of_trainings_forward(sampler, temperature: float) -> None:
    """At any temperature, with any filter, the reported logprobs are the model's own for the tokens drawn."""
    for row in sampler.sample(
        PROMPT, num_samples=3, max_tokens=20, stop=[], temperature=temperature, top_p=0.9, seed=1
    ):
        expected = forward_logprobs(sampler, PROMPT, row.tokens)
        assert row.logprobs == pytest.approx(expected, abs=1e-5)
        assert (len(row.tokens), row.stop_reason) == (20, "length")


def test_a_seed_gives_the_same_tokens_in_any_company(sampler, ask) -> None:
    """A seeded request yields the same tokens alone, among others, with fewer samples, and again; others differ."""
    mine = ask(PROMPT, 3, max_tokens=15, stop=[], seed=5)
    others = [
        ask([1, 2, 3, 4, 5, 6, 7, 8, 9], 2, max_tokens=30, stop=[]),
        ask([9], 5, max_tokens=2, stop=[], temperature=0.3, top_k=3),
        ask([50] * 40, 1, max_tokens=25, top_p=0.5, seed=5, prompt_logprobs=True),
    ]
    (alone,) = sampler.engine.sample("s", [mine])
    tokens = [row.tokens for row in alone.sequences]
    crowd = sampler.engine.sample("s", [*others[:2], mine, others[2], mine])
    for answer in (crowd[2], crowd[4]):
        assert [row.tokens for row in answer.sequences] == tokens
        for row, twin in zip(answer.sequences, alone.sequences, strict=True):
            assert row.logprobs == pytest.approx(twin.logprobs, abs=1e-5)
    assert sampler.sample(PROMPT, max_tokens=15, stop=[], seed=5)[0].tokens == tokens[0]
    assert len({tuple(row) for row in tokens}) == 3
    assert sampler.sample(PROMPT, max_tokens=15, stop=[], seed=6)[0].tokens != tokens[0]


def test_without_a_seed_draws_differ(sampler) -> None:
    """Two requests without a seed do not repeat each other."""
    first, second = (sampler.sample(PROMPT, max_tokens=20, stop=[])[0].tokens for _ in range(2))
    assert first != second


def test_more_rows_than_fit_one_batch_are_all_answered(sampler, ask) -> None:
    """150 samples of one request and some of another come back complete and as they would have alone."""
    many, few = sampler.engine.sample(
        "s", [ask(PROMPT, 150, max_tokens=3, seed=1), ask([7, 8], 2, max_tokens=5, seed=2)]
    )
    assert len(many.sequences) == 150
    assert [row.tokens for row in few.sequences] == [
        row.tokens for row in sampler.sample([7, 8], num_samples=2, max_tokens=5, seed=2)
    ]
    again = sampler.sample(PROMPT, num_samples=100, max_tokens=3, seed=1)
    assert [row.tokens for row in many.sequences[:100]] == [row.tokens for row in again]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, -1, 1.0), (0.6, -1, 1.0), (1.0, 5, 1.0), (1.3, 20, 0.7)]
)
def test_draws_follow_the_distribution(sampler, temperature: float, top_k: int, top_p: float) -> None:
    """5120 draws fit the softmax after temperature, top_k and top_p by a chi-square test, and none is outside."""
    weights = distribution(sampler, PROMPT, temperature)
    order = np.argsort(-weights, kind="stable")
    kept = order[: top_k if top_k > 0 else None]
    sums = np.cumsum(weights[kept]) / weights[kept].sum()
    kept = kept[: int(np.searchsorted(sums, top_p)) + 1]
    options = {"max_tokens": 1, "stop": [], "temperature": temperature, "top_k": top_k, "top_p": top_p}
    counts: Counter[int] = Counter()
    for seed in range(20):
        rows = sampler.sample(PROMPT, num_samples=256, seed=seed, **options)
        counts.update(row.tokens[0] for row in rows)
    assert set(counts) <= set(kept.tolist())
    expected = weights[kept] / weights[kept].sum() * 5120
    observed = np.array([counts[token] for token in kept.tolist()])
    # Rare tokens are counted together, as the test wants about five of each.
    common = expected >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    degrees = len(expected) - 1
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert chi_square < degrees + 5 * math.sqrt(2 * degrees)


def test_the_ends_of_the_unit_interval_draw_tokens_that_may_be_drawn() -> None:
    """Chance 0 takes the first token that has any probability, a chance just below 1 the last."""
    from tinkex.local.engine.drawing import Drawing
    from tinkex.types import SamplingParams

    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, 0.5]]).repeat(2, 1)
    drawing = Drawing.of([SamplingParams(top_k=3)] * 2, 5, torch.device("cpu"))
    assert drawing.draw(logits, [0.0, math.nextafter(1, 0)])[0] == [1, 3]


def test_temperature_zero_takes_the_most_likely_token(sampler) -> None:
    """Greedy rows are all alike, each token the best of its distribution; a tiny temperature does the same."""
    rows = sampler.sample(PROMPT, num_samples=2, max_tokens=6, stop=[], temperature=0)
    assert rows[0] == rows[1]
    prompt = list(PROMPT)
    for token in rows[0].tokens:
        assert token == int(distribution(sampler, prompt).argmax())
        prompt.append(token)
    cold = sampler.sample(PROMPT, max_tokens=6, stop=[], temperature=1e-30)
    assert cold[0].tokens == rows[0].tokens
    mixed = sampler.sample(PROMPT, max_tokens=6, stop=[], top_k=1)
    assert mixed[0].tokens == rows[0].tokens


def long_sample(bench, **options) -> list[int]:
    """Forty tokens with nothing to stop them."""
    return bench.sample(PROMPT, max_tokens=40, stop=[], seed=3, **options)[0].tokens


def test_stop_tokens_end_a_sequence_and_stay_in_it(sampler) -> None:
    """The first of the given ids ends it, with reason stop; the end token does not count unless it is given."""
    free = long_sample(sampler)
    wanted = free[10:12]
    cut = min(free.index(token) for token in wanted) + 1
    (row,) = sampler.sample(PROMPT, max_tokens=40, seed=3, stop=wanted)
    assert (row.tokens, row.stop_reason) == (free[:cut], "stop")


def test_without_stop_the_end_token_ends_and_with_an_empty_list_nothing_does(sampler) -> None:
    """None means the model's end token, [] means that even that is passed."""
    sampler.engine._bases[sampler.base_model].end_tokens = frozenset([long_sample(sampler)[7]])
    free = long_sample(sampler)
    assert len(free) == 40
    (row,) = sampler.sample(PROMPT, max_tokens=40, seed=3)
    assert (row.tokens, row.stop_reason) == (free[: free.index(free[7]) + 1], "stop")


@pytest.mark.parametrize(("configured", "expected"), [(None, set()), (257, {257}), ([5, 257], {5, 257})])
def test_the_end_tokens_are_those_of_the_models_configuration(bench, configured, expected: set[int]) -> None:
    """One, several or none."""
    base = bench.engine._bases[bench.base_model]
    base.model.generation_config.eos_token_id = base.model.config.eos_token_id = configured
    assert base.end_tokens == expected


def test_a_stop_text_ends_a_sequence_where_it_is_complete(sampler) -> None:
    """A text of several tokens, given alone or in a list, ends the sequence after its last token."""

    class OneCharacterATokenizer:
        def decode(self, tokens, **_):
            return "".join(chr(0x4E00 + token) for token in tokens)

    tokenizer = sampler.engine._bases[sampler.base_model].tokenizer = OneCharacterATokenizer()
    free = long_sample(sampler)
    text = tokenizer.decode(free[10:13])
    end = tokenizer.decode(free).index(text) + 3
    for stop in (text, ["never this", text]):
        (row,) = sampler.sample(PROMPT, max_tokens=40, seed=3, stop=stop)
        assert (row.tokens, row.stop_reason) == (free[:end], "stop")


def test_a_special_token_can_be_a_stop_text(bench) -> None:
    """The text of the end token matches although decoders usually hide special tokens."""
    from tinkex.local.engine.stops import Stops

    base = bench.engine._bases[bench.base_model]
    stops = Stops.of(["<|end|>"], base)
    assert not stops.ended([104, 105])
    assert stops.ended([104, 257])


def test_a_stop_text_of_several_bytes_matches_when_its_last_byte_arrives() -> None:
    """A character split over tokens counts only when whole; text before the window does not matter."""
    from tinkex.local.engine.stops import Stops

    class Bytes:
        def decode(self, tokens, **_):
            return bytes(tokens).decode(errors="replace")

    stops = Stops(frozenset(), ("né",), Bytes())
    tokens = list(("x" * 50 + "né").encode())
    assert [stops.ended(tokens[: n + 1]) for n in range(len(tokens))] == [False] * (len(tokens) - 1) + [True]


def test_max_tokens_is_by_default_what_is_left_of_the_context(sampler) -> None:
    """128 places, 3 of them taken by the prompt: 125 tokens, then length."""
    (row,) = sampler.sample(PROMPT, stop=[])
    assert (len(row.tokens), row.stop_reason) == (125, "length")


def test_prompt_logprobs_are_those_of_trainings_forward(sampler, ask) -> None:
    """None first, then one for each token; prompts of other lengths in the batch change nothing."""
    prompts = [[256, 1, 2, 3, 4, 5, 6], [9, 8], [7]]
    answers = sampler.engine.sample("s", [ask(prompt, max_tokens=1, prompt_logprobs=True) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = forward_logprobs(sampler, prompt[:1], prompt[1:]) if len(prompt) > 1 else []
        assert answer.prompt_logprobs[0] is None
        assert answer.prompt_logprobs[1:] == pytest.approx(expected, abs=1e-5)
        assert answer.topk_prompt_logprobs is None


def test_topk_prompt_logprobs_are_the_best_in_order(sampler, ask) -> None:
    """For each prompt token but the first, the k most likely with their logprobs, best first."""
    prompt = [256, 1, 2, 3]
    (answer,) = sampler.engine.sample("s", [ask(prompt, 2, max_tokens=2, topk_prompt_logprobs=4)])
    assert answer.prompt_logprobs is None
    assert answer.topk_prompt_logprobs[0] is None
    for position in range(1, 4):
        weights = distribution(sampler, prompt[:position])
        best = np.argsort(-weights, kind="stable")[:4]
        pairs = answer.topk_prompt_logprobs[position]
        assert [token for token, _ in pairs] == best.tolist()
        assert [value for _, value in pairs] == pytest.approx(np.log(weights[best]).tolist(), abs=1e-5)


def test_a_bad_request_fails_alone(sampler, ask) -> None:
    """Each answer stands where its request stood: a refusal for the bad ones, samples for the good."""
    good = ask(PROMPT, max_tokens=2, seed=1)
    answers = sampler.engine.sample("s", [ask([300]), good, ask([1] * 200), good])
    assert [type(answer) for answer in answers] == [
        InvalidInputError,
        SampleResponse,
        InvalidInputError,
        SampleResponse,
    ]
    assert answers[1] == answers[3]
    assert "300" in str(answers[0])


def test_weights_that_are_not_finite_fail_the_request(bench, ask, tmp_path) -> None:
    """A model gone astray gives an error, not tokens."""
    bench.adapter().assign(torch.full_like(bench.adapter().flat(), float("nan")))
    bench.sampler_of(tmp_path / "s")
    for request in (ask(PROMPT), ask(PROMPT, prompt_logprobs=True), ask(PROMPT, temperature=0)):
        (answer,) = bench.engine.sample("s", [request])
        assert isinstance(answer, RequestFailedError)
        assert answer.category == "user"


def test_a_sampler_is_frozen(sampler, data, tmp_path) -> None:
    """Training on, overwriting the files and dropping the model change nothing of a sampler, and it nothing of them."""
    before = sampler.sample(PROMPT, max_tokens=10, stop=[], seed=2)
    sampler.run(data([6]))
    gradient = sampler.gradient().clone()
    loss = sampler.run(data([6]), backward=False).metrics["loss:sum"]
    assert sampler.sample(PROMPT, max_tokens=10, stop=[], seed=2) == before
    assert torch.equal(sampler.gradient(), gradient)
    assert sampler.run(data([6]), backward=False).metrics["loss:sum"] == loss
    sampler.engine.optim_step("a", AdamParams(learning_rate=0.1))
    sampler.engine.save("a", tmp_path / "s", optimizer=False)
    assert sampler.sample(PROMPT, max_tokens=10, stop=[], seed=2) == before
    sampler.engine.drop_model("a")
    assert sampler.sample(PROMPT, max_tokens=10, stop=[], seed=2) == before


def test_samplers_of_one_base_keep_apart(sampler, data, tmp_path) -> None:
    """Base, first and second snapshot answer in turns as each does alone."""
    sampler.run(data([6]))
    sampler.engine.optim_step("a", AdamParams(learning_rate=0.1))
    sampler.sampler_of(tmp_path / "t", sampler="t")
    options = {"max_tokens": 10, "stop": [], "seed": 2}
    first = {name: sampler.sample(PROMPT, name, **options) for name in ("s", "t", "base")}
    for name in ("base", "t", "s", "t"):
        assert sampler.sample(PROMPT, name, **options) == first[name]
    assert first["s"] != first["t"] != first["base"] != first["s"]
    sampler.engine.close_sampler("s")
    sampler.engine.close_sampler("s")
    with pytest.raises(InvalidInputError, match="no sampler 's'"):
        sampler.sample(PROMPT, "s")


def test_a_large_model_samples_through_an_adapter_with_the_same_result(sampler, monkeypatch) -> None:
    """Above the size where weights are added to the base's, tokens and logprobs are the same, and nothing is left."""
    options = {"max_tokens": 12, "stop": [], "seed": 2}
    small = sampler.sample(PROMPT, **options)[0]
    monkeypatch.setattr("tinkex.local.engine.bases.SMALL", 1)
    large = sampler.sample(PROMPT, **options)[0]
    assert large.tokens == small.tokens
    assert large.logprobs == pytest.approx(small.logprobs, abs=1e-5)
    names = {path.split(".")[-2] for path, _ in sampler.engine._bases[sampler.base_model].model.named_parameters()}
    assert {name for name in names if name.startswith("m") and name[1:].isdigit()} == {sampler.adapter().name}


@pytest.fixture
def reads(sampler, monkeypatch) -> list[tuple[int, int, bool]]:
    """What the model is given to read from now on: rows, tokens each, and whether only the last logits are wanted."""
    model = sampler.engine._bases[sampler.base_model].model
    plain, seen = model.forward, []

    def forward(*args, **options):
        seen.append((*options["input_ids"].shape, options.get("logits_to_keep") == 1))
        return plain(*args, **options)

    monkeypatch.setattr(model, "forward", forward)
    return seen


def test_a_prompt_is_read_once_for_up_to_64_rows_and_its_logits_once(sampler, ask, reads) -> None:
    """150 samples of a prompt read it three times, 64 rows go on together, and all its logits are computed once."""
    sampler.engine.sample("s", [ask(PROMPT, 150, max_tokens=2, stop=[], prompt_logprobs=True)])
    assert reads == [(1, 3, False), (64, 1, True), (1, 3, True), (64, 1, True), (1, 3, True), (22, 1, True)]


def test_rows_that_have_ended_are_dropped(sampler, ask, reads) -> None:
    """Of eight rows, those that ended take no more part once an eighth has."""
    sampler.engine.sample("s", [ask(PROMPT, max_tokens=number + 2, stop=[]) for number in range(8)])
    assert [rows for rows, _, _ in reads] == [8, 8, 7, 6, 5, 4, 3, 2, 1]


def test_prompts_read_together_stay_within_the_token_limit(sampler, ask, reads) -> None:
    """Prompts whose logprobs are asked for count once, others an eighth, and the two kinds do not mix."""
    sampler.engine._microbatch_tokens = 30
    asking = [ask([number + 1] * 12, max_tokens=1, prompt_logprobs=True) for number in range(3)]
    sampler.engine.sample("s", [*(ask([9] * 12, max_tokens=1) for _ in range(25)), *asking])
    assert reads == [(20, 12, True), (5, 12, True), (2, 12, False), (1, 12, False)]


def test_a_batch_of_long_prompts_is_cut_to_the_token_limit(new_bench, ask, tmp_path) -> None:
    """With a small limit the prompts are read in several goes, and the answers are the same."""
    requests = [
        ask([number + 1] * (10 + number), 2, max_tokens=4, seed=number, prompt_logprobs=True) for number in range(6)
    ]
    answers = []
    for limit in (24, 4096):
        bench = new_bench(microbatch_tokens=limit)
        bench.create("a")
        bench.sampler_of(tmp_path / f"s{limit}")
        answers.append(bench.engine.sample("s", requests))
    for one, other in zip(*answers, strict=True):
        assert [row.tokens for row in one.sequences] == [row.tokens for row in other.sequences]
        assert one.prompt_logprobs[1:] == pytest.approx(other.prompt_logprobs[1:], abs=1e-5)


def test_chosen_tokens_of_a_prompt_are_scored(sampler, ask) -> None:
    """Dense and sparse questions get the model's logprobs of the tokens named, in their own layout; -1 gets 0."""
    prompt = [*PROMPT, 7, 9]
    ids = torch.tensor([[104, 3], [105, -1], [-1, -1], [9, 250]])
    expected = np.array([distribution(sampler, prompt[: place + 1]) for place in range(4)])
    wanted = np.where(ids < 0, 0.0, np.log(expected[np.arange(4)[:, None], ids.clamp(min=0)]))
    for asked in (TensorData.from_torch(ids), TensorData.from_torch_sparse(ids, pad_value=-1)):
        (answer,) = sampler.engine.sample("s", [ask(prompt, max_tokens=1, target_prompt_logprobs=asked)])
        got = answer.target_prompt_logprobs
        assert asked.is_sparse == got.is_sparse
        np.testing.assert_allclose(got.to_numpy(), wanted, atol=1e-4)


def test_other_tokens_of_a_prompt_are_drawn_from_the_models_own_distribution(sampler, ask) -> None:
    """Each place has k draws with their logprobs; a seed repeats them, and temperature 0 takes the likeliest."""
    prompt = [*PROMPT, 7, 9]
    (first,) = sampler.engine.sample("s", [ask(prompt, max_tokens=1, prompt_alt_tokens_k=20, seed=1)])
    (again,) = sampler.engine.sample("s", [ask(prompt, 3, max_tokens=2, prompt_alt_tokens_k=20, seed=1)])
    tokens = first.prompt_alt_tokens.tokens.to_numpy()
    assert (tokens == again.prompt_alt_tokens.tokens.to_numpy()).all()
    assert (4, 20) == tokens.shape
    assert len(np.unique(tokens)) > 4
    truth = np.array([distribution(sampler, prompt[: place + 1]) for place in range(4)])
    expected = np.log(np.take_along_axis(truth, tokens, axis=1))
    np.testing.assert_allclose(first.prompt_alt_tokens.logprobs.to_numpy(), expected, atol=1e-4)
    (greedy,) = sampler.engine.sample("s", [ask(prompt, max_tokens=1, prompt_alt_tokens_k=2, temperature=0.0)])
    assert (truth.argmax(1)[:, None] == greedy.prompt_alt_tokens.tokens.to_numpy()).all()


def test_the_likeliest_tokens_of_each_generated_place_are_reported(sampler) -> None:
    """topk_sample_logprobs gives k pairs for each token, best first, those of the model before temperature."""
    plain, row = (
        sampler.sample(PROMPT, max_tokens=5, stop=[], temperature=0.0, topk_sample_logprobs=k)[0] for k in (0, 3)
    )
    assert plain.topk_logprobs is None
    assert [3] * 5 == [len(pairs) for pairs in row.topk_logprobs]
    assert row.tokens == [pairs[0][0] for pairs in row.topk_logprobs]
    assert row.logprobs == pytest.approx([pairs[0][1] for pairs in row.topk_logprobs])
    assert all(pairs == sorted(pairs, key=lambda pair: -pair[1]) for pairs in row.topk_logprobs)


def test_only_the_last_tokens_of_a_prompt_are_scored(sampler, ask) -> None:
    """prompt_logprobs_last_n leaves out the entries before, and changes nothing about those it keeps."""
    prompt, asked = [*PROMPT, 7, 9], {"prompt_logprobs": True, "topk_prompt_logprobs": 2, "max_tokens": 1}
    whole, part = sampler.engine.sample("s", [ask(prompt, **asked), ask(prompt, **asked, prompt_logprobs_last_n=2)])
    assert [None] * 3 == part.prompt_logprobs[:3] == part.topk_prompt_logprobs[:3]
    assert whole.prompt_logprobs[3:] == part.prompt_logprobs[3:]
    assert whole.topk_prompt_logprobs[3:] == part.topk_prompt_logprobs[3:]
