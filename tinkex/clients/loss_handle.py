"""A loss of the user's own that runs on the server: traced here with ``torch.fx``, sent as a graph of calls.

What a node and an argument look like on the wire is written at :class:`tinkex.types.CustomLossNode`. Which functions it
may call is for the server to say; here is refused what no graph can say.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import ConfigurationError, InvalidInputError
from tinkex.types import CustomLossGraph, CustomLossInput, CustomLossInputRank, CustomLossNode
from tinkex.types.custom_loss import METRIC_KEY, MOST_INPUTS

if TYPE_CHECKING:
    import torch

__all__ = ["LossHandle", "PerDatumLossFn", "encode", "trace"]

PerDatumLossFn = Callable[..., "tuple[torch.Tensor, Mapping[str, torch.Tensor]]"]
"""Takes the logprobs of one datum and the entries of its ``loss_fn_inputs`` that it names, as tensors; returns the loss
as a scalar tensor, and metrics: scalar tensors named ``custom/<name>:sum`` or ``custom/<name>:mean``."""

_MODULES = ("torch", "math", "operator", "_operator")
_LEAVES_TORCH = frozenset({"item", "numpy", "tolist"})
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@attrs.frozen(kw_only=True)
class LossHandle:
    """A loss that a server runs; made by ``ServiceClient.create_custom_loss``.

    Attributes:
        name: Name of the function.
        inputs: What it reads, ``logprobs`` first, each with its rank.
        session_id: The session that it belongs to: only clients of that session can use it.
        graph: What was traced, a ``torch.fx.GraphModule``. This is what runs, not the function.
        loss_id: Its name on the server.
    """

    name: str
    inputs: tuple[CustomLossInput, ...]
    session_id: str
    graph: Any = attrs.field(repr=False, eq=False)
    loss_id: str | None = None

    @property
    def key(self) -> str:
        """A digest of what was traced: equal for losses that compute the same in the same way."""
        text = f"{self.graph.code}{[(item.name, item.rank) for item in self.inputs]}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs apart from ``logprobs``, in the order of the parameters."""
        return tuple(item.name for item in self.inputs[1:])


def trace(fn: PerDatumLossFn, input_ranks: Mapping[str, CustomLossInputRank], session_id: str = "") -> LossHandle:
    """Trace a function.

    Args:
        fn: The function.
        input_ranks: The rank of each of its parameters.
        session_id: The session that it is for.

    Returns:
        A handle without an id.

    Raises:
        ConfigurationError: torch is not installed.
        InvalidInputError: The parameters are not those of a loss, or the function does what cannot be sent.
    """
    try:
        from torch import fx
    except ImportError as error:
        raise ConfigurationError(
            "create_custom_loss traces your loss with torch, which is not installed: pip install torch"
        ) from error
    name = str(getattr(fn, "__name__", type(fn).__name__))
    inputs = _inputs_of(fn, name, input_ranks)
    try:
        graph = fx.symbolic_trace(fn)
    except Exception as error:
        _refuse(
            f"{name} cannot be traced: {error}. A loss for the server cannot branch on the values of tensors, nor call "
            "anything but torch and math",
            cause=error,
        )
    for node in graph.graph.nodes:
        problem = _problem_of(node)
        if problem is not None:
            _refuse(f"{name} {problem}")
    return LossHandle(name=name, inputs=inputs, session_id=session_id, graph=graph)


def encode(handle: LossHandle) -> CustomLossGraph:
    """Write the graph as plain data.

    Raises:
        InvalidInputError: An argument is of a kind that cannot be sent.
    """
    return CustomLossGraph(
        nodes=[
            CustomLossNode(
                op=node.op,
                name=node.name,
                target=_target(node),
                args=[_encoded(handle.name, value) for value in node.args],
                kwargs={key: _encoded(handle.name, value) for key, value in node.kwargs.items()},
            )
            for node in handle.graph.graph.nodes
        ]
    )


