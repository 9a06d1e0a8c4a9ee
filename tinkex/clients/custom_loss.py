"""A loss of the user's own, computed here: the logprobs come from the server, the gradient goes back to it.

The server's ``cross_entropy`` is the sum of - w l over tokens, so its gradient with respect to a logprob l is - w.
With weights w = - dC/dl the server therefore accumulates exactly the gradient of the user's loss C (the chain rule
through l).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tinkex.errors import ConfigurationError, InvalidInputError
from tinkex.types import Datum, ForwardBackwardOutput, TensorData

if TYPE_CHECKING:
    import torch

__all__ = ["CustomLoss", "CustomLossFn"]

CustomLossFn = Callable[[list[Datum], "list[torch.Tensor]"], "tuple[torch.Tensor, Mapping[str, float]]"]
"""Takes the datums and, for each, the logprobs of its target tokens (float32, the shape of ``target_tokens``, gradients
on); returns the loss as a scalar tensor and metrics."""


def import_torch() -> Any:
    """Return torch, or say how to get it."""
    try:
        import torch
    except ImportError as error:
        raise ConfigurationError(
            "forward_backward_custom differentiates your loss with torch, which is not installed: pip install torch"
        ) from error
    return torch


@attrs.define(slots=True)
class CustomLoss:
    """One custom loss on its way: what is sent forward, what comes back, what is sent backward.

    Attributes:
        data: The user's datums, untouched.
        loss_fn: The user's function.
        value: The loss, once it is known.
        metrics: The user's metrics, once they are known.
    """

    data: list[Datum]
    loss_fn: CustomLossFn
    value: float | None = None
    metrics: dict[str, float] = attrs.field(factory=dict)

    def forward_data(self) -> list[Datum]:
        """Return the datums of the forward pass: targets, and weights (0 where there are none).

        Raises:
            InvalidInputError: A datum has no ``target_tokens``.
        """
        return [_only_targets(index, datum) for index, datum in enumerate(self.data)]

    def differentiate(self, outputs: Sequence[Mapping[str, TensorData]]) -> list[Datum]:
        """Call the user's function and turn its gradient into the datums of the backward pass.

        Args:
            outputs: ``loss_fn_outputs`` of the forward pass, one for each datum.

        Returns:
            Datums whose ``weights`` are minus the gradient of the loss with respect to their logprobs.

        Raises:
            InvalidInputError: The function did not return a scalar tensor and a dict, or its gradient is not finite.
        """
        torch = import_torch()
        logprobs = [output["logprobs"].to_torch().requires_grad_(True) for output in outputs]
        # A worker thread starts with its own switch; the caller may have turned gradients off on theirs.
        with torch.enable_grad():
            loss, metrics = self._call(torch, logprobs)
            gradients = torch.autograd.grad(loss, logprobs, allow_unused=True)
        self.value, self.metrics = float(loss.detach()), dict(metrics)
        return [_with_gradient(datum, gradient) for datum, gradient in zip(self.data, gradients, strict=True)]

    def _call(self, torch: Any, logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, float]]:
        returned: Any = self.loss_fn(self.data, logprobs)
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Mapping):
            raise InvalidInputError(
                f"the loss function must return (loss, metrics): a scalar tensor and a dict, got {returned!r:.80}",
                field="loss_fn",
            )
        loss, metrics = returned
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise InvalidInputError(
                "the loss must be a scalar tensor computed from the logprobs, so that it has a gradient; "
                f"got {loss!r:.80}. Do not call .item(), .detach() or .numpy() on the way",
                field="loss_fn",
            )
        if not torch.isfinite(loss):
            raise InvalidInputError(f"the loss function returned {float(loss)}", field="loss_fn")
        return loss.reshape(()), metrics

    def combine(self, output: ForwardBackwardOutput) -> ForwardBackwardOutput:
        """Add the custom loss and the user's metrics to the result of the backward pass.

        ``loss:sum`` is the custom loss; what the server computed under that name is kept as ``surrogate_loss:sum``.
        """
        metrics = dict(output.metrics)
        if "loss:sum" in metrics:
            metrics["surrogate_loss:sum"] = metrics["loss:sum"]
        metrics["loss:sum"] = float("nan") if self.value is None else self.value
        return attrs.evolve(output, metrics={**metrics, **self.metrics})


def _only_targets(index: int, datum: Datum) -> Datum:
    target = datum.loss_fn_inputs.get("target_tokens")
    if target is None:
        field = f"data[{index}].loss_fn_inputs['target_tokens']"
        raise InvalidInputError(
            f"{field} is missing: a custom loss needs the tokens to score", field=field, index=index
        )
    weights = datum.loss_fn_inputs.get("weights") or TensorData(
        data=[0.0] * math.prod(target.full_shape), dtype="float32", shape=target.full_shape
    )
    return Datum(model_input=datum.model_input, loss_fn_inputs={"target_tokens": target, "weights": weights})


def _with_gradient(datum: Datum, gradient: torch.Tensor | None) -> Datum:
    target = datum.loss_fn_inputs["target_tokens"]
    shape = target.full_shape
    weights = (
        TensorData(data=[0.0] * math.prod(shape), dtype="float32", shape=shape)
        if gradient is None
        else TensorData.from_torch(-gradient)
    )
    return Datum(model_input=datum.model_input, loss_fn_inputs={"target_tokens": target, "weights": weights})
