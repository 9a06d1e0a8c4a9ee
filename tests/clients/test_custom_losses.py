"""Losses of one's own that run on the server: what can be sent, and what cannot; with the embedded server and torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import tinkex
from tinkex import types
from tinkex.clients.loss_handle import encode
from tinkex.data import TINY_NAME
from tinkex.errors import APIStatusError, ConfigurationError, InvalidInputError, RequestFailedError
from tinkex.local import LocalServer


def loss(logprobs: Any, advantages: Any) -> Any:
    """The plainest loss."""
    return -(logprobs * advantages).sum(), {"custom/mean:mean": logprobs.mean()}


RANKS: dict[str, Any] = {"logprobs": 1, "advantages": 1}


def test_a_server_that_runs_no_losses_of_its_clients_says_so_at_the_call(stage) -> None:
    """The way out is the function of all datums that runs here; nothing was sent, not even a session."""
    with pytest.raises(ConfigurationError, match=r"runs no losses of its clients; forward_backward_custom\(data, func"):
        stage.service.create_custom_loss(loss, RANKS)
    assert "no session yet" in repr(stage.service)


def test_without_torch_the_command_that_installs_it_is_named(stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing is the only thing of the client that needs it, apart from losses computed here."""
    monkeypatch.setattr(stage.engine, "runs_custom_losses", True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="pip install torch"):
        stage.service.create_custom_loss(loss, RANKS)


LATE = types.CreateCustomLossRequest(
    session_id="s",
    custom_loss_seq_id=1,
    name="late",
    inputs=[types.CustomLossInput(name="logprobs", rank=1)],
    graph=types.CustomLossGraph(nodes=[]),
)


class Grown:
    """What needs torch; made where it is there."""

    def __init__(self, service: tinkex.ServiceClient) -> None:
        self.service = service
        self.torch = sys.modules["torch"]

    def train(self) -> tinkex.TrainingClient:
        """Make a model; all of them start from the same weights."""
        return self.service.create_lora_training_client(TINY_NAME, rank=4, seed=1)

    def handle(self, fn: Callable[..., Any], **ranks: Any) -> tinkex.LossHandle:
        """Send a loss."""
        return self.service.create_custom_loss(fn, {"logprobs": 1, **ranks}).result()


@pytest.fixture(scope="module")
def engine() -> Any:
    """The engine with the tiny model."""
    for module in ("torch", "transformers", "peft"):
        pytest.importorskip(module)
    from tinkex.local.engine.torch_hf import TorchEngine

    return TorchEngine(threads=1)


