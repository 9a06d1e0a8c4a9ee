"""Steps that train."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from world import RANK, World, close, done, logprobs, loss, near, step, steps, text


@step()
def tokenizer(w: World) -> None:
    """The training client finds the tokenizer of the server's model."""
    words = w.shared()[0].get_tokenizer()
    assert words.decode(words.encode("hello", add_special_tokens=False)) == "hello"


@step()
def pipeline(w: World) -> None:
    """Twenty steps submitted before any is waited for run in order, and the model learns."""
    losses = steps(w.train(), w, 20)
    assert losses[18] < losses[0] / 2
    w.note("losses", *losses)


@step()
def interleaved(w: World) -> None:
    """Two models that step in turn learn what each would learn alone."""
    trains = [w.train(), w.train()]
    futures: list[list[Any]] = [[], []]
    for number in range(4):
        for own, train in zip(futures, trains, strict=True):
            own.append(train.forward_backward(w.batch(4 * (number % 2)), "cross_entropy"))
            train.optim_step(w.adam())
    losses = [[loss(future) for future in own] for own in futures]
    assert losses[0] == losses[1]
    assert near(losses[0], steps(w.train(), w, 4))


@step()
def chunks(w: World) -> None:
    """A batch that travels as several requests comes back whole and in order, and counts once."""
    train = w.train()
    data = [w.datum(number % 7, 2 + number % 5, weights=[1.0] * (2 + number % 5)) for number in range(1030)]
    result = done(train.forward_backward(data, "cross_entropy"))
    own = logprobs(result)
    assert [len(one) for one in own] == [2 + number % 5 for number in range(1030)]
    assert close(result.metrics["loss:sum"], -sum(sum(one) for one in own))
    done(train.optim_step(w.adam()))
    w.note("losses", result.metrics["loss:sum"], loss(train.forward(data[:35], "cross_entropy")))


@step()
def accumulation(w: World) -> None:
    """Two backward passes and one step are the step of the whole batch."""
    parts, whole = w.train(), w.train()
    data = w.batch()
    parts.forward_backward(data[:1], "cross_entropy")
    parts.forward_backward(data[1:], "cross_entropy")
    whole.forward_backward(data, "cross_entropy")
    after = []
    for train in (parts, whole):
        train.optim_step(w.adam(grad_clip_norm=1.0, weight_decay=0.01))
        after.append(loss(train.forward(data, "cross_entropy")))
    assert close(*after)
    w.note("after", *after)


@step()
def forward(w: World) -> None:
    """A forward pass says what a backward pass says, and changes nothing."""
    train = w.train()
    data = w.batch()
    futures = [train.forward(data, "cross_entropy"), train.forward_backward(data, "cross_entropy")]
    train.forward(data, "cross_entropy")
    train.optim_step(w.adam(learning_rate=0.0))
    futures.append(train.forward(data, "cross_entropy"))
    losses = [loss(future) for future in futures]
    assert all(close(one, losses[0], 1e-6) for one in losses)
    own = logprobs(done(futures[0]))
    assert close(losses[0], -sum(sum(one[2:]) for one in own))
    w.note("losses", *losses)
    w.note("logprobs", *own[0])


def _ratio(new: float, old: float, low: float, high: float) -> float:
    return min(max(math.exp(new - old), low), high)


