"""A client's own loss as a graph: what it may do is computed, and nothing else can be reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.types import CreateCustomLossRequest, CustomLossGraph, CustomLossInput, CustomLossNode, Datum, TensorData

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tinkex.clients.loss_handle import encode, trace  # noqa: E402
from tinkex.local.engine import graphs  # noqa: E402
from tinkex.local.engine.graphs import compile_loss  # noqa: E402

pytestmark = pytest.mark.engine

functional = torch.nn.functional


def requested(nodes: list[CustomLossNode], inputs: dict[str, int] | None = None) -> CreateCustomLossRequest:
    """A request with a graph."""
    return CreateCustomLossRequest(
        session_id="s",
        custom_loss_seq_id=0,
        name="mine",
        inputs=[CustomLossInput(name=name, rank=rank) for name, rank in (inputs or {"logprobs": 1}).items()],
        graph=CustomLossGraph(nodes=nodes),
    )


def traced(fn: Callable[..., Any], **ranks: int) -> CreateCustomLossRequest:
    """The request that the client makes of a function."""
    handle = trace(fn, {"logprobs": 1, **ranks})
    return requested(encode(handle).nodes, {"logprobs": 1, **ranks})


def node(op: str, name: str, target: str, *args: Any, **kwargs: Any) -> CustomLossNode:
    """A node as it is on the wire."""
    return CustomLossNode(op=op, name=name, target=target, args=list(args), kwargs=kwargs)


LOGPROBS = node("placeholder", "logprobs", "logprobs")
REF = {"ref": "logprobs"}


def calling(*calls: CustomLossNode) -> list[CustomLossNode]:
    """A graph of some calls, whose last is summed up for the loss."""
    total = node("call_method", "total", "sum", {"ref": calls[-1].name})
    return [LOGPROBS, *calls, total, node("output", "output", "output", {"tuple": [{"ref": "total"}, {"dict": {}}]})]


def run(request: CreateCustomLossRequest, *inputs: Any) -> tuple[Any, dict[str, float]]:
    """Compile and evaluate."""
    given = [torch.tensor(value) if isinstance(value, (list, float)) else value for value in inputs]
    return compile_loss(request)(4, given or [torch.tensor([-1.0, -2.0, -0.5])])


# --- what a loss may do -------------------------------------------------------------------------------------------


def ppo(logprobs: Any, old: Any, advantages: Any) -> Any:
    ratio = torch.exp(logprobs - old)
    gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -gain.sum(), {"custom/ratio:mean": ratio.detach().mean(), "custom/clipped:sum": (ratio > 1.2).float().sum()}


def dpo(logprobs: Any, old: Any, advantages: Any) -> Any:
    return -functional.logsigmoid(0.1 * (logprobs - old).sum() * advantages[0]), {}


def shapes(logprobs: Any, old: Any, advantages: Any) -> Any:
    length = logprobs.shape[0]
    weights = torch.arange(1, length + 1, device=logprobs.device, dtype=torch.float32) / math.sqrt(length)
    ones = torch.ones((length, 1), device=logprobs.device)
    best = torch.topk(advantages, 2)[0].sum() + advantages.max(dim=0).values
    pairs = (old[:, None] - old[None, :]).abs().mean()
    return (weights * logprobs).sum() + (ones.T * logprobs).mean() + best * logprobs[-1] + pairs * logprobs[
        1:
    ].sum(), {}


def branches(logprobs: Any, old: Any, advantages: Any) -> Any:
    kept = torch.where((advantages > 0) & ~torch.isnan(old), logprobs, torch.zeros_like(logprobs))
    log_ratio = torch.clamp(logprobs - old, min=-math.inf, max=2.0)
    entropy = functional.softplus(log_ratio) + functional.huber_loss(logprobs, old, reduction="none", delta=0.5)
    return kept.pow(2).mean() + entropy.sum() - torch.logsumexp(logprobs[logprobs < old], dim=0), {}


def mixed(logprobs: Any, old: Any, advantages: Any) -> Any:
    both = torch.stack([logprobs, old], dim=-1)
    spread = torch.cat([both, both * 2], 0).std() + functional.gelu(both).sum() + torch.special.expit(both).mean()
    return spread / (1 + abs(advantages).sum()) + (logprobs**2 % 0.7).sum() + both[..., 0].cumsum(0)[-1], {}


@pytest.mark.parametrize("function", [ppo, dpo, shapes, branches, mixed])
def test_a_traced_function_has_the_value_and_the_gradient_of_the_function(function: Callable[..., Any]) -> None:
    """What the server computes is what the function computes, metrics too."""
    chance = torch.Generator().manual_seed(3)
    old, advantages = torch.randn(6, generator=chance), torch.randn(6, generator=chance)
    logprobs = [(old + 0.3 * torch.randn(6, generator=chance)).requires_grad_() for _ in range(1)] * 2
    value, metrics = run(traced(function, old=1, advantages=1), logprobs[0], old, advantages)
    expected, named = function(logprobs[1], old, advantages)
    assert torch.allclose(value, expected, rtol=1e-6)
    assert metrics == {key: pytest.approx(float(one)) for key, one in named.items()}
    slopes = [torch.autograd.grad(one, logprobs[0])[0] for one in (value, expected)]
    assert torch.allclose(*slopes, rtol=1e-6)
    assert bool(slopes[0].any())


@pytest.mark.parametrize(
    "function",
    [torch.erf, torch.special.expit, torch.special.xlogy, functional.relu, functional.gelu, functional.softplus],
    ids=lambda function: function.__name__,
)
def test_a_function_is_known_by_the_name_that_tracing_gives_it(function: Callable[..., Any]) -> None:
    """Which is often not the name in the code: ``torch._C._nn.gelu``."""
    args = (2.0,) if function is torch.special.xlogy else ()
    value, _ = run(traced(lambda logprobs: (function(logprobs, *args).sum(), {})))
    assert float(value) == pytest.approx(float(function(torch.tensor([-1.0, -2.0, -0.5]), *args).sum()))


# --- what it may not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([node("call_function", "x", "os.system", "true")], r"nodes\[1\] calls the function 'os.system'"),
        ([node("call_function", "x", "builtins.eval", "1")], "'builtins.eval'"),
        ([node("call_function", "x", "torch.load", "/etc/passwd")], "'torch.load'"),
        ([node("call_function", "x", "torch.set_num_threads", 1)], "'torch.set_num_threads'"),
        ([node("call_function", "x", "torch._C._set_grad_enabled", False)], "'torch._C._set_grad_enabled'"),
        ([node("call_function", "x", "torch.rand_like", REF)], "'torch.rand_like'"),
        ([node("call_function", "x", "operator.attrgetter", "__class__")], "'operator.attrgetter'"),
        ([node("call_function", "x", "operator.setitem", REF, 0, 1)], "'operator.setitem'"),
        ([node("call_function", "x", "torch.nn.functional.dropout", REF)], "dropout"),
        ([node("call_method", "x", "add_", REF, 1)], r"nodes\[1\] calls the method 'add_'"),
        ([node("call_method", "x", "__class__", REF)], "'__class__'"),
        ([node("call_method", "x", "numpy", REF)], "'numpy'"),
        ([node("call_method", "x", "share_memory_", REF)], "'share_memory_'"),
        ([node("call_method", "x", "register_hook", REF)], "'register_hook'"),
        ([node("call_method", "x", "sum", "text")], "calls the method 'sum' of nothing"),
        ([node("call_method", "x", "sum")], "calls the method 'sum' of nothing"),
        ([node("call_function", "x", "getattr", REF, "__class__")], "reads the attribute"),
        ([node("call_function", "x", "getattr", REF, "grad_fn")], "grad_fn"),
        ([node("call_function", "x", "getattr", REF, {"ref": "logprobs"})], "reads the attribute"),
        ([node("call_function", "x", "getattr", REF, "shape", 1)], "reads the attribute"),
        ([node("call_module", "x", "linear", REF)], r"is a call_module \('linear'\)"),
        ([node("get_attr", "x", "weight")], r"is a get_attr \('weight'\)"),
        ([node("call_function", "x", "torch.exp", REF, out=REF)], "passes 'out' to 'torch.exp'"),
        ([node("call_function", "x", "torch.exp", {"ref": "later"})], r"argument .*later"),
        ([node("call_function", "x", "torch.exp", {"layout": "strided"})], r"argument .*layout"),
        ([node("call_function", "x", "torch.exp", {"dtype": "__class__"})], r"argument .*dtype"),
        ([node("call_function", "x", "torch.exp", {"float": "1e9"})], r"argument .*float"),
        ([node("call_function", "x", "torch.exp", {"ref": ["logprobs"]})], r"argument .*ref"),
        ([node("call_function", "x", "torch.exp", {"ref": "logprobs", "x": 1})], "argument"),
        ([node("call_function", "logprobs", "torch.exp", REF)], "another node has"),
        ([node("placeholder", "x", "x")], r"nodes\[1\] is a placeholder"),
    ],
)
def test_what_is_not_in_the_table_is_refused_when_the_loss_is_created(calls: list[CustomLossNode], words: str) -> None:
    """The error names the node and what it wants, and nothing of it has run."""
    with pytest.raises(InvalidInputError, match=words) as caught:
        compile_loss(requested(calling(*calls)))
    assert caught.value.field.startswith("graph.nodes[")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


SUM = node("call_method", "x", "sum", REF)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([LOGPROBS], "has 1 nodes"),
        ([LOGPROBS, *[node("call_method", f"x{i}", "exp", REF) for i in range(1000)]], "has 1001 nodes"),
        ([SUM, LOGPROBS], r"nodes\[0\] is a call_method; the first 1 nodes must stand for the inputs"),
        ([LOGPROBS, SUM], "must be the output"),
        ([LOGPROBS, SUM, node("output", "o", "output", {"ref": "x"})], "must be the output"),
        (
            [LOGPROBS, SUM, node("output", "o", "output", {"tuple": [{"ref": "x"}, {"tuple": []}]})],
            "must be the output",
        ),
        ([LOGPROBS, SUM, node("output", "o", "output", {"tuple": [1.0, {"dict": {}}]})], "1.0 as the loss"),
        (
            [
                LOGPROBS,
                SUM,
                node("output", "o", "output", {"tuple": [{"ref": "x"}, {"dict": {"loss:sum": {"ref": "x"}}}]}),
            ],
            "the metric 'loss:sum'",
        ),
        (
            [LOGPROBS, SUM, node("output", "o", "output", {"tuple": [{"ref": "x"}, {"dict": {"custom/a:sum": 1.0}}]})],
            "the metric 'custom/a:sum'",
        ),
        ([LOGPROBS, node("call_function", "x", "torch.exp", nested(9)), SUM], "more than 8 deep"),
    ],
)
def test_what_is_no_graph_of_a_loss_is_refused(nodes: list[CustomLossNode], words: str) -> None:
    """Too large, out of order, without a loss, or with metrics that would hide the server's."""
    with pytest.raises(InvalidInputError, match=words):
        compile_loss(requested(nodes))


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([node("call_function", "x", "torch.ones", 1 << 40)], "too large"),
        ([node("call_function", "x", "torch.arange", 0, 1, 1e-12)], "too large"),
        ([node("call_method", "x", "repeat", REF, 1 << 40)], "too large"),
        ([node("call_method", "x", "expand", REF, 1 << 40, 3)], "too large"),
        (
            [
                node("call_method", "a", "repeat", REF, 5_000_000),
                node("call_method", "b", "unsqueeze", {"ref": "a"}, 1),
                node("call_function", "x", "operator.mul", {"ref": "a"}, {"ref": "b"}),
            ],
            r"operator.mul \(x\): a tensor of shape \[15000000, 15000000\] is too large",
        ),
        ([node("call_function", "x", "operator.mul", {"tuple": [1]}, 1 << 40)], "takes numbers and tensors"),
        (
            [
                node("call_function", "a", "operator.mul", 1 << 60, 1 << 60),
                node("call_function", "x", "operator.add", REF, {"ref": "a"}),
            ],
            "a number that no tensor holds",
        ),
        ([node("call_function", "x", "operator.pow", 10, 1 << 40)], r"operator.pow \(x\)"),
        ([node("call_function", "x", "operator.pow", -2, 0.5)], "a number that no tensor holds"),
        ([node("call_function", "x", "math.exp", REF)], "plain numbers.*torch.exp"),
        ([node("call_method", "x", "to", REF, "meta")], "cannot leave the device"),
        ([node("call_method", "x", "view", REF, 7)], r"view \(x\)"),
        ([node("call_function", "x", "getattr", 3, "shape")], "can be read of tensors"),
        ([node("call_function", "x", "getattr", {"tuple": [1]}, "values")], "fails at getattr"),
    ],
)
def test_what_goes_wrong_in_a_graph_is_the_fault_of_the_request(calls: list[CustomLossNode], words: str) -> None:
    """No size is computed before it was looked at; the error names the datum, the loss and the call."""
    with pytest.raises(RequestFailedError, match=words) as caught:
        run(requested(calling(*calls)))
    assert caught.value.category == "user"
    assert "data[4]: the custom loss 'mine' fails at" in str(caught.value)


