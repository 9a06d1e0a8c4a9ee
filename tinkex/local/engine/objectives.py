"""What a batch is to be trained on, in one form for training: a loss of the API, or a client's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import torch

from tinkex.local.engine.graphs import GraphLoss
from tinkex.local.engine.losses import Loss, resolve
from tinkex.types import LOSS_INPUTS, ForwardBackwardInput

__all__ = ["Objective", "Row", "objective_of", "packed"]

Array = np.ndarray[Any, Any]


@attrs.frozen(kw_only=True, slots=True, eq=False)
class Row:
    """A datum as arrays.

    Attributes:
        index: Its place in the batch.
        tokens: What the model reads, ``[N]``.
        targets: Candidate targets, ``[N, K]``.
        inputs: The other inputs of the loss, as the objective wants them.
        shape: The shape in which results are returned, ``[N]`` or ``[N, K]``.
    """

    index: int
    tokens: Array
    targets: Array
    inputs: Mapping[str, Array]
    shape: tuple[int, ...]


class Objective(Protocol):
    """Turns the logprobs of a micro-batch into what is summed and differentiated."""

    @property
    def output_type(self) -> str:
        """What ``ForwardBackwardOutput.loss_fn_output_type`` says."""
        ...

    def inputs(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Prepare the inputs of a datum, ``target_tokens`` among them."""
        ...

    def elements(self, part: Sequence[Row], logprobs: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Return the losses of a micro-batch, of whatever elements, and how many of them belong to each row."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the metrics of all datums so far, apart from the loss."""
        ...


@attrs.frozen(slots=True)
class _Formula:
    """A loss of the API: an element for each token."""

    loss: Loss
    settings: Mapping[str, float]
    names: tuple[str, ...]

    @property
    def output_type(self) -> str:
        return self.loss.output_type

    def inputs(self, given: Mapping[str, Array]) -> dict[str, Array]:
        targets = given["target_tokens"]
        inputs = {name: given[name] for name in self.names if name in given and name != "target_tokens"}
        for name, value in self.loss.fills.items():
            stand_in = inputs[value] if isinstance(value, str) else np.full(targets.shape, value, dtype=np.float32)
            inputs.setdefault(name, stand_in)
        return {name: values.reshape(len(targets), -1).astype(np.float32) for name, values in inputs.items()}

    def elements(self, part: Sequence[Row], logprobs: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        inputs = {name: packed([row.inputs[name] for row in part], logprobs.device) for name in part[0].inputs}
        lengths = [len(row.tokens) for row in part]
        if not self.loss.by_datum:
            return self.loss.formula(logprobs, inputs, self.settings), lengths
        cut = {name: values.split(lengths) for name, values in inputs.items()}
        each = [
            self.loss.formula(own, {name: pieces[place] for name, pieces in cut.items()}, self.settings)
            for place, own in enumerate(logprobs.split(lengths))
        ]
        return torch.cat(each), lengths

    def metrics(self) -> dict[str, float]:
        return {}


@attrs.frozen(slots=True)
class _Graph:
    """A client's own loss: an element for each datum."""

    loss: GraphLoss
    seen: list[dict[str, float]] = attrs.field(factory=list)
    output_type: str = "CustomLossReturn"

    def inputs(self, given: Mapping[str, Array]) -> dict[str, Array]:
        # In the binary form a single number comes with one dimension.
        shapes = {item.name: () if item.rank == 0 else given[item.name].shape for item in self.loss.inputs[1:]}
        return {name: given[name].reshape(shape) for name, shape in shapes.items()}

    def elements(self, part: Sequence[Row], logprobs: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        losses = []
        for row, own in zip(part, logprobs.split([len(row.tokens) for row in part]), strict=True):
            inputs = [torch.from_numpy(values).to(own.device) for values in row.inputs.values()]
            loss, metrics = self.loss(row.index, [own.reshape(row.shape), *inputs])
            losses.append(loss.float())
            self.seen.append(metrics)
        return torch.stack(losses), [1] * len(part)

    def metrics(self) -> dict[str, float]:
        """Every datum has the same metrics: they are those of the graph."""
        totals = {key: sum(metrics[key] for metrics in self.seen) for key in self.loss.metrics}
        return {key: value / len(self.seen) if key.endswith(":mean") else value for key, value in totals.items()}


def objective_of(batch: ForwardBackwardInput, own: GraphLoss | None) -> Objective:
    """Return what a batch is to be trained on.

    Args:
        batch: The batch, checked before.
        own: The client's loss, if that is what the batch names.
    """
    if own is not None:
        return _Graph(own)
    return _Formula(*resolve(batch.loss_fn, batch.loss_fn_config), LOSS_INPUTS[batch.loss_fn].names)


def packed(arrays: Sequence[Array], device: torch.device) -> torch.Tensor:
    """Put the arrays of several rows behind each other."""
    return torch.from_numpy(np.concatenate(arrays)).to(device)
