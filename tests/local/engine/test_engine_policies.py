"""GSPO and StableReinforce, whose tokens are not all alike: against NumPy in float64, alone and in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinkex.errors import InvalidInputError
from tinkex.types import Datum, TensorData

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tinkex.local.engine.losses import resolve  # noqa: E402

pytestmark = pytest.mark.engine

WIDE = {"clip_low_threshold": 0.7, "clip_high_threshold": 1.6}
CONFIGS = {"gspo": [{}, WIDE], "stable_reinforce": [{}, {**WIDE, "kl_coeff": 0.3}]}
CASES = [(name, config) for name, configs in CONFIGS.items() for config in configs]
Arrays = dict[str, np.ndarray[Any, Any]]


def clipped(ratio: Any, slope: Any, gain: Any, low: float, high: float) -> tuple[Any, Any]:
    """The value of - min(ratio A, clip(ratio) A) and its derivative, given that of the ratio."""
    bound = np.clip(ratio, low, high)
    inside = ratio * gain <= bound * gain
    return -np.where(inside, ratio, bound) * gain, np.where(inside, -slope * gain, 0.0)


def gspo(new: Any, x: Arrays, low: float = 1 - 3e-4, high: float = 1 + 4e-4) -> tuple[Any, Any]:
    """Equation 13 of arXiv:2507.18071: all tokens have the ratio s, and the derivative s by their own logprob."""
    inside = x.get("sequence_ratio_mask", x["advantages"]) != 0
    drift = np.mean((new - x["logprobs"])[inside]) if inside.any() else 0.0
    ratio = np.full_like(new, np.exp(drift))
    return clipped(ratio, ratio, x["advantages"], low, high)


def stable_reinforce(new: Any, x: Arrays, low: float = 0.8, high: float = 1.2, kl: float = 0.0) -> tuple[Any, Any]:
    """Section 3 of arXiv:2505.02835: a logarithm kept within log 1000, no advantage beyond 3, then PPO."""
    raw = new - x["logprobs"]
    moves = np.abs(raw) <= np.log(1e3)
    drift = np.clip(raw, np.log(1e-3), np.log(1e3))
    gain = np.where(np.abs(x["advantages"]) <= 3, x["advantages"], 0.0)
    value, slope = clipped(np.exp(drift), np.where(moves, np.exp(drift), 0.0), gain, low, high)
    counts = gain != 0
    penalty = np.where(counts, np.exp(-drift) + drift - 1, 0.0)
    return value + kl * penalty, slope + kl * np.where(counts & moves, 1 - np.exp(-drift), 0.0)


def by_hand(name: str, config: dict[str, float], new: Any, x: Arrays) -> tuple[Any, Any]:
    """Loss of each token, and derivative of the sum by each logprob."""
    bounds = [config[key] for key in ("clip_low_threshold", "clip_high_threshold") if key in config]
    if name == "gspo":
        return gspo(new, x, *bounds)
    return stable_reinforce(new, x, *bounds, **({"kl": config["kl_coeff"]} if "kl_coeff" in config else {}))


def spread(chance: np.random.Generator, count: int, masked: bool, size: float) -> Arrays:
    """Inputs with a prompt that does not count, ratios far from 1, outliers, and perhaps a mask of their own."""
    x = {
        "drifts": chance.normal(scale=size, size=count) * chance.choice([1.0, 20.0], size=count, p=[0.9, 0.1]),
        "advantages": chance.normal(scale=2.0, size=count) * (np.arange(count) >= count // 3),
    }
    if masked:
        x["sequence_ratio_mask"] = (np.arange(count) >= count // 2).astype(float)
    return x


@pytest.mark.parametrize(("name", "config"), CASES)
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), masked=st.booleans(), size=st.sampled_from([1e-4, 0.7])
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_value_and_slope_are_those_of_the_paper(
    name: str, config: dict[str, float], seed: int, count: int, masked: bool, size: float
) -> None:
    """For any data, in float64 and to 1e-9."""
    chance = np.random.default_rng(seed)
    x = spread(chance, count, masked and name == "gspo", size)
    new = np.log(chance.uniform(1e-3, 1, count))
    x["logprobs"] = new - x.pop("drifts")
    loss, completed = resolve(name, config)
    logprobs = torch.tensor(new, requires_grad=True)
    inputs = {key: torch.tensor(value) for key, value in x.items()}
    for optional, stand_in in loss.fills.items():
        inputs.setdefault(optional, inputs[stand_in])
    elements = loss.formula(logprobs, inputs, completed)
    (slope,) = torch.autograd.grad(elements.sum(), logprobs)
    value, derivative = by_hand(name, config, new, x)
    np.testing.assert_allclose(elements.detach().numpy(), value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(slope.numpy(), derivative, rtol=1e-9, atol=1e-12)


def policy_batch(bench, data, lengths: list[int], *, masked: bool, size: float) -> list[Datum]:
    """Datums whose logprobs differ from the model's by small and by large steps."""
    chance = np.random.default_rng(11)
    batch = data(lengths)
    for number, (datum, own) in enumerate(zip(batch, bench.logprobs(batch), strict=True)):
        x = spread(chance, len(own), masked and number % 2 == 0, size)
        x["logprobs"] = np.array(own) - x.pop("drifts")
        datum.loss_fn_inputs.update({key: TensorData(data=value, dtype="float32") for key, value in x.items()})
    return batch