def _inputs_of(fn: PerDatumLossFn, name: str, ranks: Mapping[str, Any]) -> tuple[CustomLossInput, ...]:
    parameters = list(inspect.signature(fn).parameters.values())
    names = [parameter.name for parameter in parameters]
    if names[:1] != ["logprobs"]:
        _refuse(f"{name} must take logprobs first, then the loss_fn_inputs it reads: def loss(logprobs, advantages)")
    if len(names) > MOST_INPUTS:
        _refuse(f"{name} takes {len(names)} parameters, a loss at most {MOST_INPUTS}")
    for parameter in parameters:
        if parameter.kind not in _PLAIN or parameter.default is not parameter.empty:
            _refuse(f"{name} must take {parameter.name!r} as a plain parameter, without a default, * or **")
    if set(ranks) != set(names):
        _refuse(f"{name} takes {', '.join(names)}; give the rank of each, not of {sorted(ranks)}", field="input_ranks")
    ranks = {key: plain_number(rank) for key, rank in ranks.items()}
    for key, rank in ranks.items():
        lowest = 1 if key == "logprobs" else 0
        if rank not in (0, 1, 2) or rank < lowest:
            _refuse(f"the rank of {key!r} must be {lowest} to 2, got {rank!r:.40}", field=f"input_ranks[{key!r}]")
    return tuple(CustomLossInput(name=key, rank=ranks[key]) for key in names)


def _problem_of(node: Any) -> str | None:
    """Return why a node cannot be sent, or None."""
    if node.op == "call_function":
        module = getattr(node.target, "__module__", None) or ""
        if node.target is not getattr and module.split(".")[0] not in _MODULES:
            return f"calls {getattr(node.target, '__qualname__', node.target)} of {module}; it may call torch and math"
    if node.op == "call_method" and node.target in _LEAVES_TORCH:
        return f"calls .{node.target}(), which leaves torch; return tensors, the metrics too"
    if node.op == "call_method" and node.target == "backward":
        return "calls .backward(); return the loss, and it is differentiated"
    if node.op == "call_module":
        return f"uses the module {node.target!r}; use functions, such as those of torch.nn.functional"
    if node.op == "get_attr":
        return f"reads the tensor {node.target!r} from outside; pass it in loss_fn_inputs, numbers as numbers"
    return _problem_of_output(node.args[0]) if node.op == "output" else None


def _problem_of_output(returned: Any) -> str | None:
    if not isinstance(returned, (tuple, list)) or len(returned) != 2 or not isinstance(returned[1], dict):
        return "must return (loss, metrics): a scalar tensor and a dict"
    loss, metrics = returned
    if not _is_node(loss):
        return f"must return a tensor as the loss, got {loss!r:.60}"
    for key, value in metrics.items():
        if not isinstance(key, str) or not METRIC_KEY.fullmatch(key):
            return f"returns the metric {key!r:.80}; call it custom/<name>:sum or custom/<name>:mean, in lower case"
        if not _is_node(value):
            return f"must return a tensor as the metric {key!r}, got {value!r:.60}"
    return None


def _is_node(value: Any) -> bool:
    from torch import fx

    return isinstance(value, fx.Node)


def _target(node: Any) -> str:
    from torch.fx.node import _get_qualified_name

    if node.op != "call_function":
        return str(node.target)
    name = str(_get_qualified_name(node.target))
    return "operator." + name[len("_operator.") :] if name.startswith("_operator.") else name


def _encoded(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"float": str(value)}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, slice):
        return {"slice": [_encoded(name, item) for item in (value.start, value.stop, value.step)]}
    if isinstance(value, (list, tuple)):
        items = [_encoded(name, item) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": {str(key): _encoded(name, item) for key, item in value.items()}}
    return _encoded_of_torch(name, value)


def _encoded_of_torch(name: str, value: Any) -> Any:
    import torch

    if _is_node(value):
        return {"ref": value.name}
    for kind in ("dtype", "device", "layout", "memory_format"):
        if isinstance(value, getattr(torch, kind)):
            return {kind: str(value).removeprefix("torch.")}
    return _refuse(f"{name} passes {value!r:.80}, of a kind that cannot be sent")


def _refuse(problem: str, *, field: str = "fn", cause: Exception | None = None) -> NoReturn:
    raise InvalidInputError(f"create_custom_loss: {problem}", field=field) from cause
