"""Losses made of terms: the numbers, the metrics, and that the server takes the gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinkex
from tinkex import types
from tinkex.recipes.regularizers import (
    Regularizer,
    combine_losses,
    consistency,
    cross_entropy,
    elastic_net,
    entropy,
    gradient_penalty,
    kl,
    l1,
    l2,
    orthogonality,
)

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


DATA = [make_datum([1, 2, 3], weights=[0.0, 1.0, 2.0], view=[0.0, -2.5, -2.0]), make_datum([4], view=[-2.5])]
LOGPROBS = ([-9.0, -1.0, -2.0], [-3.0])


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (l1(2.0), 2 * (1 + 2 + 3) / 3),
        (l2(0.5), 0.5 * (1 + 4 + 9) / 3),
        (elastic_net(2.0, 0.25), 2 * (0.25 * (1 + 2 + 3) + 0.75 * (1 + 4 + 9)) / 3),
        (consistency(3.0, "view"), 3 * (1.5**2 + 0 + 0.5**2) / 3),
        (
            gradient_penalty(2.0),
            2 * ((1 - math.exp(-1)) ** 2 + 4 * (1 - math.exp(-2)) ** 2 + (1 - math.exp(-3)) ** 2) / 3,
        ),
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


def test_a_consistent_pair_is_as_sure_of_the_answer_in_both_wordings():
    """The targets that count are compared in order, wherever they stand; each view is pulled to the other."""
    data = [make_datum([7, 8, 5, 6], weights=[0, 0, 1, 1]), make_datum([5, 9, 6], weights=[1, 0, 2])] * 2
    logprobs = leaves([-9.0, -8.0, -1.0, -2.0], [-1.5, -7.0, -4.0], [0.0, 0.0, -1.0, -2.0], [-1.0, 0.0, -2.0])
    loss = consistency(4.0)(data, logprobs)
    assert loss.item() == pytest.approx(4 * (0.5**2 + 2**2) / 4)
    loss.backward()
    assert logprobs[0].grad.tolist() == pytest.approx([0, 0, 2 * 0.5, 2 * 2])
    assert logprobs[1].grad.tolist() == pytest.approx([-2 * 0.5, 0, -2 * 2])


def sample_distributions(seed, positions, vocabulary):
    """Logprobs of a whole vocabulary at each position, float64."""
    logits = np.random.default_rng(seed).normal(size=(positions, vocabulary))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_orthogonality_is_the_chance_that_two_positions_draw_the_same_token(seed, positions, vocabulary):
    """The mean of the Gram matrix off its diagonal, however the candidates of each position are ordered."""
    rng = np.random.default_rng(seed)
    logprobs = sample_distributions(seed, positions, vocabulary)
    gram = np.exp(logprobs) @ np.exp(logprobs).T
    expected = gram[~np.eye(positions, dtype=bool)].sum() / max(positions * (positions - 1), 1)
    order = np.array([rng.permutation(vocabulary) for _ in range(positions)])
    data, own = [make_datum(order)], torch.from_numpy(np.take_along_axis(logprobs, order, -1))
    assert orthogonality(2.0)(data, [own]).item() == pytest.approx(2 * expected)


def test_orthogonality_counts_pairs_within_a_datum_and_only_what_counts():
    """With one target per position only repeated tokens are alike; weight 0 takes a position or a candidate out."""
    data = [make_datum([5, 6, 5, 5], weights=[1, 1, 1, 0]), make_datum([5, 5])]
    p = np.exp([-1.0, -2.0, -3.0, 0.0])
    logprobs = leaves(np.log(p).tolist(), [-0.5, -0.5])
    assert orthogonality(1.0)(data, logprobs).item() == pytest.approx((p[0] * p[2] + math.exp(-1)) / (3 + 1))
    data = [make_datum([[1, 2], [1, 3]], weights=[[0, 1], [1, 1]])]
    assert 0 == orthogonality(1.0)(data, leaves([[-1.0, -2.0], [-1.0, -2.0]])).item()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 6))
def test_the_gradient_penalty_is_that_of_the_cross_entropy_at_the_logits(seed, positions, vocabulary):
    """With the whole vocabulary it is exact: torch takes the same gradient through the softmax."""
    weights = np.random.default_rng(seed).normal(size=(positions, vocabulary))
    data = [make_datum([list(range(vocabulary))] * positions, weights=weights)]
    logits = torch.tensor(sample_distributions(seed, positions, vocabulary) + 3, requires_grad=True)
    own = logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad(cross_entropy(data, [own])[0], logits, retain_graph=True)
    expected = float(gradient.square().sum()) / positions
    assert gradient_penalty(0.5)(data, [own]).item() == pytest.approx(expected / 2, rel=1e-5)


def test_a_gradient_penalty_with_fewer_candidates_is_a_lower_bound():
    """Half of it at least with the right token alone; candidates of weight 0 in a row that counts have their part."""
    p = np.array([0.5, 0.3, 0.2])
    whole = float(((p - [1, 0, 0]) ** 2).sum())
    data = [make_datum([[0, 1, 2], [0, 1, 2]], weights=[[1, 0, 0], [0, 0, 0]])]
    assert gradient_penalty(1.0)(data, leaves(np.log([p, p]).tolist())).item() == pytest.approx(whole)
    alone = gradient_penalty(1.0)([make_datum([0])], leaves([math.log(0.5)])).item()
    assert whole / 2 <= alone == pytest.approx(0.5**2)


@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize(
    "term",
    [
        l1(0.7),
        l2(0.7),
        elastic_net(0.7, 0.3),
        entropy(0.7),
        kl("view", 0.7),
        consistency(0.7),
        consistency(0.7, "view"),
        orthogonality(0.7),
        gradient_penalty(0.7),
    ],
    ids=lambda term: term.name,
)
def test_the_gradient_of_a_term_is_that_of_finite_differences(term, width):
    """In float64, with one target at each position and with several, some of weight 0; no other gets a gradient."""
    shape = (4,) if width is None else (4, width)
    rng = np.random.default_rng(3)
    weights = np.ones(shape)
    weights[1] = 0
    tokens = np.arange(math.prod(shape)).reshape(shape) % 3
    data = [make_datum(tokens, weights=weights, view=rng.uniform(-3, -1, shape)) for _ in range(2)]
    logprobs = [torch.tensor(rng.uniform(-3, -1, shape), requires_grad=True) for _ in data]
    assert torch.autograd.gradcheck(lambda *own: term(data, list(own)), tuple(logprobs))
    term(data, logprobs).backward()
    assert all(0 == own.grad[1].abs().sum() < own.grad[0].abs().sum() for own in logprobs)


def test_nothing_that_counts_is_no_loss():
    """Rather than a division by zero, which would spoil the weights without a word."""
    data = [make_datum([1, 2], weights=[0.0, 0.0], view=[-1.0, -1.0])] * 2
    terms = (
        l1(1.0),
        elastic_net(1.0),
        consistency(1.0),
        consistency(1.0, "view"),
        orthogonality(1.0),
        gradient_penalty(1.0),
    )
    assert [term(data, leaves([-1.0, -2.0], [-3.0, -4.0])).item() for term in terms] == [0.0] * len(terms)


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


def test_views_that_are_no_pairs_are_refused():
    """One without its other view, other targets, or another number of them; and a share of more than all."""
    with pytest.raises(tinkex.InvalidInputError, match=r"3 datums.*in pairs"):
        consistency(1.0)([make_datum([1])] * 3, leaves([-1.0], [-1.0], [-1.0]))
    data = [make_datum([1, 2], weights=[0, 1]), make_datum([1, 2])]
    with pytest.raises(tinkex.InvalidInputError, match=r"data\[1\].*differ from those of data\[0\]") as caught:
        consistency(1.0)(data, leaves([-1.0, -1.0], [-1.0, -1.0]))
    assert caught.value.index == 1
    with pytest.raises(tinkex.InvalidInputError, match="l1_ratio must be from 0"):
        elastic_net(1.0, 1.5)


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
