"""The losses: their values, their gradients, and what the engine makes of them; see also test_engine_policies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.types import Datum, TensorData

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tinkex.local.engine.losses import LOSSES, resolve  # noqa: E402

pytestmark = pytest.mark.engine

CONFIGS = {
    "cross_entropy": [{}],
    "importance_sampling": [{}],
    "ppo": [{}, {"clip_low_threshold": 0.5, "clip_high_threshold": 3.0}],
    "cispo": [{}, {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}],
    "dro": [{}, {"beta": 0.7}],
}
CASES = [(name, config) for name, configs in CONFIGS.items() for config in configs]


def by_hand(name: str, config: dict[str, float], new: float, x: dict[str, float]) -> tuple[float, float]:
    """Value and derivative by the logprob of one element, worked out on paper, in Python's own floats."""
    if name == "cross_entropy":
        return -x["weights"] * new, -x["weights"]
    old, gain = x["logprobs"], x["advantages"]
    ratio = math.exp(new - old)
    if name == "importance_sampling":
        return -ratio * gain, -ratio * gain
    if name == "dro":
        beta = config.get("beta", 0.05)
        return -(new * gain - beta / 2 * (new - old) ** 2), -(gain - beta * (new - old))
    low, high = {"ppo": (0.8, 1.2), "cispo": (0.0, 4.0)}[name]
    low, high = config.get("clip_low_threshold", low), config.get("clip_high_threshold", high)
    clipped = min(max(ratio, low), high)
    if name == "cispo":
        return -clipped * new * gain, -clipped * gain
    if ratio * gain <= clipped * gain:
        return -ratio * gain, -ratio * gain
    return -clipped * gain, 0.0


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_loss_and_its_gradient_agree_with_the_formula_on_paper(name: str, config: dict[str, float]) -> None:
    """On 1000 random tokens, value and slope of each loss are those of the published formula."""
    chance = np.random.default_rng(5)
    new = np.log(chance.uniform(1e-3, 1, 1000))
    x = {
        "weights": chance.normal(size=1000),
        "logprobs": new + chance.normal(scale=1.0, size=1000),
        "advantages": chance.normal(scale=2.0, size=1000),
    }
    loss, settings = resolve(name, config)
    logprobs = torch.tensor(new, requires_grad=True)
    elements = loss.formula(logprobs, {key: torch.tensor(value) for key, value in x.items()}, settings)
    (slope,) = torch.autograd.grad(elements.sum(), logprobs)
    paper = [by_hand(name, config, new[i], {key: value[i] for key, value in x.items()}) for i in range(1000)]
    np.testing.assert_allclose(elements.detach().numpy(), [value for value, _ in paper], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slope.numpy(), [derivative for _, derivative in paper], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_engine_sums_the_loss_and_differentiates_it(bench, data, name: str, config: dict[str, float]) -> None:
    """``loss:sum`` is the formula over the returned logprobs; the gradient is its chain rule through them."""
    names = ["weights"] if name == "cross_entropy" else ["logprobs", "advantages"]
    draws = {key: lambda chance: chance.gauss(0, 1) for key in names}
    batch = data([5, 9, 3], **draws)
    new = bench.logprobs(data([5, 9, 3]))
    for datum, own in zip(batch, new, strict=True):
        if "logprobs" in names:
            shifted = np.array(own) + 0.5 * np.array(datum.loss_fn_inputs["logprobs"].tolist())
            datum.loss_fn_inputs["logprobs"] = TensorData(data=shifted, dtype="float32")
    output = bench.run(batch, name, config=config)
    direct = bench.gradient()
    paper = [
        [
            by_hand(name, config, own[i], {key: datum.loss_fn_inputs[key].tolist()[i] for key in names})
            for i in range(len(own))
        ]
        for datum, own in zip(batch, new, strict=True)
    ]
    total = sum(value for row in paper for value, _ in row)
    assert output.metrics["loss:sum"] == pytest.approx(total, rel=1e-5)
    bench.engine._models["a"].gradient = None
    for datum, row in zip(batch, paper, strict=True):
        targets = datum.loss_fn_inputs["target_tokens"]
        weights = TensorData(data=[-slope for _, slope in row], dtype="float32")
        datum.loss_fn_inputs.clear()
        datum.loss_fn_inputs.update(target_tokens=targets, weights=weights)
    bench.run(batch)
    assert torch.allclose(direct, bench.gradient(), rtol=1e-4, atol=1e-5 * float(direct.abs().max()))


def test_cross_entropy_is_minus_the_weighted_sum_of_the_returned_logprobs(bench, data) -> None:
    """Weights of any sign count; without weights each token counts 1; elementwise losses are returned too."""
    weighted = data([4, 11], weights=lambda chance: chance.choice([-2.5, 0.0, 1.0]))
    output = bench.run(weighted)
    expected = [
        [
            -weight * logprob
            for weight, logprob in zip(d.loss_fn_inputs["weights"].tolist(), o["logprobs"].tolist(), strict=True)
        ]
        for d, o in zip(weighted, output.loss_fn_outputs, strict=True)
    ]
    assert output.metrics["loss:sum"] == pytest.approx(sum(map(sum, expected)), abs=1e-4)
    for own, row in zip(output.loss_fn_outputs, expected, strict=True):
        assert own["elementwise_loss"].tolist() == pytest.approx(row)
    plain = bench.run(data([4, 11]))
    logprobs = [value for own in plain.loss_fn_outputs for value in own["logprobs"].tolist()]
    assert plain.metrics == {"loss:sum": pytest.approx(-sum(logprobs), abs=1e-4), "num_tokens:sum": 15.0}
    assert plain.loss_fn_output_type == "CrossEntropyLossReturn"


def test_policy_losses_return_logprobs_only(bench, data) -> None:
    """Importance sampling has its own output type and no elementwise loss."""
    output = bench.run(data([3], logprobs=lambda _: -1.0, advantages=lambda _: 1.0), "importance_sampling")
    assert output.loss_fn_output_type == "ImportanceSamplingLossReturn"
    assert set(output.loss_fn_outputs[0]) == {"logprobs"}


def test_inputs_of_another_loss_change_nothing(bench, data) -> None:
    """Data of one loss can be used with another, also if only some datums have what is not read, or it is all 0."""
    plain, full = data([3, 5, 2], seed=2), data([3, 5, 2], seed=2)
    for name in ("logprobs", "advantages", "sequence_ratio_mask"):
        full[0].loss_fn_inputs[name] = TensorData(data=[0.0] * 3, dtype="float32")
    full[2].loss_fn_inputs["logprobs"] = TensorData(data=[-9.0] * 2, dtype="float32")
    assert bench.run(plain).metrics == bench.run(full).metrics


def test_several_targets_for_each_position_are_summed_over_both(bench, data) -> None:
    """With [N, K] targets and weights the loss sums over N and K, and logprobs come back as [N, K]."""
    (one,) = data([4])
    targets = np.array([[3, 5, 7], [2, 2, 9], [1, 0, 4], [8, 6, 250]])
    weights = np.array([[0.5, 0.25, 0.25], [1, -1, 0], [0, 0, 0], [0.1, 0.2, 0.7]], dtype=np.float32)
    wide = Datum(model_input=one.model_input, loss_fn_inputs={"target_tokens": targets, "weights": weights})
    narrow = data([6], seed=4)
    output = bench.run([*narrow, wide])
    logprobs = output.loss_fn_outputs[1]["logprobs"].to_numpy()
    assert logprobs.shape == (4, 3)
    columns = [
        bench.logprobs([Datum(model_input=one.model_input, loss_fn_inputs={"target_tokens": targets[:, k]})])[0]
        for k in range(3)
    ]
    np.testing.assert_allclose(logprobs, np.array(columns).T, atol=1e-5)
    rest = -sum(output.loss_fn_outputs[0]["logprobs"].tolist())
    assert output.metrics["loss:sum"] == pytest.approx(rest - (weights * logprobs).sum(), abs=1e-4)


def test_sparse_inputs_mean_the_same_as_dense_ones(bench, data) -> None:
    """CSR targets and weights give the loss of the dense matrices, unlisted cells counting as 0."""
    (one,) = data([5])
    targets = np.zeros((5, 40), dtype=np.int64)
    weights = np.zeros((5, 40), dtype=np.float32)
    targets[[0, 2, 4], [3, 0, 39]], weights[[0, 2, 4], [3, 0, 39]] = [7, 8, 9], [1.0, -0.5, 2.0]
    dense = {"target_tokens": targets, "weights": weights}
    csr = {name: TensorData.from_torch_sparse(torch.from_numpy(matrix)) for name, matrix in dense.items()}
    assert all(tensor.is_sparse for tensor in csr.values())
    losses = [
        bench.run([Datum(model_input=one.model_input, loss_fn_inputs=own)], backward=False) for own in (dense, csr)
    ]
    assert losses[0].metrics["loss:sum"] != 0
    assert losses[0].metrics == losses[1].metrics
    assert losses[0].loss_fn_outputs == losses[1].loss_fn_outputs


def test_a_loss_of_ones_own_in_two_passes_has_the_direct_gradient(bench, data) -> None:
    """Forward, the loss's slope by the logprobs, then cross_entropy with minus that as weights: the direct gradient."""
    batch = data([6, 9])
    bench.run(batch, backward=False)
    logprobs = [torch.tensor(own, requires_grad=True) for own in bench.logprobs(batch)]
    custom = sum((own.exp() * torch.arange(1.0, len(own) + 1)).sum() ** 2 for own in logprobs)
    slopes = torch.autograd.grad(custom, logprobs)
    for datum, slope in zip(batch, slopes, strict=True):
        datum.loss_fn_inputs["weights"] = TensorData.from_torch(-slope)
    bench.run(batch)

    base = bench.engine._bases[bench.base_model]
    base.activate(bench.adapter())
    total = torch.zeros(())
    for datum in batch:
        logits = base.model(torch.tensor([datum.model_input.to_ints()])).logits[0]
        targets = torch.tensor(datum.loss_fn_inputs["target_tokens"].data).unsqueeze(1)
        own = torch.log_softmax(logits, -1).gather(-1, targets)[:, 0]
        total = total + (own.exp() * torch.arange(1.0, len(own) + 1)).sum() ** 2
    direct = torch.autograd.grad(total, list(bench.adapter().parameters.values()))
    flat = torch.cat([part.reshape(-1) for part in direct])
    assert float((flat - bench.gradient()).norm() / flat.norm()) < 1e-5


def test_a_loss_that_is_not_there_is_refused_by_name(bench, data) -> None:
    """The error names the loss and says what to use instead."""
    with pytest.raises(InvalidInputError, match=r"hinge.*forward_backward_custom") as caught:
        bench.run(data([3]), "hinge")
    assert caught.value.field == "loss_fn"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"epsilon": 0.2}, "'epsilon'.*unknown"),
        ({"clip_low_threshold": "0.8"}, "clip_low_threshold.*finite number"),
        ({"clip_high_threshold": math.inf}, "clip_high_threshold.*finite number"),
        ({"clip_low_threshold": 2.0}, "clip_low_threshold.*above"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(config: dict[str, float], words: str) -> None:
    """Unknown keys, texts, infinities and thresholds in the wrong order are named."""
    with pytest.raises(InvalidInputError, match=words):
        resolve("ppo", config)


def test_a_loss_that_overflows_fails_and_names_the_datum(bench, data) -> None:
    """A ratio beyond float32 is the request's fault; what was accumulated before stays as it was."""
    bench.run(data([4]))
    before = bench.gradient().clone()
    batch = data([5, 6], logprobs=lambda _: -1.0, advantages=lambda _: 1.0)
    batch[1].loss_fn_inputs["logprobs"] = TensorData(data=[-1.0] * 5 + [-1e30], dtype="float32")
    with pytest.raises(RequestFailedError, match=r"data\[1\] is not finite") as caught:
        bench.run(batch, "importance_sampling")
    assert caught.value.category == "user"
    assert torch.equal(bench.gradient(), before)


def test_a_gradient_that_overflows_fails_and_leaves_no_trace(bench, data) -> None:
    """Weights so large that only the gradient overflows are refused too, and nothing is accumulated."""
    with pytest.raises(RequestFailedError, match="the gradient is not finite"):
        bench.run(data([5], weights=lambda _: 1e37))
    assert bench.gradient() is None


def test_every_loss_of_the_vocabulary_is_in_the_table() -> None:
    """What the client lets through by formula, the engine computes."""
    from tinkex.types.training import LOSS_INPUTS

    assert set(LOSSES) == set(LOSS_INPUTS)
    assert {name: set(loss.settings) for name, loss in LOSSES.items()} == {
        name: set(spec.config) for name, spec in LOSS_INPUTS.items()
    }
