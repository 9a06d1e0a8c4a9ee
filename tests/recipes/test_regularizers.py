"""Losses made of terms: the numbers, the metrics, and that the server takes the gradient."""

from __future__ import annotations

import math

import pytest

import tinkex
from tinkex import types
from tinkex.recipes.regularizers import Regularizer, combine_losses, cross_entropy, entropy, kl, l1, l2

torch = pytest.importorskip("torch")

WAIT = 60.0


def make_datum(targets: object, **inputs: object) -> types.Datum:
    """Make a datum with as many input tokens as targets."""
    inputs = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in inputs.items()}
    return types.Datum(
        model_input=types.ModelInput.from_ints([1] * len(targets)), loss_fn_inputs={"target_tokens": targets, **inputs}
    )


def leaves(*rows: object) -> list[torch.Tensor]:
    """Logprobs as a custom loss gets them."""
    return [torch.tensor(row, dtype=torch.float32, requires_grad=True) for row in rows]


DATA = [make_datum([1, 2, 3], weights=[0.0, 1.0, 2.0]), make_datum([4])]
LOGPROBS = ([-9.0, -1.0, -2.0], [-3.0])


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (l1(2.0), 2 * (1 + 2 + 3) / 3),
        (l2(0.5), 0.5 * (1 + 4 + 9) / 3),
        (entropy(3.0), 3 * (-1 * math.exp(-1) - 2 * math.exp(-2) - 3 * math.exp(-3)) / 3),
    ],
)
def test_a_term_is_its_formula_over_the_targets_that_count(term, expected):
    """Positions of weight 0 are left out, those of every other weight count once."""
    assert term(DATA, leaves(*LOGPROBS)).item() == pytest.approx(expected)


def test_kl_of_one_target_is_the_k3_estimate():
    """exp(r - l) - (r - l) - 1, which is 0 where both agree."""
    data = [make_datum([1, 2], reference=[-1.0, -2.5])]
    ratio = -2.5 - -2.0
    assert kl("reference", 2.0)(data, leaves([-1.0, -2.0])).item() == pytest.approx(math.exp(ratio) - ratio - 1)


def test_kl_and_entropy_of_whole_distributions_are_exact():
    """With all tokens as candidates both are the textbook sums, averaged over positions."""
    p, r = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), torch.tensor([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
    data = [make_datum([[0, 1, 2]] * 2, reference=r.log())]
    expected = (p * (p / r).log()).sum() / 2
    assert kl("reference", 1.0)(data, leaves(p.log().tolist())).item() == pytest.approx(float(expected))
    expected = (p * p.log()).sum() / 2
    assert entropy(1.0)(data, leaves(p.log().tolist())).item() == pytest.approx(float(expected))


def test_contributions_add_up_to_the_loss():
    """Each term reports what it adds, with its weight, beside the metrics of the base loss."""

    def base(data, logprobs):
        return cross_entropy(data, logprobs)[0], {"mine": 1.5}

    loss, metrics = combine_losses(base, l1(0.1), l2(0.2))(DATA, leaves(*LOGPROBS))
    assert {"mine", "base:sum", "l1:sum", "l2:sum"} == set(metrics)
    assert loss.item() == pytest.approx(sum(metrics[f"{name}:sum"] for name in ("base", "l1", "l2")))
    assert metrics["base:sum"] == pytest.approx(1 + 2 * 2 + 3)


def test_gradient_norms_tell_how_hard_each_term_pulls():
    """The norm of the base is that of its weights; a term that does not depend on the logprobs has 0."""
    idle = Regularizer(lambda data, logprobs: torch.tensor(3.0), 1.0, "idle")
    logprobs = leaves(*LOGPROBS)
    loss, metrics = combine_losses(cross_entropy, l1(6.0), idle, gradient_norms=True)(DATA, logprobs)
    assert metrics["base_grad_norm:sum"] == pytest.approx(math.sqrt(1 + 4 + 1))
    assert metrics["l1_grad_norm:sum"] == pytest.approx(math.sqrt(3 * 2**2))
    assert 0 == metrics["idle_grad_norm:sum"]
    loss.backward()
    assert logprobs[1].grad.tolist() == pytest.approx([-1 - 2])


@pytest.mark.parametrize("name", ["", "base", "loss", "a b", "1st", 3])
def test_a_name_must_make_a_metric(name):
    """Names that would collide or not be read are refused."""
    with pytest.raises(tinkex.InvalidInputError, match="name of a regularizer"):
        l1(1.0, name)


def test_mistakes_name_the_term_or_the_datum():
    """Two terms of one name, a term that is no scalar, a missing or misshapen reference."""
    with pytest.raises(tinkex.InvalidInputError, match="l1 came twice"):
        combine_losses(cross_entropy, l1(1.0), l1(2.0))
    with pytest.raises(tinkex.InvalidInputError, match="'odd' must return a scalar"):
        Regularizer(lambda data, logprobs: 1.0, 1.0, "odd")(DATA, leaves(*LOGPROBS))
    with pytest.raises(tinkex.InvalidInputError, match=r"data\[0\].*'reference'.*missing"):
        kl("reference", 1.0)(DATA, leaves(*LOGPROBS))
    with pytest.raises(tinkex.InvalidInputError, match=r"data\[0\].*shape \[1\].*\[3\]"):
        kl("reference", 1.0)([make_datum([1, 2, 3], reference=[1.0])], leaves(LOGPROBS[0]))


@pytest.mark.engine
@pytest.mark.parametrize("width", [None, 3])
def test_a_custom_loss_trains_like_the_servers_own(tmp_path, width):
    """cross_entropy here and on the server make the same step, also with K targets and weights at each position."""
    pytest.importorskip("peft")
    from tinkex.data import builtin_models
    from tinkex.local import LocalServer
    from tinkex.local.engine.torch_hf import TorchEngine

    shape = (4,) if width is None else (4, width)
    tokens = torch.arange(math.prod(shape)).reshape(shape) + 40
    weights = torch.linspace(0.1, 1.0, tokens.numel()).reshape(shape)
    plain = [make_datum(tokens.numpy(), weights=weights)]
    data = [make_datum(tokens.numpy(), weights=weights, reference=torch.full(shape, -3.0))]
    engine = TorchEngine(builtin_models(), threads=1, device="cpu")
    with LocalServer(engine, data_dir=tmp_path) as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        with tinkex.ServiceClient(**settings) as service:
            ours, theirs = (service.create_lora_training_client("tinkex/tiny", rank=4, seed=1) for _ in range(2))
            first = theirs.forward_backward(plain, "cross_entropy").result(WAIT)
            loss_fn = combine_losses(cross_entropy, kl("reference", 0.0), l2(0.0), gradient_norms=True)
            result = ours.forward_backward_custom(data, loss_fn).result(WAIT)
            assert first.metrics["loss:sum"] == pytest.approx(result.metrics["loss:sum"], rel=1e-5)
            assert 0 == result.metrics["kl:sum"] == result.metrics["l2_grad_norm:sum"]
            for train in (ours, theirs):
                train.optim_step(types.AdamParams(learning_rate=1e-2))
            after = [train.forward(plain, "cross_entropy").result(WAIT).metrics["loss:sum"] for train in (ours, theirs)]
            assert after[0] == pytest.approx(after[1], rel=1e-4)
            assert after[0] < first.metrics["loss:sum"]