def arrays(datum: Datum) -> Arrays:
    """The inputs of a datum in float64."""
    return {key: tensor.to_numpy().astype(np.float64) for key, tensor in datum.loss_fn_inputs.items()}


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_engine_sums_it_and_differentiates_it(bench, data, name: str, config: dict[str, float]) -> None:
    """``loss:sum`` is the paper's formula of each datum over the returned logprobs; the gradient is its chain rule."""
    batch = policy_batch(bench, data, [5, 9, 3, 12], masked=name == "gspo", size=0.3)
    output = bench.run(batch, name, config=config)
    direct = bench.gradient()
    total = 0.0
    for datum, own in zip(batch, output.loss_fn_outputs, strict=True):
        value, slope = by_hand(name, config, own["logprobs"].to_numpy().astype(np.float64), arrays(datum))
        total += value.sum()
        weights = TensorData(data=-slope, dtype="float32")
        targets = datum.loss_fn_inputs["target_tokens"]
        datum.loss_fn_inputs.clear()
        datum.loss_fn_inputs.update(target_tokens=targets, weights=weights)
    assert output.metrics["loss:sum"] == pytest.approx(total, rel=1e-5)
    assert set(output.loss_fn_outputs[0]) == {"logprobs"}
    bench.engine._models["a"].gradient = None
    bench.run(batch)
    assert float(direct.abs().max()) > 0
    assert torch.allclose(direct, bench.gradient(), rtol=1e-4, atol=1e-5 * float(direct.abs().max()))


@pytest.mark.parametrize("limit", [1, 40, 2048])
@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_datum_has_the_same_loss_alone_and_in_any_batch(
    new_bench, data, name: str, config: dict[str, float], limit: int
) -> None:
    """Datums of other lengths, with and without a mask, do not change it, however they share micro-batches."""
    bench = new_bench(microbatch_tokens=limit)
    bench.create()
    batch = policy_batch(bench, data, [4, 17, 9, 6, 17], masked=name == "gspo", size=0.3)
    alone = [bench.run([datum], name, config=config).metrics["loss:sum"] for datum in batch]
    sum_of_alone = bench.gradient()
    bench.engine._models["a"].gradient = None
    together = bench.run(batch, name, config=config)
    assert together.metrics["loss:sum"] == pytest.approx(sum(alone), rel=1e-5)
    assert torch.allclose(bench.gradient(), sum_of_alone, rtol=1e-4, atol=1e-5 * float(sum_of_alone.abs().max()))