@pytest.fixture(scope="module")
def server(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """The embedded server over it."""
    with LocalServer(engine, data_dir=tmp_path_factory.mktemp("data")) as server:
        yield server


def connect(server: LocalServer, **settings: Any) -> tinkex.ServiceClient:
    """Make a client."""
    return tinkex.ServiceClient(base_url=server.base_url, api_key=server.api_key, telemetry=False, **settings)


@pytest.fixture
def grown(server: LocalServer) -> Iterator[Grown]:
    """A client of that server."""
    with connect(server) as service:
        yield Grown(service)


def make_batch(torch: Any) -> list[types.Datum]:
    """Four datums of other lengths."""
    texts = [b"the cat", b"sat on", b"the mat and", b"slept"]
    batch = []
    for number, text in enumerate(texts):
        length = len(text) - 1
        inputs = {
            "target_tokens": list(text[1:]),
            "advantages": [(-1.0) ** place * (1 + 0.3 * number) for place in range(length)],
            "old": torch.linspace(-4, -1, length),
            "scale": torch.tensor(0.5 + number),
        }
        batch.append(types.Datum(model_input=types.ModelInput.from_ints(list(text[:-1])), loss_fn_inputs=inputs))
    return batch


@pytest.mark.engine
@pytest.mark.parametrize("wire", ["json", "proto"])
def test_a_loss_on_the_server_equals_the_same_loss_computed_here(server: LocalServer, wire: str) -> None:
    """Loss, metrics, and what the model says after a step, to 1e-5, in both forms and split over requests."""
    with connect(server, wire=wire, max_chunk_len=3) as service:
        grown = Grown(service)
        torch = grown.torch

        def ppo(logprobs: Any, advantages: Any, old: Any, scale: Any) -> Any:
            ratio = torch.exp(logprobs - old)
            gain = torch.minimum(ratio * advantages, torch.clamp(ratio, 0.5, 1.5) * advantages)
            penalty = torch.nn.functional.softplus(ratio).mean() * scale / logprobs.shape[0]
            metrics = {"custom/ratio:mean": ratio.detach().mean(), "custom/tokens:sum": torch.ones_like(ratio).sum()}
            return penalty - gain.sum(), metrics

        handle = grown.handle(ppo, advantages=1, old=1, scale=0)

        def here(data: list[types.Datum], logprobs: list[Any]) -> Any:
            each = [
                ppo(own, *(datum.loss_fn_inputs[name].to_torch() for name in handle.input_names))
                for datum, own in zip(data, logprobs, strict=True)
            ]
            metrics = {
                "custom/ratio:mean": sum(float(own["custom/ratio:mean"]) for _, own in each) / len(each),
                "custom/tokens:sum": sum(float(own["custom/tokens:sum"]) for _, own in each),
            }
            return sum(value for value, _ in each), metrics

        theirs, ours = grown.train(), grown.train()
        batch = make_batch(torch)
        results = [theirs.forward_backward_custom(batch, handle), ours.forward_backward_custom(batch, here)]
        for client in (theirs, ours):
            client.optim_step(types.AdamParams(learning_rate=1e-2))
        on_server, computed_here = (future.result().metrics for future in results)
        for key in ("loss:sum", "custom/ratio:mean", "custom/tokens:sum"):
            assert on_server[key] == pytest.approx(computed_here[key], rel=1e-5)
        assert "surrogate_loss:sum" not in on_server
        after = [
            [value for own in done.loss_fn_outputs for value in own["logprobs"].tolist()]
            for done in (
                client.forward(batch, "custom", {"loss_id": handle.loss_id}).result() for client in (theirs, ours)
            )
        ]
        assert after[0] == pytest.approx(after[1], abs=1e-5)


@pytest.mark.engine
def test_a_handle_is_pipelined_like_any_other_loss(grown: Grown) -> None:
    """Steps are submitted together without waiting, run in order, and the model learns."""
    handle = grown.handle(lambda logprobs: (-logprobs.sum(), {}))
    train, batch = grown.train(), make_batch(grown.torch)
    futures = []
    for _ in range(8):
        futures.append(train.forward_backward_custom(batch, handle))
        train.optim_step(types.AdamParams(learning_rate=1e-2))
    losses = [future.result().metrics["loss:sum"] for future in futures]
    assert losses[-1] < losses[0] / 2


@pytest.mark.engine
def test_a_handle_says_what_it_is(grown: Grown) -> None:
    """Name, inputs, session and id; its key is that of what it computes."""
    handles = [grown.handle(fn, advantages=1) for fn in (loss, loss, lambda logprobs, advantages: (logprobs.sum(), {}))]
    first, same, other = handles
    assert first.name == "loss"
    assert first.input_names == ("advantages",)
    assert [(item.name, item.rank) for item in first.inputs] == [("logprobs", 1), ("advantages", 1)]
    assert first.key == same.key != other.key
    assert len({handle.loss_id for handle in handles}) == 3
    assert "graph" not in repr(first)


@pytest.mark.engine
def test_a_handle_of_another_session_is_refused_at_the_call(server: LocalServer, grown: Grown) -> None:
    """Here as by the server, if one gets by with the bare id."""
    handle = grown.handle(loss, advantages=1)
    with connect(server) as service:
        other = Grown(service).train()
        batch = make_batch(grown.torch)
        with pytest.raises(InvalidInputError, match=f"'loss' was created in session {handle.session_id}"):
            other.forward_backward_custom(batch, handle)
        failed = other.forward_backward(batch, "custom", {"loss_id": handle.loss_id})
        with pytest.raises(RequestFailedError, match="no loss of the session of this model"):
            failed.result()


@pytest.mark.engine
def test_a_loss_ends_with_its_session(server: LocalServer, engine: Any) -> None:
    """It is freed, and no more can be created."""
    with connect(server) as service:
        handle = Grown(service).handle(loss, advantages=1)
        assert handle.loss_id in engine._losses
    with connect(server) as service:
        other = Grown(service).handle(loss, advantages=1)
        # The engine does one thing after the other, so what was to be freed is.
        assert (handle.loss_id in engine._losses, other.loss_id in engine._losses) == (False, True)
        late = attrs.evolve(LATE, session_id=handle.session_id)
        with pytest.raises(APIStatusError, match="was finished"):
            service._session.api.training.create_custom_loss(late)


@pytest.mark.engine
def test_data_that_the_loss_does_not_take_is_refused_at_the_call(grown: Grown) -> None:
    """The error names the datum and the input; the pipeline goes on."""
    handle = grown.handle(loss, advantages=1)
    train, batch = grown.train(), make_batch(grown.torch)
    del batch[2].loss_fn_inputs["advantages"]
    with pytest.raises(
        InvalidInputError, match=r"data\[2\].*'advantages'\] is missing: the custom loss 'loss'"
    ) as caught:
        train.forward_backward_custom(batch, handle)
    assert caught.value.index == 2
    assert train.forward_backward_custom(batch[:2], handle).result().metrics["loss:sum"] != 0


@pytest.mark.engine
def test_what_the_server_does_not_run_fails_the_future_by_its_name(grown: Grown) -> None:
    """Which functions a loss may call is for the server to say."""
    torch = grown.torch
    future = grown.service.create_custom_loss(lambda logprobs: (torch.rand_like(logprobs).sum(), {}), {"logprobs": 1})
    with pytest.raises(RequestFailedError, match=r"'torch.rand_like', which this server does not run"):
        future.result()


def branching(logprobs: Any) -> Any:
    """Asks for a value while it is traced."""
    return (logprobs.sum() if logprobs.sum() > 0 else logprobs.mean()), {}


# Each function is made with torch at hand, for those that use it.
UNSENDABLE: dict[str, tuple[Callable[[Any], Callable[..., Any]], str]] = {
    "branch": (lambda torch: branching, "branching cannot be traced.*cannot branch on the values"),
    "number": (
        lambda torch: lambda logprobs: (logprobs.sum(), {"custom/a:sum": logprobs.sum().item()}),
        r"calls .item\(\)",
    ),
    "outside": (
        lambda torch: lambda logprobs: ((logprobs * torch.ones(3)).sum(), {}),
        "reads the tensor .* from outside",
    ),
    "module": (lambda torch: torch.nn.Sequential, "must take logprobs first"),
    "backward": (lambda torch: lambda logprobs: (logprobs.sum().backward(), {}), r"calls .backward\(\)"),
    "no pair": (lambda torch: lambda logprobs: logprobs.sum(), r"must return \(loss, metrics\)"),
    "no dict": (lambda torch: lambda logprobs: (logprobs.sum(), logprobs), r"must return \(loss, metrics\)"),
    "no loss": (lambda torch: lambda logprobs: (1.0, {}), "must return a tensor as the loss, got 1.0"),
    "metric": (
        lambda torch: lambda logprobs: (logprobs.sum(), {"loss:sum": logprobs.sum()}),
        "metric 'loss:sum'; call it",
    ),
    "metric of a number": (
        lambda torch: lambda logprobs: (logprobs.sum(), {"custom/a:sum": 1.0}),
        "must return a tensor as the metric 'custom/a:sum', got 1.0",
    ),
    "library": (lambda torch: lambda logprobs: (types.TensorData.from_torch(logprobs), {}), "cannot be traced"),
    "kind": (lambda torch: lambda logprobs: (logprobs.sum(dtype=torch.Generator), {}), "cannot be (sent|traced)"),
}


@pytest.mark.engine
@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_cannot_be_sent_is_refused_at_the_call(grown: Grown, name: str) -> None:
    """The error names the function and says what of it."""
    make, words = UNSENDABLE[name]
    with pytest.raises(InvalidInputError, match="create_custom_loss: .*" + words) as caught:
        grown.service.create_custom_loss(make(grown.torch), {"logprobs": 1})
    assert caught.value.field == "fn"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("fn", "ranks", "words"),
    [
        (lambda advantages: None, {"advantages": 1}, "must take logprobs first"),
        (lambda logprobs, scale=1.0: None, {"logprobs": 1, "scale": 0}, "'scale' as a plain parameter"),
        (lambda logprobs, *rest: None, {"logprobs": 1, "rest": 1}, "'rest' as a plain parameter"),
        (lambda logprobs, *, scale: None, {"logprobs": 1, "scale": 0}, "'scale' as a plain parameter"),
        (
            lambda logprobs, scale: None,
            {"logprobs": 1},
            r"takes logprobs, scale; give the rank of each, not of \['logp",
        ),
        (lambda logprobs, scale: None, {"logprobs": 1, "scale": 3}, "the rank of 'scale' must be 0 to 2, got 3"),
        (lambda logprobs: None, {"logprobs": 0}, "the rank of 'logprobs' must be 1 to 2, got 0"),
        (lambda logprobs, größe: None, {"logprobs": 1, "größe": 0}, "lower-case letters.*'größe'"),
        (
            lambda logprobs, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q: None,
            {},
            "takes 17 parameters, a loss at most 16",
        ),
    ],
)
def test_parameters_that_a_loss_cannot_have_are_refused(
    grown: Grown, fn: Callable[..., Any], ranks: dict[str, Any], words: str
) -> None:
    """Before anything is traced."""
    with pytest.raises(InvalidInputError, match=words):
        grown.service.create_custom_loss(fn, ranks)


