"""From a batch to its loss and gradient: micro-batches of similar length, one sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from tinkex.errors import RequestFailedError
from tinkex.local.engine.bases import BaseModel
from tinkex.local.engine.losses import Loss, resolve
from tinkex.types import Datum, ForwardBackwardInput, ForwardBackwardOutput, TensorData

__all__ = ["forward", "microbatches"]


@attrs.frozen(kw_only=True, slots=True, eq=False)
class Row:
    """A datum as arrays.

    Attributes:
        index: Its place in the batch.
        tokens: What the model reads, ``[N]``.
        targets: Candidate targets, ``[N, K]``.
        inputs: The other inputs of the loss, each ``[N, K]``.
        shape: The shape in which results are returned, ``[N]`` or ``[N, K]``.
    """

    index: int
    tokens: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    inputs: dict[str, np.ndarray[Any, Any]]
    shape: tuple[int, ...]


def forward(
    base: BaseModel, batch: ForwardBackwardInput, limit: int, parameters: Sequence[torch.Tensor]
) -> tuple[ForwardBackwardOutput, torch.Tensor | None]:
    """Compute the loss of a batch under the active adapter, and its gradient.

    Args:
        base: The model, with the adapter active.
        batch: The data, checked before.
        limit: Most tokens of a micro-batch, padding included; a longer datum is alone in its own.
        parameters: What to differentiate by; empty for the loss alone.

    Returns:
        The output in the order of the data, and the gradient as one flat vector, None without ``parameters``.
        Whatever was accumulated before is not touched.

    Raises:
        RequestFailedError: A loss, a logprob or the gradient is not finite.
    """
    loss, settings = resolve(batch.loss_fn, batch.loss_fn_config)
    rows = [_to_row(index, datum, loss) for index, datum in enumerate(batch.data)]
    results: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
    gradient: torch.Tensor | None = None
    for part in microbatches(rows, limit):
        with torch.inference_mode(not parameters):
            logprobs = _logprobs(base, part)
            inputs = {name: _packed([row.inputs[name] for row in part], base.device) for name in part[0].inputs}
            elements = _elements(part, loss, logprobs, inputs, settings)
            results.update(_split(part, logprobs, elements, batch.loss_fn))
        if parameters:
            own = _gradient(elements.sum(), parameters)
            gradient = own if gradient is None else gradient + own
    if gradient is not None and not bool(gradient.isfinite().all()):
        raise _failure("the gradient is not finite", "Look for very large weights or advantages")
    return _output(loss, batch.loss_fn, rows, results), gradient


def microbatches(rows: Sequence[Row], limit: int) -> Iterator[list[Row]]:
    """Group rows of the same K and of similar length, so that rows times the longest stays within ``limit``."""
    part: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.targets.shape[1], len(row.tokens))):
        full = (len(part) + 1) * len(row.tokens) > limit
        if part and (full or row.targets.shape[1] != part[0].targets.shape[1]):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _to_row(index: int, datum: Datum, loss: Loss) -> Row:
    inputs = {name: tensor.to_numpy() for name, tensor in datum.loss_fn_inputs.items()}
    targets = inputs.pop("target_tokens")
    for name, value in loss.fills.items():
        stand_in = inputs[value] if isinstance(value, str) else np.full(targets.shape, value, dtype=np.float32)
        inputs.setdefault(name, stand_in)
    matrix = (len(targets), -1)
    return Row(
        index=index,
        tokens=np.asarray(datum.model_input.to_ints(), dtype=np.int64),
        targets=targets.reshape(matrix),
        inputs={name: values.reshape(matrix).astype(np.float32) for name, values in inputs.items()},
        shape=targets.shape,
    )


def _logprobs(base: BaseModel, part: Sequence[Row]) -> torch.Tensor:
    """Return the logprobs of all targets of all rows, ``[sum of N, K]``."""
    width = max(len(row.tokens) for row in part)
    tokens = np.zeros((len(part), width), dtype=np.int64)
    for line, row in zip(tokens, part, strict=True):
        line[: len(row.tokens)] = row.tokens
    # Padding stands behind the tokens, where a causal model cannot see it: no mask is needed.
    logits = base.model(input_ids=torch.from_numpy(tokens).to(base.device), use_cache=False).logits
    real = np.concatenate([width * line + np.arange(len(row.tokens)) for line, row in enumerate(part)])
    flat = logits.reshape(-1, logits.shape[-1])
    if len(real) < len(flat):
        flat = flat[torch.from_numpy(real).to(base.device)]
    return torch.log_softmax(flat.float(), -1).gather(-1, _packed([row.targets for row in part], base.device))


def _elements(
    part: Sequence[Row],
    loss: Loss,
    logprobs: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],
    settings: Mapping[str, float],
) -> torch.Tensor:
    if not loss.by_datum:
        return loss.formula(logprobs, inputs, settings)
    lengths = [len(row.tokens) for row in part]
    cut = {name: values.split(lengths) for name, values in inputs.items()}
    return torch.cat(
        [
            loss.formula(own, {name: pieces[place] for name, pieces in cut.items()}, settings)
            for place, own in enumerate(logprobs.split(lengths))
        ]
    )


def _packed(arrays: Sequence[np.ndarray[Any, Any]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays)).to(device)


def _split(
    part: Sequence[Row], logprobs: torch.Tensor, elements: torch.Tensor, loss_fn: str
) -> Iterator[tuple[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]]:
    """Cut packed results into those of each datum, and look for the first that is not finite."""
    ends = np.cumsum([len(row.tokens) for row in part])[:-1]
    of_logprobs = np.split(logprobs.detach().cpu().numpy(), ends)
    of_elements = np.split(elements.detach().cpu().numpy(), ends)
    for row, own_logprobs, own_elements in zip(part, of_logprobs, of_elements, strict=True):
        if not np.isfinite(own_logprobs).all():
            raise _failure(
                f"the model's logprobs of data[{row.index}] are not finite", "Was the learning rate too high?"
            )
        if not np.isfinite(own_elements).all():
            raise _failure(
                f"the {loss_fn} loss of data[{row.index}] is not finite",
                "Look at its logprobs, advantages or weights: a ratio exp(new - old logprob) may have overflowed",
            )
        yield row.index, (own_logprobs.reshape(row.shape), own_elements.reshape(row.shape))


def _gradient(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _failure(what: str, advice: str) -> RequestFailedError:
    return RequestFailedError(f"{what}. {advice}; the model and its gradient are as before", category="user")


def _output(
    loss: Loss,
    loss_fn: str,
    rows: Sequence[Row],
    results: Mapping[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
) -> ForwardBackwardOutput:
    outputs = []
    for row in rows:
        logprobs, elements = results[row.index]
        output = {"logprobs": TensorData.from_numpy(logprobs)}
        if loss_fn == "cross_entropy":
            output["elementwise_loss"] = TensorData.from_numpy(elements)
        outputs.append(output)
    total = sum(float(elements.sum(dtype=np.float64)) for _, elements in results.values())
    metrics = {"loss:sum": total, "num_tokens:sum": float(sum(len(row.tokens) for row in rows))}
    return ForwardBackwardOutput(loss_fn_output_type=loss.output_type, loss_fn_outputs=outputs, metrics=metrics)