def test_an_activation_never_works_in_place() -> None:
    """Wherever the switch stands among the arguments."""
    logprobs = torch.tensor([-1.0, 2.0])
    for args in ((REF, True), (REF,)):
        kwargs = {} if len(args) == 2 else {"inplace": True}
        value, _ = run(
            requested(calling(node("call_function", "x", "torch.nn.functional.relu", *args, **kwargs))), logprobs
        )
        assert float(value) == 2.0
    assert logprobs.tolist() == [-1.0, 2.0]


def test_a_mask_of_booleans_may_select_of_large_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result has no size before it is known, and is no larger than what it selects from."""
    monkeypatch.setattr(graphs, "MAX_ELEMENTS", 8)
    calls = [
        node("call_function", "mask", "operator.lt", REF, 0.0),
        node("call_function", "x", "operator.getitem", REF, {"ref": "mask"}),
    ]
    assert float(run(requested(calling(*calls)))[0]) == -3.5


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([node("call_function", "x", "torch.log", 0.0)], "fails at torch.log"),
        ([node("call_method", "x", "log", REF)], "gives nan for the loss, which is not finite"),
    ],
)
def test_a_loss_that_is_no_finite_number_fails(calls: list[CustomLossNode], words: str) -> None:
    """As a loss of the server's own would."""
    with pytest.raises(RequestFailedError, match=words):
        run(requested(calling(*calls)))


