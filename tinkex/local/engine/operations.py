"""What a client's loss may call: a table of names, so that nothing else can be reached.

Every entry computes a value from values; none writes to what it gets, reads a file, draws a number or keeps state. The
names are those under which ``torch.fx`` records a call.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch.nn import functional

__all__ = ["ATTRIBUTES", "DTYPES", "FUNCTIONS", "KEYWORDS", "METHODS", "Operation"]

_LARGEST_INT = 1 << 63


@attrs.frozen(slots=True)
class Operation:
    """One entry.

    Attributes:
        call: What computes it.
        sized: Numbers, not tensors, say how large its result is.
        placed: It makes a tensor out of numbers, so it must be told on which device.
    """

    call: Callable[..., Any]
    sized: bool = False
    placed: bool = False


# Functions of torch that are methods of tensors too.
_ELEMENTWISE = """abs add atan atan2 ceil clamp clamp_max clamp_min clip cos cosh div divide eq erf exp exp2 expm1
float_power floor floor_divide fmod ge greater greater_equal gt heaviside hypot isclose isfinite isinf isnan le lerp
less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor lt masked_fill maximum
minimum mul multiply nan_to_num ne neg negative not_equal pow reciprocal relu remainder round rsqrt sigmoid sign sin
sinh sqrt square sub subtract tan tanh true_divide trunc where xlogy"""
_REDUCTIONS = """all amax amin any argmax argmin count_nonzero cummax cummin cumprod cumsum dot log_softmax
logcumsumexp logsumexp max mean median min norm numel outer prod quantile softmax std sum var"""
_REARRANGEMENTS = """argsort broadcast_to chunk clone detach diff flatten flip gather index_fill index_select
masked_select moveaxis movedim narrow permute ravel reshape roll scatter_add select sort split squeeze swapaxes t
take_along_dim topk transpose tril triu unbind unflatten unsqueeze"""
_METHODS = """bool contiguous dim double expand expand_as float int long ndimension reshape_as size to type_as view
view_as"""
_ACTIVATIONS = """binary_cross_entropy binary_cross_entropy_with_logits cosine_similarity elu gelu hardtanh huber_loss
kl_div l1_loss leaky_relu log_softmax logsigmoid margin_ranking_loss mse_loss relu relu6 sigmoid silu smooth_l1_loss
softmax softmin softplus softsign tanh threshold"""
_SPECIAL = "entr expit expm1 log1p log_softmax logit softmax xlogy"
_OF_NUMBERS = "ceil exp expm1 fabs floor fmod hypot log log10 log1p log2 sqrt tanh"
_OPERATORS = "abs add and_ eq floordiv ge gt invert le lt mod mul ne neg or_ pos pow sub truediv xor"

_KEYWORDS = """_stacklevel alpha approximate atol axis beta correction decimals delta descending device diagonal dim
dims dtype end end_dim eps equal_nan exponent fill_value index inplace input keepdim largest length log_target margin
max max_val min min_val n nan neginf negative_slope other p pos_weight posinf q reduce reduction repeats rounding_mode
rtol shifts size size_average sorted stable start start_dim step target threshold unbiased value values weight"""


def _of_numbers(name: str) -> Operation:
    function = getattr(math, name)

    def call(*values: Any) -> Any:
        if not all(isinstance(value, (int, float)) for value in values):
            raise TypeError(f"math.{name} takes plain numbers, such as sizes; for tensors there is torch.{name}")
        return function(*values)

    return Operation(call)


def _arithmetic(name: str) -> Operation:
    function = getattr(operator, name)

    def call(*values: Any) -> Any:
        # Not texts and tuples, which * makes longer.
        if not all(isinstance(value, (int, float, torch.Tensor)) for value in values):
            raise TypeError(f"operator.{name} takes numbers and tensors")
        if name == "pow" and not any(isinstance(value, torch.Tensor) for value in values):
            values = (float(values[0]), values[1])  # whole numbers would grow without end
        result = function(*values)
        if isinstance(result, complex) or (isinstance(result, int) and abs(result) > _LARGEST_INT):
            raise OverflowError(f"operator.{name} gives a number that no tensor holds")
        return result

    return Operation(call)


def _never_in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take the argument ``inplace`` out of every call, wherever it stands."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C++, where no function of the table has it
        return function
    if "inplace" not in signature.parameters:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments["inplace"] = False
        return function(*given.args, **given.kwargs)

    return call


def _functions(room: Any, prefix: str, names: str, **options: bool) -> dict[str, Operation]:
    return {prefix + name: Operation(_never_in_place(getattr(room, name)), **options) for name in names.split()}


_BOTH = f"{_ELEMENTWISE} {_REDUCTIONS} {_REARRANGEMENTS}"
FUNCTIONS: dict[str, Operation] = {
    **_functions(torch, "torch.", f"{_BOTH} cat full_like ones_like stack zeros_like"),
    **_functions(torch, "torch.", "tile", sized=True),
    **_functions(torch, "torch.", "arange full ones zeros", sized=True, placed=True),
    **_functions(functional, "torch.nn.functional.", _ACTIVATIONS),
    **_functions(functional, "torch._C._nn.", "gelu softplus"),
    "torch._C._nn.log_sigmoid": Operation(functional.logsigmoid),
    **_functions(torch.special, "torch.special.", _SPECIAL),
    **_functions(torch.special, "torch._C._special.special_", _SPECIAL),
    **{f"math.{name}": _of_numbers(name) for name in _OF_NUMBERS.split()},
    **{f"operator.{name}": _arithmetic(name) for name in _OPERATORS.split()},
    "operator.getitem": Operation(operator.getitem),
}
METHODS: dict[str, Operation] = {
    **_functions(torch.Tensor, "", f"{_BOTH} {_METHODS}"),
    **_functions(torch.Tensor, "", "repeat tile", sized=True),
}
KEYWORDS = frozenset(_KEYWORDS.split())
"""Arguments by name. Not ``out``, which writes."""
ATTRIBUTES = frozenset({"T", "device", "dtype", "indices", "mT", "ndim", "shape", "values"})
"""Of tensors, and of the pairs that ``max`` and ``sort`` return."""
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in ("bool", "double", "float", "float32", "float64", "int32", "int64", "long")
}
