"""Pure functions on batches: estimate sizes, split under the limits, put the results together again.

The rules are those of the wire: a batch is split where the estimate or the count would pass a limit, and the
metrics of the pieces are combined by the suffix of their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from tinkex.errors import InvalidInputError
from tinkex.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
    TensorData,
)

__all__ = ["BINARY", "JSON", "SizeRule", "combine_outputs", "estimate_datum", "estimate_input", "split"]


@attrs.frozen(kw_only=True, slots=True)
class SizeRule:
    """Estimated bytes of one number on the wire."""

    token: int
    int64: int
    float32: int
    index: int
    """Of one index of a sparse tensor."""


JSON = SizeRule(token=10, int64=10, float32=10, index=0)
"""What SDK 0.7 assumes of the JSON form."""
BINARY = SizeRule(token=4, int64=8, float32=4, index=8)
"""What SDK 0.25 and later assume of the binary form."""


def estimate_input(model_input: ModelInput, rule: SizeRule = JSON) -> int:
    """Return the estimated bytes of a prompt."""
    return sum(_chunk_size(chunk, rule) for chunk in model_input.chunks)


def estimate_datum(datum: Datum, rule: SizeRule = JSON) -> int:
    """Return the estimated bytes of a training example."""
    tensors = datum.loss_fn_inputs.values()
    return estimate_input(datum.model_input, rule) + sum(_tensor_size(tensor, rule) for tensor in tensors)


def _chunk_size(chunk: ModelInputChunk, rule: SizeRule) -> int:
    if isinstance(chunk, EncodedTextChunk):
        return rule.token * chunk.length
    if isinstance(chunk, ImageChunk):
        return len(chunk.data)
    return len(chunk.dmel) if isinstance(chunk, DmelChunk) else len(chunk.location)


def _tensor_size(tensor: TensorData, rule: SizeRule) -> int:
    indices = 0
    if tensor.is_sparse:
        indices = len(tensor.sparse_crow_indices) + len(tensor.sparse_col_indices)
    return len(tensor) * (rule.int64 if tensor.dtype == "int64" else rule.float32) + indices * rule.index


def split(sizes: Sequence[int], max_len: int, max_bytes: int) -> list[slice]:
    """Cut a batch into consecutive pieces that respect two limits.

    A piece is closed before an item that would bring it above ``max_bytes``, and after ``max_len`` items. An
    item that alone exceeds ``max_bytes`` travels alone.

    Args:
        sizes: Estimated bytes of each item.
        max_len: Items in a piece at most, at least 1.
        max_bytes: Bytes in a piece at most.

    Returns:
        Slices of the batch, in order, none empty; together they cover it.
    """
    pieces: list[slice] = []
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > max_bytes or index - start >= max_len):
            pieces.append(slice(start, index))
            start, total = index, 0
        total += size
    if sizes:
        pieces.append(slice(start, len(sizes)))
    return pieces


def combine_outputs(outputs: Sequence[ForwardBackwardOutput]) -> ForwardBackwardOutput:
    """Put the results of the pieces of a batch together.

    ``loss_fn_outputs`` are concatenated. A metric ``name:reduction`` is combined by its reduction: ``mean``
    (weighted by the number of outputs of each piece), ``sum``, ``min``, ``max``, ``slack`` (max minus mean),
    ``unique`` (the first keeps the name, the others get ``_1``, ``_2``, ...), ``hash2`` (sum of integers
    modulo 2^64) or ``hash_unordered`` (hash of the sorted integers). A metric that is missing from a piece,
    or has another reduction, is dropped; one without a reduction is kept if there is one piece only.

    Args:
        outputs: Results in the order of the pieces, at least one.

    Returns:
        The result of the batch.

    Raises:
        InvalidInputError: There are no results.
    """
    if not outputs:
        raise InvalidInputError("there are no outputs to combine", field="outputs")
    return ForwardBackwardOutput(
        loss_fn_output_type=outputs[0].loss_fn_output_type,
        loss_fn_outputs=[item for output in outputs for item in output.loss_fn_outputs],
        metrics=_combine_metrics(outputs),
    )


def _combine_metrics(outputs: Sequence[ForwardBackwardOutput]) -> dict[str, float]:
    weights = [len(output.loss_fn_outputs) for output in outputs]
    combined: dict[str, float] = {}
    for key in outputs[0].metrics:
        if all(key in output.metrics for output in outputs):
            values = [output.metrics[key] for output in outputs]
            combined.update(_reduce(key, values, weights))
    return combined


def _reduce(key: str, values: list[float], weights: list[int]) -> dict[str, float]:
    _, colon, reduction = key.partition(":")
    if not colon:
        return {key: values[0]} if len(values) == 1 else {}
    if reduction == "unique":
        return {key if i == 0 else f"{key}_{i}": value for i, value in enumerate(values)}
    if reduction in _WEIGHTED:
        return {key: _WEIGHTED[reduction](values, weights)}
    return {key: _PLAIN[reduction](values)} if reduction in _PLAIN else {}


def _mean(values: list[float], weights: list[int]) -> float:
    total = sum(weights)
    if total == 0:  # no piece says how much it counts, so all count the same
        return sum(values) / len(values)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _integers(values: list[float]) -> list[int]:
    return [int(value) if math.isfinite(value) else 0 for value in values]


_WEIGHTED: dict[str, Callable[[list[float], list[int]], float]] = {
    "mean": _mean,
    "slack": lambda values, weights: max(values) - _mean(values, weights),
}
_PLAIN: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": min,
    "max": max,
    "hash2": lambda values: float(sum(_integers(values)) % 2**64),
    "hash_unordered": lambda values: float(hash(tuple(sorted(_integers(values))))),
}