def test_what_stands_before_the_sampled_tokens_does_not_enter_the_ratio(bench, data) -> None:
    """A prompt padded with logprobs and advantages of 0 gives the same loss whatever its padding, mask or not."""
    (datum,) = data([8])
    (own,) = bench.logprobs([datum])
    mask = [0.0] * 4 + [1.0] * 4
    drifted = [0.0] * 4 + [value - 2e-4 for value in own[4:]]
    inputs = {"target_tokens": datum.loss_fn_inputs["target_tokens"], "advantages": mask}
    losses = []
    for pad, given_mask in ((0.0, None), (-7.0, None), (0.0, mask)):
        extra = {} if given_mask is None else {"sequence_ratio_mask": given_mask}
        one = Datum(
            model_input=datum.model_input,
            loss_fn_inputs={**inputs, **extra, "logprobs": [pad] * 4 + drifted[4:]},
        )
        losses.append(bench.run([one], "gspo").metrics["loss:sum"])
    assert losses == [pytest.approx(-4 * np.exp(2e-4), rel=1e-6)] * 3


def test_the_penalty_spares_tokens_that_do_not_count(bench, data) -> None:
    """A prompt's padding is no distribution to stay near to, and an outlier is dropped altogether."""
    (datum,) = data([6])
    (own,) = bench.logprobs([datum])
    datum.loss_fn_inputs["logprobs"] = TensorData(data=[0.0, 0.0, *own[2:]], dtype="float32")
    datum.loss_fn_inputs["advantages"] = TensorData(data=[0.0, 0.0, 1.0, -1.0, 3.5, 3.0], dtype="float32")
    metrics = bench.run([datum], "stable_reinforce", config={"kl_coeff": 5.0}).metrics
    assert metrics["loss:sum"] == pytest.approx(-3.0, abs=1e-4)


def test_a_ratio_beyond_all_numbers_is_no_failure_of_stable_reinforce(bench, data) -> None:
    """What overflows in importance sampling is clipped before it can."""
    (datum,) = data([3])
    datum.loss_fn_inputs["logprobs"] = TensorData(data=[-1e30, 1e30, -1.0], dtype="float32")
    datum.loss_fn_inputs["advantages"] = TensorData(data=[-1.0, -1.0, 0.0], dtype="float32")
    metrics = bench.run([datum], "stable_reinforce").metrics
    assert metrics["loss:sum"] == pytest.approx(1000 + 0.8, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gspo", {"sequence_ratio_mask": [0.0, 0.0, 0.0]}, r"data\[0\].*'sequence_ratio_mask'\] marks no token"),
        ("gspo", {"sequence_ratio_mask": [1.0]}, r"data\[0\].*'sequence_ratio_mask'\] has shape \[1\]"),
        ("gspo", {"returns": [1.0] * 3}, r"data\[0\].*'returns'\] is unknown to gspo"),
        ("stable_reinforce", {"values": [1.0] * 3}, r"'values'\] is unknown to stable_r"),
        ("stable_reinforce", {"logprobs": None}, r"data\[0\].*'logprobs'\] is missing: stable_reinforce needs"),
    ],
)
def test_inputs_that_cannot_be_are_refused(bench, data, name: str, change: dict[str, Any], words: str) -> None:
    """The error names the datum and the input."""
    (datum,) = data([3], logprobs=lambda _: -1.0, advantages=lambda _: 1.0)
    inputs = {**datum.loss_fn_inputs, **change}
    kept = {key: value for key, value in inputs.items() if value is not None}
    with pytest.raises(InvalidInputError, match=words):
        bench.run([Datum(model_input=datum.model_input, loss_fn_inputs=kept)], name)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("gspo", {"kl_coeff": 0.1}, "'kl_coeff'.*unknown to gspo"),
        ("gspo", {"clip_low_threshold": 1.1}, "clip_low_threshold.*is 1.1, above"),
        ("stable_reinforce", {"beta": 0.1}, "'beta'.*unknown to stable_reinforce, which takes .*kl_coeff"),
        ("stable_reinforce", {"kl_coeff": "much"}, "'kl_coeff'.*finite number"),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, config: dict[str, Any], words: str) -> None:
    """The embedded server knows what it reads, also where the client leaves the names to the server."""
    with pytest.raises(InvalidInputError, match=words):
        resolve(name, config)