def test_a_loss_for_each_token_is_no_loss() -> None:
    """The function must add up itself; the error shows the shape."""
    output = node("output", "o", "output", {"tuple": [{"ref": "logprobs"}, {"dict": {}}]})
    with pytest.raises(RequestFailedError, match=r"must return a scalar tensor for the loss, got \[3\]"):
        run(requested([LOGPROBS, output]))
    shape = node("call_method", "x", "size", REF)
    output = node("output", "o", "output", {"tuple": [{"ref": "x"}, {"dict": {}}]})
    with pytest.raises(RequestFailedError, match="a scalar tensor for the loss, got Size"):
        run(requested([LOGPROBS, shape, output]))


# --- in the engine ------------------------------------------------------------------------------------------------


def with_inputs(batch: list[Datum]) -> list[Datum]:
    """Inputs of rank 0, 1 and 2 for each datum."""
    for number, datum in enumerate(batch):
        length = datum.model_input.length
        datum.loss_fn_inputs["scale"] = TensorData(data=[0.5 + number], dtype="float32", shape=[])
        datum.loss_fn_inputs["old"] = TensorData(data=[-5.0 - place for place in range(length)], dtype="float32")
        rows = [float(place % 3) for place in range(2 * length)]
        datum.loss_fn_inputs["rows"] = TensorData(data=rows, dtype="float32", shape=[length, 2])
    return batch