POLICY = ("logprobs", "advantages")
# Each maps logprob, logprob at sampling and advantage to the loss of a token, by the published formulas.
FORMULAS: dict[str, list[tuple[dict[str, float] | None, Callable[[float, float, float], float]]]] = {
    "importance_sampling": [(None, lambda new, old, gain: -math.exp(new - old) * gain)],
    "ppo": [
        (None, lambda new, old, gain: -min(math.exp(new - old) * gain, _ratio(new, old, 0.8, 1.2) * gain)),
        (
            {"clip_low_threshold": 0.5, "clip_high_threshold": 1.1},
            lambda new, old, gain: -min(math.exp(new - old) * gain, _ratio(new, old, 0.5, 1.1) * gain),
        ),
    ],
    "cispo": [
        (
            {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
            lambda new, old, gain: -_ratio(new, old, 0.8, 1.2) * new * gain,
        ),
    ],
    "dro": [({"beta": 0.1}, lambda new, old, gain: -(new * gain - 0.05 * (new - old) ** 2))],
}


@step()
def policy_losses(w: World) -> None:
    """Each policy loss has the value of its published formula, with and without settings, and trains."""
    for name, forms in FORMULAS.items():
        for config, formula in forms:
            train = w.train()
            data = w.policy_batch(train)
            result = done(train.forward_backward(data, name, loss_fn_config=config))
            done(train.optim_step(w.adam()))
            expected = sum(
                formula(*values)
                for datum, own in zip(data, logprobs(result), strict=True)
                for values in zip(own, *(datum.loss_fn_inputs[key].tolist() for key in POLICY), strict=True)
            )
            assert close(result.metrics["loss:sum"], expected), name
            w.note(name, result.metrics["loss:sum"], loss(train.forward(w.batch(), "cross_entropy")))


def _gspo(new: list[float], old: list[float], gains: list[float], low: float, high: float) -> float:
    """The loss of one sequence, all of whose tokens count."""
    ratio = math.exp(sum(a - b for a, b in zip(new, old, strict=True)) / len(new))
    return -sum(min(ratio * gain, min(max(ratio, low), high) * gain) for gain in gains)


def _stable(new: list[float], old: list[float], gains: list[float], kl: float) -> float:
    """The loss of one sequence without outliers."""
    terms = [
        (b - a, -min(math.exp(a - b) * g, _ratio(a, b, 0.8, 1.2) * g)) for a, b, g in zip(new, old, gains, strict=True)
    ]
    return sum(value + kl * (math.exp(drift) - drift - 1) for drift, value in terms)


@step(since="0.26")
def sequence_losses(w: World) -> None:
    """The two losses of the newest generation have the values of their papers, and train."""
    wide = {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}
    forms: list[tuple[str, dict[str, float] | None, Callable[..., float]]] = [
        ("gspo", None, lambda *values: _gspo(*values, 1 - 3e-4, 1 + 4e-4)),
        ("gspo", wide, lambda *values: _gspo(*values, 0.9, 1.1)),
        ("stable_reinforce", None, lambda *values: _stable(*values, 0.0)),
        ("stable_reinforce", {"kl_coeff": 0.2}, lambda *values: _stable(*values, 0.2)),
    ]
    for name, config, formula in forms:
        train = w.train()
        data = w.policy_batch(train)
        if name == "gspo":
            for datum in data:
                length = len(datum.loss_fn_inputs["advantages"].tolist())
                datum.loss_fn_inputs["sequence_ratio_mask"] = w.floats([1.0] * length)
        result = done(train.forward_backward(data, name, loss_fn_config=config))
        done(train.optim_step(w.adam()))
        expected = sum(
            formula(own, *(datum.loss_fn_inputs[key].tolist() for key in POLICY))
            for datum, own in zip(data, logprobs(result), strict=True)
        )
        assert close(result.metrics["loss:sum"], expected), name
        w.note(name, result.metrics["loss:sum"], loss(train.forward(w.batch(), "cross_entropy")))


@step(since="0.26")
def server_loss(w: World) -> None:
    """A loss that was traced runs on the server in one pass, and equals the loss of the server that it copies."""
    import torch

    def mine(logprobs: Any, old: Any, advantages: Any, scale: Any) -> Any:
        ratio = torch.exp(logprobs - old)
        gain = torch.minimum(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages)
        metrics = {"custom/ratio:mean": ratio.mean(), "custom/tokens:sum": torch.ones_like(ratio).sum()}
        return -scale * gain.sum(), metrics

    ranks = {"logprobs": 1, "old": 1, "advantages": 1, "scale": 0}
    handle = done(w.service.create_custom_loss(mine, ranks))
    assert handle.loss_id
    assert handle.input_names == ("old", "advantages", "scale")
    own, theirs = w.train(), w.train()
    plain = w.policy_batch(own)
    data = [
        w.types.Datum(
            model_input=datum.model_input,
            loss_fn_inputs={
                "target_tokens": datum.loss_fn_inputs["target_tokens"],
                "old": datum.loss_fn_inputs["logprobs"],
                "advantages": datum.loss_fn_inputs["advantages"],
                "scale": w.types.TensorData(data=[1.0], dtype="float32", shape=[]),
            },
        )
        for datum in plain
    ]
    futures = [own.forward_backward_custom(data, handle), theirs.forward_backward(plain, "ppo")]
    for train in (own, theirs):
        train.optim_step(w.adam())
    metrics = [done(future).metrics for future in futures]
    assert close(metrics[0]["loss:sum"], metrics[1]["loss:sum"], 1e-5)
    assert metrics[0]["custom/tokens:sum"] == 34.0
    after = [loss(train.forward(w.batch(), "cross_entropy")) for train in (own, theirs)]
    assert close(*after, 1e-5)
    w.note("loss", metrics[0]["loss:sum"], metrics[0]["custom/ratio:mean"], *after)


@step()
def custom_loss(w: World) -> None:
    """A loss of one's own that equals cross-entropy trains like it; another is differentiated; metrics come back."""
    import torch

    def entropy(data: list[Any], own: list[Any]) -> tuple[Any, dict[str, float]]:
        weights = [torch.tensor(datum.loss_fn_inputs["weights"].tolist()) for datum in data]
        value = -sum((one * weight).sum() for one, weight in zip(own, weights, strict=True))
        return value, {"items:sum": float(len(own))}

    def margin(data: list[Any], own: list[Any]) -> tuple[Any, dict[str, float]]:
        gap = own[0].sum() - own[1].sum() + 0.5 * own[2].mean() * own[3].mean()
        value = -torch.nn.functional.logsigmoid(0.1 * gap)
        return value, {"margin:mean": gap.item()}

    mine, theirs = w.train(), w.train()
    data = w.batch()
    result = done(mine.forward_backward_custom(data, entropy))
    assert result.metrics["items:sum"] == 4.0
    theirs.forward_backward(data, "cross_entropy")
    for train in (mine, theirs):
        train.optim_step(w.adam())
    after = [loss(train.forward(data, "cross_entropy")) for train in (mine, theirs)]
    assert close(*after)
    result = done(mine.forward_backward_custom(data, margin))
    done(mine.optim_step(w.adam()))
    w.note("after", *after, result.metrics["margin:mean"], loss(mine.forward(data, "cross_entropy")))


@step()
def candidates(w: World) -> None:
    """Several weighted targets for each position: logprobs come back in their shape."""
    import numpy as np

    train = w.train()
    tokens = text(1, 7)
    targets = np.array([[token, 97 + (token - 90) % 26, 101] for token in text(1, 8)[1:]], dtype=np.int64)
    weights = np.array([[0.5, 0.3, 0.2]] * 7, dtype=np.float32)
    datum = w.types.Datum(
        model_input=w.types.ModelInput.from_ints(tokens), loss_fn_inputs={"target_tokens": targets, "weights": weights}
    )
    result = done(train.forward_backward([datum], "cross_entropy"))
    own = np.array(result.loss_fn_outputs[0]["logprobs"].to_numpy())
    assert own.shape == (7, 3)
    assert close(result.metrics["loss:sum"], -float((own * weights).sum()))
    done(train.optim_step(w.adam()))
    w.note("losses", result.metrics["loss:sum"], loss(train.forward([datum], "cross_entropy")))


@step(since="0.18")
def sparse_candidates(w: World) -> None:
    """A wide matrix of targets that is mostly empty has the loss of its few entries."""
    import torch

    train = w.train()
    targets, weights = torch.zeros(8, 12, dtype=torch.int64), torch.zeros(8, 12)
    for place, token in enumerate(text(1, 9)[1:]):
        targets[place, place], weights[place, place] = token, 1.0
    datum = w.types.Datum(
        model_input=w.types.ModelInput.from_ints(text(1, 8)),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
    plain = w.datum(1, 8, weights=[1.0] * 8)
    losses = [loss(train.forward([one], "cross_entropy")) for one in (datum, plain)]
    assert close(*losses)
    w.note("losses", *losses)


@step()
def resume(w: World) -> None:
    """With its optimizer a saved state goes on as if nothing had happened; without, only the first loss agrees."""
    train = w.train(user_metadata={"recipe": "peer"})
    steps(train, w, 3)
    path = done(train.save_state("three")).path
    assert path == f"tinker://{train.model_id}/weights/three"
    losses = {"uninterrupted": steps(train, w, 3, first=3)}
    metadata = {"user_metadata": {"from": "three"}}
    whole = w.borrow(w.service.create_training_client_from_state_with_optimizer(path, **metadata))
    losses["with optimizer"] = steps(whole, w, 3, first=3)
    bare = w.borrow(w.service.create_training_client_from_state(path, **metadata))
    losses["without"] = steps(bare, w, 3, first=3)
    assert losses["with optimizer"] == losses["uninterrupted"]
    assert losses["without"][0] == losses["uninterrupted"][0]
    assert not close(losses["without"][2], losses["uninterrupted"][2], 1e-3)
    assert whole.get_info().lora_rank == RANK
    for name, values in losses.items():
        w.note(name, *values)


@step()
def load(w: World) -> None:
    """A state loaded into a model that exists gives the losses of the model that was saved."""
    train = w.train()
    steps(train, w, 2)
    path = done(train.save_state("two")).path
    wanted = steps(train, w, 2, first=2)
    for method, same in (("load_state_with_optimizer", True), ("load_state", False)):
        other = w.train()
        done(getattr(other, method)(path))
        losses = steps(other, w, 2, first=2)
        assert losses[0] == wanted[0]
        assert (losses == wanted) is same
        w.note(method, *losses)


@step(since="0.18")
def save_again(w: World) -> None:
    """A state can be saved for a time, and replaced if one says so."""
    train, _ = w.shared()
    done(train.save_state("again", ttl_seconds=3600))
    if w.generation >= (0, 24):
        done(train.save_state("again", overwrite=True))
    found = [one for one in done(w.rest.list_checkpoints(train.model_id)).checkpoints if "again" in one.checkpoint_id]
    assert len(found) == 1
