"""A client's own loss, run here: a graph of operations out of a table, checked when it comes, evaluated datum by datum.

The graph is not to be trusted, and is not Python: its nodes name entries of :mod:`.operations`, and no name of the
client's is looked up elsewhere. What it can waste is bounded too: the number of nodes, and the size of every tensor
before it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import torch

from tinkex.errors import InvalidInputError, RequestFailedError
from tinkex.local.engine.operations import ATTRIBUTES, DTYPES, FUNCTIONS, KEYWORDS, METHODS, Operation
from tinkex.types import CustomLossInput, CustomLossNode
from tinkex.types.custom_loss import METRIC_KEY, CreateCustomLossRequest

__all__ = ["GraphLoss", "compile_loss"]

MAX_NODES = 1000
MAX_DEPTH = 8
MAX_ELEMENTS = 1 << 24
"""Most elements of one tensor: 64 MiB of float32."""

Values = dict[str, Any]


@attrs.frozen(slots=True)
class Ref:
    """Stands for the value of an earlier node."""

    name: str


@attrs.frozen(kw_only=True, slots=True)
class Step:
    """A call: the value ``name`` is that of ``operation`` on ``args`` and ``kwargs``."""

    name: str
    what: str
    operation: Operation
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@attrs.frozen(kw_only=True, slots=True)
class GraphLoss:
    """A checked graph.

    Attributes:
        name: What the client calls it.
        inputs: What it reads, ``logprobs`` first.
        parameters: Names of the nodes that stand for them, in the same order.
        steps: The calls in order.
        loss: The node that is the loss.
        metrics: The node of each metric.
    """

    name: str
    inputs: Sequence[CustomLossInput]
    parameters: Sequence[str]
    steps: Sequence[Step]
    loss: Ref
    metrics: Mapping[str, Ref]

    def __call__(self, index: int, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Evaluate it on one datum.

        Args:
            index: The place of the datum in its batch, for errors.
            inputs: The tensors of ``inputs``, each of its rank.

        Returns:
            The loss, a scalar with its gradient, and the metrics.

        Raises:
            RequestFailedError: A call fails or its result is too large, or the loss or a metric is not a finite scalar.
        """
        values: Values = dict(zip(self.parameters, inputs, strict=True))
        for step in self.steps:
            try:
                values[step.name] = _run(step, values, inputs[0].device)
            except Exception as error:
                self._fail(index, f"fails at {step.what} ({step.name}): {error}")
        loss = self._scalar(index, "the loss", values[self.loss.name])
        metrics = {key: float(self._scalar(index, key, values[ref.name]).detach()) for key, ref in self.metrics.items()}
        return loss, metrics

    def _scalar(self, index: int, what: str, value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.ndim or value.is_complex():
            shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            self._fail(index, f"must return a scalar tensor for {what}, got {shape}")
        if not bool(value.isfinite()):
            self._fail(index, f"gives {float(value)} for {what}, which is not finite")
        return value

    def _fail(self, index: int, what: str) -> NoReturn:
        message = (
            f"data[{index}]: the custom loss {self.name!r:.80} {what:.400}; the model and its gradient are as before"
        )
        raise RequestFailedError(message, category="user")


def _run(step: Step, values: Values, device: torch.device) -> Any:
    args, kwargs = _filled(step.args, values), _filled(step.kwargs, values)
    operation = step.operation
    if operation.placed or "device" in kwargs:
        kwargs["device"] = device
    if operation.sized or math.prod(max(1, tensor.numel()) for tensor in _tensors((args, kwargs))) > MAX_ELEMENTS:
        _foresee(operation, args, kwargs)
    result = operation.call(*args, **kwargs)
    for tensor in _tensors(result):
        _check_size(tensor)
        if tensor.device.type != device.type:
            raise ValueError(f"a loss cannot leave the device {device}")
    return result


def _foresee(operation: Operation, args: Any, kwargs: Any) -> None:
    """Compute the sizes of a result alone, and refuse a result that is too large.

    Where sizes depend on values, as with a mask of booleans, that cannot be done; the result is then no larger than
    what went in.
    """
    elsewhere = {"device": "meta"} if "device" in kwargs else {}
    try:
        result = operation.call(*_meta(args), **{**_meta(kwargs), **elsewhere})
    except (NotImplementedError, RuntimeError):
        if operation.sized:
            raise
        return
    for tensor in _tensors(result):
        _check_size(tensor)


def _check_size(tensor: torch.Tensor) -> None:
    if tensor.numel() > MAX_ELEMENTS:
        raise ValueError(f"a tensor of shape {list(tensor.shape)} is too large, at most {MAX_ELEMENTS} elements")


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to the leaves of tuples, lists, dicts and slices."""
    if isinstance(value, (tuple, list)):
        items = [_mapped(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(item, change) for item in (value.start, value.stop, value.step)))
    return change(value)


def _filled(value: Any, values: Values) -> Any:
    return _mapped(value, lambda leaf: values[leaf.name] if isinstance(leaf, Ref) else leaf)


def _meta(value: Any) -> Any:
    return _mapped(value, lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


# --- from the wire ------------------------------------------------------------------------------------------------


def compile_loss(request: CreateCustomLossRequest) -> GraphLoss:
    """Check the graph of a request and make it ready to run.

    Raises:
        InvalidInputError: It calls what is not in the table, or is no graph of a loss; the error names the node.
    """
    nodes = request.graph.nodes
    if not 2 <= len(nodes) <= MAX_NODES:
        _refuse("graph.nodes", f"has {len(nodes)} nodes; a loss has 2 to {MAX_NODES}")
    count = len(request.inputs)
    known: set[str] = set()
    steps: list[Step] = []
    for place, node in enumerate(nodes[:-1]):
        field = f"graph.nodes[{place}]"
        if (node.op == "placeholder") != (place < count):
            _refuse(field, f"is a {node.op}; the first {count} nodes must stand for the inputs, and no others")
        if place >= count:
            steps.append(_step(node, field, known))
        if node.name in known:
            _refuse(field, f"has the name {node.name!r:.60}, which another node has")
        known.add(node.name)
    loss, metrics = _output(nodes[-1], f"graph.nodes[{len(nodes) - 1}]", known)
    return GraphLoss(
        name=request.name,
        inputs=request.inputs,
        parameters=[node.name for node in nodes[:count]],
        steps=steps,
        loss=loss,
        metrics=metrics,
    )


def _step(node: CustomLossNode, field: str, known: set[str]) -> Step:
    args = tuple(_decoded(arg, field, known) for arg in node.args)
    kwargs = {key: _decoded(arg, field, known) for key, arg in node.kwargs.items()}
    for key in kwargs:
        if key not in KEYWORDS:
            _refuse(field, f"passes {key!r:.60} to {node.target!r:.80}, which a loss cannot do on this server")
    return Step(
        name=node.name, what=node.target[:80], operation=_operation(node, field, args), args=args, kwargs=kwargs
    )


def _operation(node: CustomLossNode, field: str, args: tuple[Any, ...]) -> Operation:
    if node.op == "call_function" and node.target in ("getattr", "builtins.getattr"):
        return _attribute(field, args)
    table = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op)
    if table is None:
        _refuse(
            field, f"is a {node.op} ({node.target!r:.80}); a loss calls functions of torch and methods of tensors only"
        )
    if node.target not in table:
        kind = "function" if node.op == "call_function" else "method"
        _refuse(
            field,
            f"calls the {kind} {node.target!r:.80}, which this server does not run; use another, or compute the loss "
            "in your program: forward_backward_custom(data, function)",
        )
    if node.op == "call_method" and not (args and isinstance(args[0], Ref)):
        _refuse(field, f"calls the method {node.target!r:.80} of nothing")
    return table[node.target]


def _attribute(field: str, args: tuple[Any, ...]) -> Operation:
    if len(args) != 2 or not isinstance(args[1], str) or args[1] not in ATTRIBUTES:
        _refuse(field, f"reads the attribute {args[1:]!r:.80}; a loss can read {', '.join(sorted(ATTRIBUTES))}")

    def read(value: Any, name: str) -> Any:
        if not isinstance(value, (torch.Tensor, tuple)):
            raise TypeError(f"{name!r} can be read of tensors")
        return getattr(value, name)

    return Operation(read)


def _output(node: CustomLossNode, field: str, known: set[str]) -> tuple[Ref, dict[str, Ref]]:
    returned = [_decoded(arg, field, known) for arg in node.args] if node.op == "output" else []
    pair = returned[0] if len(returned) == 1 else None
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], dict):
        _refuse(field, "must be the output: the loss, and a dict of metrics")
    loss, metrics = pair
    if not isinstance(loss, Ref):
        _refuse(field, f"returns {loss!r:.60} as the loss, which must be computed from the inputs")
    for key, value in metrics.items():
        if not METRIC_KEY.fullmatch(key) or not isinstance(value, Ref):
            _refuse(
                field,
                f"returns the metric {key!r:.80}; it must be a tensor named custom/<name>:sum or custom/<name>:mean",
            )
    return loss, metrics


def _decoded(value: Any, field: str, known: set[str], depth: int = 0) -> Any:
    """Read an argument: JSON's scalars and lists stand for themselves, all else is an object with one key."""
    if depth > MAX_DEPTH:
        _refuse(field, f"has arguments within arguments, more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value

    def inner(item: Any) -> Any:
        return _decoded(item, field, known, depth + 1)

    if isinstance(value, list):
        return [inner(item) for item in value]
    kind, content = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (None, None)
    if isinstance(content, str):
        return _named(kind, content, field, known)
    if kind == "tuple" and isinstance(content, list):
        return tuple(inner(item) for item in content)
    if kind == "slice" and isinstance(content, list) and len(content) == 3:
        return slice(*(inner(item) for item in content))
    if kind == "dict" and isinstance(content, dict):
        return {str(key): inner(item) for key, item in content.items()}
    if kind == "ellipsis":
        return Ellipsis
    return _refuse(field, f"has the argument {value!r:.80}, which a loss cannot have on this server")


def _named(kind: str | None, content: str, field: str, known: set[str]) -> Any:
    if kind == "ref" and content in known:
        return Ref(content)
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "device":
        return content
    if kind == "dtype" and content in DTYPES:
        return DTYPES[content]
    return _refuse(field, f"has the argument {kind}={content!r:.60}, which a loss cannot have on this server")


def _refuse(field: str, problem: str) -> NoReturn:
    raise InvalidInputError(f"{field} {problem}", field=field)
