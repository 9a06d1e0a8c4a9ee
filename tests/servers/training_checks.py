"""Models, passes and steps."""

from __future__ import annotations

import math
from typing import Any

from tests.servers.world import RANK, World, check, done, near, nll, run

RL = {"logprobs": -1.0, "advantages": 1.0}


@check("create a model")
def _create(w: World) -> None:
    w.model()


@check("create a model, async")
def _create_async(w: World) -> None:
    async def program() -> None:
        await w.service().create_lora_training_client_async(base_model=w.base_model, rank=RANK)

    run(program())


@check("create a model with metadata and parts left out")
def _create_parts(w: World) -> None:
    w.model(w.service(user_metadata={"who": "me"}), train_unembed=False, seed=7, user_metadata={"run": "a"})


@check("get_info: base model and rank")
def _info(w: World) -> None:
    info = w.model().get_info()
    assert w.base_model in (info.model_name, info.model_data.model_name), info
    assert info.lora_rank == RANK, info


@check("tokenizer of a model")
def _tokenizer(w: World) -> None:
    assert w.model().get_tokenizer().encode("the fox")


@check("forward: a logprob for each target")
def _forward(w: World) -> None:
    output = done(w.model().forward(w.batch(), "cross_entropy"))
    assert [11, 11, 11] == [len(one["logprobs"].data) for one in output.loss_fn_outputs]


@check("forward changes nothing")
def _forward_twice(w: World) -> None:
    train = w.model()
    near(w.loss_of(train), w.loss_of(train), 1e-5)


@check("forward_backward and optim_step, pipelined: the loss falls")
def _steps(w: World) -> None:
    losses = w.steps(w.model(), 5)
    assert losses[-1] < losses[0], losses


@check("forward_backward and optim_step, one by one: the same losses")
def _one_by_one(w: World) -> None:
    train, losses = w.model(seed=3), []
    for _ in range(3):
        losses += w.steps(train, 1)
    for one, other in zip(losses, w.steps(w.model(seed=3), 3), strict=True):
        near(one, other)


@check("forward_backward and optim_step, async")
def _steps_async(w: World) -> None:
    train = w.model()

    async def program() -> float:
        backward = await train.forward_backward_async(w.batch(), "cross_entropy")
        step = await train.optim_step_async(w.adam())
        output = await backward
        await step
        return nll(output)

    assert run(program()) > 0


@check("metrics of forward_backward have loss:sum")
def _metrics(w: World) -> None:
    metrics = done(w.model().forward_backward(w.batch(), "cross_entropy")).metrics
    assert math.isfinite(metrics["loss:sum"])


@check("loss:sum is the sum over the tokens")
def _sum(w: World) -> None:
    output = done(w.model().forward_backward(w.batch(), "cross_entropy"))
    near(output.metrics["loss:sum"], nll(output) * 33, 1e-3)


@check("weights of 0 train nothing")
def _no_weights(w: World) -> None:
    train = w.model()
    before = w.loss_of(train)
    done(train.forward_backward(w.batch(weights=0.0), "cross_entropy"))
    done(train.optim_step(w.adam()))
    near(before, w.loss_of(train), 1e-4)


@check("a step with clipping, weight decay and other betas")
def _adam(w: World) -> None:
    train = w.model()
    done(train.forward_backward(w.batch(), "cross_entropy"))
    done(train.optim_step(w.adam(grad_clip_norm=1.0, weight_decay=0.01, beta1=0.8, beta2=0.99, eps=1e-8)))


@check("a batch of 70 data of different lengths")
def _large(w: World) -> None:
    data = [w.datum(seed, length=8 + seed % 3) for seed in range(70)]
    output = done(w.model().forward(data, "cross_entropy"))
    assert [7 + seed % 3 for seed in range(70)] == [len(one["logprobs"].data) for one in output.loss_fn_outputs]


def _loss(name: str, config: dict[str, float] | None = None) -> None:
    label = f"loss {name}" + (" with its settings" if config else "")

    @check(label)
    def _with_loss(w: World) -> None:
        train = w.model()
        nll(done(train.forward_backward(w.batch(**RL), name, *([config] if config else []))))
        done(train.optim_step(w.adam()))


for _name in ("importance_sampling", "ppo", "cispo", "dro", "gspo"):
    _loss(_name)
_loss("ppo", {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1})


@check("loss cross_entropy of data for reinforcement learning")
def _rl_data(w: World) -> None:
    nll(done(w.model().forward(w.batch(**RL), "cross_entropy")))


@check("a loss of your own, forward_backward_custom")
def _custom(w: World) -> None:
    def loss(_: Any, logprobs: list[Any]) -> tuple[Any, dict[str, float]]:
        total = -sum(one.sum() for one in logprobs)
        return total, {"mine": float(total)}

    train = w.model()
    output = done(train.forward_backward_custom(w.batch(), loss))
    assert math.isfinite(output.metrics["mine"]), output.metrics
    done(train.optim_step(w.adam()))


@check("two models are trained side by side")
def _two(w: World) -> None:
    service = w.service()
    one, other = w.model(service, seed=1), w.model(service, seed=2)
    batch = w.batch()
    futures = [model.forward_backward(batch, "cross_entropy") for model in (one, other, one, other)]
    steps = [model.optim_step(w.adam()) for model in (one, other)]
    for future in [*futures, *steps]:
        done(future)
    assert w.loss_of(one) > 0
    assert w.loss_of(other) > 0