def ranked(logprobs: Any, scale: Any, old: Any, rows: Any) -> Any:
    loss = scale * (logprobs * rows.sum(-1)).mean() + ((logprobs - old) ** 2).sum() / 100
    return loss, {"custom/scale:mean": scale * 1.0, "custom/tokens:sum": torch.ones_like(logprobs).sum()}


RANKS = {"scale": 0, "old": 1, "rows": 2}


@pytest.mark.parametrize("limit", [1, 40, 2048])
def test_the_losses_of_the_datums_are_added_up_however_they_share_micro_batches(new_bench, data, limit: int) -> None:
    """Loss, metrics and gradient are those of the datums one by one."""
    bench = new_bench(microbatch_tokens=limit)
    bench.create()
    bench.engine.add_loss("s:loss:0", traced(ranked, **RANKS))
    batch, config = with_inputs(data([5, 12, 3, 12])), {"loss_id": "s:loss:0"}
    alone = [bench.run([datum], "custom", config=config).metrics for datum in batch]
    one_by_one = bench.gradient()
    bench.engine._models["a"].gradient = None
    output = bench.run(batch, "custom", config=config)
    assert output.metrics["loss:sum"] == pytest.approx(sum(own["loss:sum"] for own in alone), rel=1e-5)
    assert output.metrics["custom/scale:mean"] == pytest.approx(2.0)
    assert output.metrics["custom/tokens:sum"] == 32.0
    assert [one["logprobs"].tolist() for one in output.loss_fn_outputs] == bench.logprobs(data([5, 12, 3, 12]))
    assert output.loss_fn_output_type == "CustomLossReturn"
    assert torch.allclose(bench.gradient(), one_by_one, rtol=1e-4, atol=1e-5 * float(one_by_one.abs().max()))