@pytest.mark.engine
def test_every_kind_of_argument_is_written(grown: Grown) -> None:
    """Slices, ellipses, tuples, lists, infinities, types and devices arrive as what they are."""
    torch = grown.torch

    def every(logprobs: Any) -> Any:
        rows = torch.stack([logprobs, logprobs * 2], dim=-1)
        kept = rows[1:, ..., 0].clamp(min=-math.inf, max=math.inf).to(torch.float64)
        zeros = torch.zeros((logprobs.shape[0],), dtype=torch.float32, device=torch.device("cpu"))
        return kept.sum() + zeros.sum() + rows.permute([1, 0])[None].mean(), {}

    handle = grown.handle(every)
    written = str([(node.args, node.kwargs) for node in encode(handle).nodes])
    for kind in ("ref", "tuple", "slice", "ellipsis", "float", "dtype", "device"):
        assert f"{{'{kind}':" in written
    (metrics,) = [grown.train().forward_backward_custom(make_batch(torch)[:1], handle).result().metrics]
    assert math.isfinite(metrics["loss:sum"])


@pytest.mark.engine
def test_a_loss_computed_here_has_its_own_metrics_and_the_surrogate(stage, batch) -> None:
    """loss:sum is that of the program, surrogate_loss:sum that of what the server computed; metrics may be tensors."""
    torch = pytest.importorskip("torch")

    def mine(data: list[types.Datum], logprobs: list[Any]) -> Any:
        return sum((own * 0 + 2.0).sum() for own in logprobs), {"count": len(data), "size": torch.tensor(3.0)}

    metrics = stage.train().forward_backward_custom(batch, mine).result(timeout=30).metrics
    tokens = sum(datum.model_input.length for datum in batch)
    assert metrics["loss:sum"] == 2.0 * tokens
    assert metrics["count"] == len(batch)
    assert float(metrics["size"]) == 3.0
    assert "surrogate_loss:sum" in metrics
