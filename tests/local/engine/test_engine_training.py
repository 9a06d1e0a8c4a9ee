"""Forward, backward and the optimizer: batches, accumulation, independence of models."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.types import AdamParams, ForwardBackwardInput, LoraConfig, TensorData

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

pytestmark = pytest.mark.engine

STEP = AdamParams(learning_rate=0.01)
PROMPT = [256, 104, 105]


def test_a_padded_batch_gives_what_each_datum_gives_alone(bench, data) -> None:
    """Logprobs, loss and gradient of a batch of many lengths are those of its datums one by one, in request order."""
    batch = data([17, 2, 40, 9, 1])
    together = bench.run(batch)
    gradient = bench.gradient()
    bench.engine._models["a"].gradient = None
    alone = [bench.run([datum]) for datum in batch]
    for own, output in zip(together.loss_fn_outputs, alone, strict=True):
        np.testing.assert_allclose(own["logprobs"].data, output.loss_fn_outputs[0]["logprobs"].data, atol=1e-5)
    assert together.metrics["loss:sum"] == pytest.approx(sum(output.metrics["loss:sum"] for output in alone), abs=1e-4)
    assert torch.allclose(gradient, bench.gradient(), atol=1e-5 * float(gradient.abs().max()))


def test_the_size_of_a_micro_batch_changes_nothing_but_memory(new_bench, data) -> None:
    """With 16 or 4096 tokens at once, loss, logprobs and gradient are the same; a longer datum still runs."""
    batch = data([17, 2, 40, 9, 1, 5])
    small, large = new_bench(microbatch_tokens=16), new_bench(microbatch_tokens=4096)
    results = []
    for bench in (small, large):
        bench.create("a")
        results.append((bench.run(batch), bench.gradient()))
    (one, left), (other, right) = results
    assert one.metrics["loss:sum"] == pytest.approx(other.metrics["loss:sum"], abs=1e-4)
    for own, twin in zip(one.loss_fn_outputs, other.loss_fn_outputs, strict=True):
        np.testing.assert_allclose(own["logprobs"].data, twin["logprobs"].data, atol=1e-5)
    assert torch.allclose(left, right, atol=1e-5 * float(right.abs().max()))


def test_micro_batches_stay_within_their_limit(bench, data) -> None:
    """Rows times the longest row never exceeds the limit, unless a row alone does."""
    from tinkex.local.engine.objectives import objective_of
    from tinkex.local.engine.training import _to_row, microbatches

    chance = np.random.default_rng(1)
    batch = ForwardBackwardInput(data=data([int(n) for n in chance.integers(1, 90, 40)]), loss_fn="cross_entropy")
    rows = [_to_row(index, datum, objective_of(batch, None)) for index, datum in enumerate(batch.data)]
    parts = list(microbatches(rows, 64))
    assert sorted(row.index for part in parts for row in part) == list(range(40))
    assert all(len(part) == 1 or len(part) * max(len(row.tokens) for row in part) <= 64 for part in parts)
    assert len(parts) < 40


def test_a_large_vocabulary_makes_micro_batches_smaller(bench, monkeypatch) -> None:
    """Tokens times vocabulary stays below the limit on logits, and one token always fits."""
    base = bench.engine._bases[bench.base_model]
    limits = []
    for logits in (1 << 27, 272 * 100 + 5, 3):
        monkeypatch.setattr("tinkex.local.engine.torch_hf._LOGITS", logits)
        limits.append(bench.engine._limit(base))
    assert limits == [2048, 100, 1]


def test_gradients_of_two_calls_add_up(bench, data) -> None:
    """Two forward_backwards accumulate what one over all the data does; forward adds nothing."""
    batch = data([8, 5, 12, 3])
    bench.run(batch)
    whole = bench.gradient()
    bench.engine._models["a"].gradient = None
    bench.run(batch[:1])
    bench.run(batch, backward=False)
    bench.run(batch[1:])
    assert torch.allclose(whole, bench.gradient(), atol=1e-5 * float(whole.abs().max()))


def test_a_fresh_adapter_changes_nothing(bench, data) -> None:
    """Before its first step a new model computes exactly what the base does, and its first gradient is not zero."""
    bench.engine.create_model("fresh", bench.base_model, LoraConfig(rank=4, seed=1))
    (datum,) = data([20])
    base = bench.engine._bases[bench.base_model]
    base.activate(None)
    with torch.no_grad():
        logits = base.model(torch.tensor([datum.model_input.to_ints()])).logits[0]
    targets = torch.tensor(datum.loss_fn_inputs["target_tokens"].data).unsqueeze(1)
    plain = torch.log_softmax(logits, -1).gather(-1, targets)[:, 0].tolist()
    assert bench.logprobs([datum], "fresh")[0] == pytest.approx(plain, abs=1e-6)
    assert bench.logprobs([datum], "a")[0] != pytest.approx(plain, abs=1e-2)
    bench.run([datum], model_id="fresh")
    assert float(bench.gradient("fresh").norm()) > 0


def test_the_seed_alone_decides_the_initial_weights(bench) -> None:
    """The same seed gives the same adapter whatever was made before; other seeds, and none, give others."""
    for number, seed in enumerate([5, 5, 6, None, None, -(2**63)]):
        bench.engine.create_model(f"m{number}", bench.base_model, LoraConfig(rank=2, seed=seed))
        torch.rand(3)
    first, twin, other, free, free_too, _ = (bench.adapter(f"m{number}").flat() for number in range(6))
    assert torch.equal(first, twin)
    assert not torch.equal(first, other)
    assert not torch.equal(free, free_too)


def test_making_a_model_leaves_the_global_generator_alone(bench) -> None:
    """Whoever seeded torch for work of their own draws the same numbers with an engine in the process."""
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    bench.engine.create_model("b", bench.base_model, LoraConfig(rank=3, seed=2))
    assert torch.equal(torch.rand(4), expected)


def test_models_trained_in_turns_are_as_if_each_were_alone(new_bench, data) -> None:
    """Losses and weights of two interleaved models are bit-equal to those of the same models in engines alone."""
    plans = {"a": data([9, 4], seed=1), "b": data([6, 6, 6], seed=2)}
    losses: dict[str, list[float]] = {"a": [], "b": []}
    shared = new_bench()
    shared.create("a", rank=4)
    shared.create("b", rank=2, seed=9, train_mlp=False)
    for _ in range(3):
        for name, batch in plans.items():
            losses[name].append(shared.run(batch, model_id=name).metrics["loss:sum"])
        for name in plans:
            shared.engine.optim_step(name, STEP)
    for name, settings in (("a", {"rank": 4}), ("b", {"rank": 2, "seed": 9, "train_mlp": False})):
        alone = new_bench()
        alone.create(name, **settings)
        own = []
        for _ in range(3):
            own.append(alone.run(plans[name], model_id=name).metrics["loss:sum"])
            alone.engine.optim_step(name, STEP)
        assert losses[name] == own
        assert torch.equal(shared.adapter(name).flat(), alone.adapter(name).flat())
    assert losses["a"][-1] < losses["a"][0]


def test_a_dropped_model_is_gone_and_the_others_go_on(bench, data) -> None:
    """Dropping the active model, another and an unknown one leaves the rest working, and their gradients."""
    bench.create("b", seed=8)
    bench.run(data([5]), model_id="b")
    before, loss = bench.gradient("b"), bench.run(data([7]), model_id="b", backward=False).metrics["loss:sum"]
    bench.run(data([5]))
    bench.engine.drop_model("a")
    bench.engine.drop_model("a")
    assert bench.gradient("b") is before
    assert bench.run(data([7]), model_id="b", backward=False).metrics["loss:sum"] == loss
    with pytest.raises(InvalidInputError, match="no model 'a'"):
        bench.run(data([5]))
    bench.engine.drop_model("b")
    bench.create("a")
    bench.run(data([5]))
    model = bench.engine._bases[bench.base_model].model
    left = {path.split(".")[-2] for path, _ in model.named_parameters() if ".lora_" in path}
    assert left == {bench.adapter("a").name}


@pytest.mark.parametrize(
    "params",
    [
        AdamParams(learning_rate=0.01),
        AdamParams(learning_rate=0.003, beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.2),
        AdamParams(learning_rate=0.02, grad_clip_norm=0.7),
        AdamParams(learning_rate=0.02, grad_clip_norm=1e9),
    ],
)
def test_a_step_is_the_one_of_torchs_adamw_with_clipping(bench, data, params: AdamParams) -> None:
    """Three steps with these settings end where torch.optim.AdamW and clip_grad_norm_ end; the norm is reported."""
    mine = torch.nn.Parameter(bench.adapter().flat())
    reference = torch.optim.AdamW(
        [mine],
        lr=params.learning_rate,
        betas=(params.beta1, params.beta2),
        eps=params.eps,
        weight_decay=params.weight_decay,
    )
    for seed in range(3):
        bench.run(data([6, 3], seed=seed))
        mine.grad = bench.gradient().clone()
        norm = float(mine.grad.norm())
        if params.grad_clip_norm:
            torch.nn.utils.clip_grad_norm_([mine], params.grad_clip_norm)
        reference.step()
        metrics = bench.engine.optim_step("a", params).metrics
        assert metrics == {"unclipped_grad_l2:mean": pytest.approx(norm, rel=1e-5)}
        assert bench.gradient() is None
        torch.testing.assert_close(bench.adapter().flat(), mine.detach(), rtol=1e-5, atol=1e-6)


def test_a_step_without_a_gradient_is_one_with_a_gradient_of_zero(bench, data, caplog) -> None:
    """Without a forward_backward before it, a fresh optimizer moves nothing but the decay, and the log says so."""
    before = bench.adapter().flat()
    with caplog.at_level(logging.WARNING, logger="tinkex.local.engine.torch_hf"):
        answer = bench.engine.optim_step("a", AdamParams(learning_rate=0.1, weight_decay=0.5))
    assert answer.metrics == {"unclipped_grad_l2:mean": 0.0}
    torch.testing.assert_close(bench.adapter().flat(), before * 0.95)
    assert "gradient is zero" in caplog.text


def test_a_step_that_would_not_be_finite_changes_nothing(bench, data) -> None:
    """With eps 0 a gradient of zero divides zero by zero: refused, with weights, moments and gradient as before."""
    bench.run(data([5]))
    before, gradient = bench.adapter().flat(), bench.gradient()
    gradient[0] = 0.0
    with pytest.raises(RequestFailedError, match="eps above 0") as caught:
        bench.engine.optim_step("a", AdamParams(eps=0.0))
    assert caught.value.category == "user"
    assert torch.equal(bench.adapter().flat(), before)
    assert bench.gradient() is gradient
    assert bench.engine._models["a"].optimizer.steps == 0


def test_a_failing_batch_leaves_the_model_as_it_was(bench, data, monkeypatch) -> None:
    """If the model itself breaks in the second micro-batch, gradient and weights are those of before."""
    bench.engine._microbatch_tokens = 8
    bench.run(data([4]))
    before, weights = bench.gradient().clone(), bench.adapter().flat()
    model = bench.engine._bases[bench.base_model].model
    calls = iter([None, RuntimeError("no memory left")])
    plain = model.forward

    def breaking(*args, **kwargs):
        error = next(calls)
        if error is not None:
            raise error
        return plain(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", breaking)
        with pytest.raises(RuntimeError, match="no memory"):
            bench.run(data([5, 6, 7]))
    assert torch.equal(bench.gradient(), before)
    assert torch.equal(bench.adapter().flat(), weights)


def in_steps(steps, others):
    """Run a generator to its end, and one of the others at each yield; return its value and the number of yields."""
    number = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, number
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        if others:
            others[number % len(others)]()
        number += 1


def company(bench, batch, ask):
    """What else an engine may be asked for meanwhile: samples, training of another model, models coming and going."""
    engine = bench.engine
    return [
        lambda: engine.sample("s", [ask(PROMPT, 2, max_tokens=4)]),
        lambda: engine.forward("b", batch, backward=True),
        lambda: engine.optim_step("b", STEP),
        lambda: engine.create_model("c", bench.base_model, LoraConfig(rank=2, seed=1)),
        lambda: engine.forward("c", batch, backward=False),
        lambda: engine.drop_model("c"),
    ]


def trained(bench, batch, others):
    """Everything that a batch and a step compute, with the others in between."""
    engine, seen = bench.engine, []
    for backward in (True, False):
        output, yields = in_steps(engine.forward_in_steps("a", batch, backward=backward), others)
        assert yields >= 6
        seen.append((output, bench.gradient().clone()))
    engine.optim_step("a", STEP)
    return [*seen, (engine.forward("a", batch, backward=False), bench.adapter().flat())]


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["sampler-as-adapter", "sampler-in-the-weights"])
@pytest.mark.parametrize("loss_fn", ["cross_entropy", "ppo"])
def test_what_runs_between_the_steps_of_a_batch_does_not_change_it(
    new_bench, data, ask, tmp_path, monkeypatch, loss_fn, small
) -> None:
    """Loss, logprobs, gradient and weights after the step are equal to the last bit."""
    monkeypatch.setattr("tinkex.local.engine.bases.SMALL", small)
    inputs = {name: (lambda chance: chance.gauss(-1, 1)) for name in ("logprobs", "advantages") if loss_fn == "ppo"}
    lengths = [17, 2, 40, 9, 1, 33, 12, 38, 39, 35, 36]
    batch = ForwardBackwardInput(data=data(lengths, **inputs), loss_fn=loss_fn)
    results = []
    for folder in ("alone", "disturbed"):
        bench = new_bench(microbatch_tokens=40)
        bench.create("a", seed=7)
        bench.create("b", seed=8)
        bench.sampler_of(tmp_path / folder, "b")
        results.append(trained(bench, batch, company(bench, batch, ask) if folder == "disturbed" else []))
    for (plain, expected), (output, value) in zip(*results, strict=True):
        assert output == plain
        assert torch.equal(value, expected)


def test_a_batch_that_is_given_up_changes_nothing(bench, data) -> None:
    """Whatever of it was computed, the gradient of the model is what it was before."""
    bench.engine._microbatch_tokens = 8
    bench.run(data([4]))
    before = bench.gradient().clone()
    batch = ForwardBackwardInput(data=data([5, 6, 7]), loss_fn="cross_entropy")
    steps = bench.engine.forward_in_steps("a", batch, backward=True)
    next(steps)
    next(steps)
    steps.close()
    assert torch.equal(bench.gradient(), before)


def test_a_batch_ends_with_its_model(bench, data) -> None:
    """A model that was dropped between two steps, or replaced under its id, is not trained on."""
    bench.engine._microbatch_tokens = 8
    batch = ForwardBackwardInput(data=data([5, 6, 7]), loss_fn="cross_entropy")
    for replaced in (False, True):
        steps = bench.engine.forward_in_steps("a", batch, backward=True)
        next(steps)
        bench.engine.drop_model("a")
        if replaced:
            bench.create("a")
        with pytest.raises(InvalidInputError, match="was dropped while"):
            next(steps)
        if not replaced:
            bench.create("a")
    assert bench.gradient() is None


def test_a_model_gone_astray_is_named_as_such(bench, data) -> None:
    """When the weights themselves are not finite, the error says that the logprobs are, and asks for the rate."""
    bench.adapter().assign(torch.full_like(bench.adapter().flat(), float("nan")))
    with pytest.raises(RequestFailedError, match=r"logprobs of data\[0\] are not finite.*learning rate"):
        bench.run(data([5]))


def test_the_gradient_agrees_with_finite_differences(bench, data) -> None:
    """The slope along a random direction is the difference of two losses, to float32's precision."""
    batch = data([12, 7], weights=lambda chance: chance.gauss(0, 1))
    bench.run(batch)
    start = bench.adapter().flat()
    direction = torch.nn.functional.normalize(bench.gradient(), dim=0)
    losses = []
    for sign in (1, -1):
        bench.adapter().assign(start + sign * 1e-3 * direction)
        losses.append(bench.run(batch, backward=False).metrics["loss:sum"])
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(bench.gradient() @ direction), rel=0.01)