def test_several_targets_for_each_position_come_in_rows(bench, data) -> None:
    """With targets [N, K] a loss of rank 2 gets logprobs [N, K]."""

    def loss(logprobs: Any) -> Any:
        return logprobs[:, 0].sum() - 2 * logprobs[:, 1].sum(), {}

    request = requested(encode(trace(loss, {"logprobs": 2})).nodes, {"logprobs": 2})
    bench.engine.add_loss("s:loss:0", request)
    (datum,) = data([4])
    targets = TensorData(data=[1, 2, 3, 4, 5, 6, 7, 8], dtype="int64", shape=[4, 2])
    wide = Datum(model_input=datum.model_input, loss_fn_inputs={"target_tokens": targets})
    output = bench.run([wide], "custom", config={"loss_id": "s:loss:0"})
    logprobs = output.loss_fn_outputs[0]["logprobs"].to_numpy()
    assert logprobs.shape == (4, 2)
    assert output.metrics["loss:sum"] == pytest.approx(float(logprobs[:, 0].sum() - 2 * logprobs[:, 1].sum()), rel=1e-5)


def test_forward_alone_needs_no_gradient(bench, data) -> None:
    """A loss that does not depend on the logprobs has a value, and nothing to train."""

    def loss(logprobs: Any) -> Any:
        return logprobs.detach().sum(), {}

    bench.engine.add_loss("s:loss:0", traced(loss))
    config = {"loss_id": "s:loss:0"}
    output = bench.run(data([4]), "custom", config=config, backward=False)
    assert output.metrics["loss:sum"] == pytest.approx(sum(bench.logprobs(data([4]))[0]), rel=1e-5)
    with pytest.raises(RequestFailedError, match="the custom loss does not depend on the logprobs"):
        bench.run(data([4]), "custom", config=config)
    assert bench.gradient() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": None}, r"data\[1\].*'scale'\] is missing: the custom loss 'mine' takes scale as a single number"),
        ({"scale": [1.0, 2.0]}, r"data\[1\].*'scale'\] has shape \[2\]"),
        ({"old": [1.0]}, r"data\[1\].*'old'\] has shape \[1\]: the custom loss 'mine' takes old as a number for each"),
        ({"rows": [1.0] * 5}, r"data\[1\].*'rows'\] has shape \[5\]: .* takes rows as a row for each token"),
        ({"target_tokens": [1] * 4}, r"data\[1\].*'target_tokens'\] has shape \[4\]"),
        ({"target_tokens": [[1, 2]] * 5}, r"data\[1\].*'target_tokens'\] .*takes logprobs as a number for each"),
        ({"target_tokens": [999] * 5}, "holds the token id 999"),
    ],
)
def test_inputs_that_the_loss_does_not_take_are_refused(bench, data, change: dict[str, Any], words: str) -> None:
    """The error names the datum, the input and what the loss wants of it."""
    bench.engine.add_loss("s:loss:0", traced(ranked, **RANKS))
    batch = with_inputs(data([3, 5]))
    for name, value in change.items():
        del batch[1].loss_fn_inputs[name]
        if value is not None:
            kind = "int64" if name == "target_tokens" else "float32"
            batch[1].loss_fn_inputs[name] = TensorData.coerce(value, kind, name)
    with pytest.raises(InvalidInputError, match=words):
        bench.run(batch, "custom", config={"loss_id": "s:loss:0"})


@pytest.mark.parametrize("config", [None, {}, {"loss_id": "s:loss:1"}, {"loss_id": 0.0}])
def test_a_loss_that_was_not_created_or_is_gone_is_named(bench, data, config: dict[str, Any] | None) -> None:
    """The error says how to make one."""
    bench.engine.add_loss("s:loss:1", traced(ranked, **RANKS))
    bench.engine.drop_loss("s:loss:1")
    bench.engine.drop_loss("s:loss:1")
    with pytest.raises(InvalidInputError, match=r"'loss_id'\] is .* no loss of this server; create one") as caught:
        bench.run(data([3]), "custom", config=config)
    assert caught.value.field == "loss_fn_config['loss_id']"
