"""From a batch to its loss and gradient: micro-batches of similar length, one sum."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tinkex.errors import RequestFailedError
from tinkex.local.engine.bases import BaseModel
from tinkex.local.engine.graphs import GraphLoss
from tinkex.local.engine.objectives import Objective, Row, objective_of, packed
from tinkex.types import Datum, ForwardBackwardInput, ForwardBackwardOutput, TensorData

__all__ = ["forward", "microbatches"]

_Result = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Logprobs and elements of the loss of a datum."""


def forward(
    base: BaseModel,
    batch: ForwardBackwardInput,
    limit: int,
    parameters: Sequence[torch.Tensor],
    own: GraphLoss | None,
    prepare: Callable[[], None],
) -> Generator[None, None, tuple[ForwardBackwardOutput, torch.Tensor | None]]:
    """Compute the loss of a batch and its gradient; yield between micro-batches.

    The model may be used for something else in between: no context of torch is open where this yields.

    Args:
        base: The model.
        batch: The data, checked before.
        limit: Most tokens of a micro-batch, padding included; a longer datum is alone in its own.
        parameters: What to differentiate by; empty for the loss alone.
        own: The client's loss, for a batch of the loss ``custom``; else None.
        prepare: Called before each micro-batch; activates the adapter.

    Returns:
        The output in the order of the data, and the gradient as one flat vector, None without ``parameters``.
        Whatever was accumulated before is not touched.

    Raises:
        RequestFailedError: A loss, a logprob or the gradient is not finite, or the client's loss fails.
    """
    objective = objective_of(batch, own)
    rows = [_to_row(index, datum, objective) for index, datum in enumerate(batch.data)]
    results: dict[int, _Result] = {}
    gradient: torch.Tensor | None = None
    for number, part in enumerate(microbatches(rows, limit)):
        if number:
            yield
        prepare()
        found, share = _step(base, objective, part, parameters, batch.loss_fn)
        results.update(found)
        gradient = share if gradient is None or share is None else gradient + share
    if gradient is not None and not bool(gradient.isfinite().all()):
        raise _failure("the gradient is not finite", "Look for very large weights or advantages")
    return _output(objective, batch.loss_fn, rows, results), gradient


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


def _step(
    base: BaseModel,
    objective: Objective,
    part: Sequence[Row],
    parameters: Sequence[torch.Tensor],
    loss_fn: str,
) -> tuple[dict[int, _Result], torch.Tensor | None]:
    """Return the results of a micro-batch by the place of their datum, and its gradient."""
    with torch.inference_mode(not parameters):
        logprobs = _logprobs(base, part)
        elements, sizes = objective.elements(part, logprobs)
        results = dict(_split(part, logprobs, elements, sizes, loss_fn))
    return results, _gradient(elements.sum(), parameters) if parameters else None


def _to_row(index: int, datum: Datum, objective: Objective) -> Row:
    given = {name: tensor.to_numpy() for name, tensor in datum.loss_fn_inputs.items()}
    targets = given["target_tokens"]
    return Row(
        index=index,
        tokens=np.asarray(datum.model_input.to_ints(), dtype=np.int64),
        targets=targets.reshape(len(targets), -1),
        inputs=objective.inputs(given),
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
    return torch.log_softmax(flat.float(), -1).gather(-1, packed([row.targets for row in part], base.device))


def _split(
    part: Sequence[Row], logprobs: torch.Tensor, elements: torch.Tensor, sizes: Sequence[int], loss_fn: str
) -> Iterator[tuple[int, _Result]]:
    """Cut packed results into those of each datum, and look for the first that is not finite."""
    ends = np.cumsum([len(row.tokens) for row in part])[:-1]
    of_logprobs = np.split(logprobs.detach().cpu().numpy(), ends)
    of_elements = np.split(elements.detach().cpu().numpy(), np.cumsum(sizes)[:-1])
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
        yield row.index, (own_logprobs.reshape(row.shape), own_elements)


def _gradient(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    if not loss.requires_grad:
        raise _failure("the custom loss does not depend on the logprobs", "Compute it from them, without detach()")
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _failure(what: str, advice: str) -> RequestFailedError:
    return RequestFailedError(f"{what}. {advice}; the model and its gradient are as before", category="user")


def _output(
    objective: Objective,
    loss_fn: str,
    rows: Sequence[Row],
    results: Mapping[int, _Result],
) -> ForwardBackwardOutput:
    outputs = []
    for row in rows:
        logprobs, elements = results[row.index]
        output = {"logprobs": TensorData.from_numpy(logprobs)}
        if loss_fn == "cross_entropy":
            output["elementwise_loss"] = TensorData.from_numpy(elements.reshape(row.shape))
        outputs.append(output)
    total = sum(float(elements.sum(dtype=np.float64)) for _, elements in results.values())
    tokens = float(sum(len(row.tokens) for row in rows))
    metrics = {"loss:sum": total, "num_tokens:sum": tokens, **objective.metrics()}
    return ForwardBackwardOutput(loss_fn_output_type=objective.output_type, loss_fn_outputs=outputs, metrics=metrics)