def test_flags_choose_what_is_trained(bench) -> None:
    """train_attn, train_mlp and train_unembed each add their modules and no others."""
    for number, (flag, words) in enumerate(
        [
            ("train_attn", {"q_proj", "k_proj", "v_proj", "o_proj"}),
            ("train_mlp", {"gate_proj", "up_proj", "down_proj"}),
        ]
    ):
        flags = dict.fromkeys(["train_attn", "train_mlp", "train_unembed"], False) | {flag: True}
        bench.create(f"m{number}", **flags)
        assert {path.split(".")[-3] for path in bench.adapter(f"m{number}").parameters} == words
    bench.create("head", train_attn=False, train_mlp=False)
    assert {path.split(".")[-3] for path in bench.adapter("head").parameters} == {"lm_head"}


def test_training_a_model_teaches_it(bench, data) -> None:
    """Thirty steps on two sequences bring their loss below a tenth."""
    batch = data([10, 14])
    first = bench.run(batch).metrics["loss:sum"]
    for _ in range(30):
        bench.engine.optim_step("a", AdamParams(learning_rate=0.01))
        last = bench.run(batch).metrics["loss:sum"]
    assert last < first / 10


def test_numpy_inputs_give_the_results_of_lists(bench, data) -> None:
    """A datum of arrays is the same datum."""
    (listed,) = data([6], weights=lambda chance: chance.random())
    own = listed.loss_fn_inputs
    arrays = {
        "target_tokens": np.array(own["target_tokens"].data),
        "weights": np.array(own["weights"].data, dtype=np.float64),
    }
    packed = type(listed)(model_input=listed.model_input, loss_fn_inputs=arrays)
    assert isinstance(packed.loss_fn_inputs["weights"], TensorData)
    assert bench.run([packed]).metrics["loss:sum"] == pytest.approx(bench.run([listed]).metrics["loss:sum"], rel=1e-6)
