"""Forward passes, gradients and optimizer steps."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw
from tinkex.types import ForwardBackwardRequest, ForwardRequest, OptimStepRequest, UntypedAPIFuture

__all__ = ["ENDPOINTS", "RawTrainingResource", "TrainingResource"]

FORWARD = Endpoint(
    name="training.forward",
    method="POST",
    path="/forward",
    request=ForwardRequest,
    response=UntypedAPIFuture,
)
FORWARD_BACKWARD = Endpoint(
    name="training.forward_backward",
    method="POST",
    path="/forward_backward",
    request=ForwardBackwardRequest,
    response=UntypedAPIFuture,
)
OPTIM_STEP = Endpoint(
    name="training.optim_step",
    method="POST",
    path="/optim_step",
    request=OptimStepRequest,
    response=UntypedAPIFuture,
)

ENDPOINTS = (FORWARD, FORWARD_BACKWARD, OPTIM_STEP)


class TrainingResource(Resource):
    """The operations that make up a training step; requests with the same ``seq_id`` are one operation."""

    @cached_property
    def with_raw_response(self) -> RawTrainingResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawTrainingResource(self)

    def forward(self, request: ForwardRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Compute losses and log-probabilities, and no gradient.

        ``POST /api/v1/forward``

        Args:
            request: The model, the data and the loss.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.ForwardBackwardOutput`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown, 400 or 422 if a datum does not
                fit the loss.
        """
        return self._call(FORWARD, request, **options)

    def forward_backward(self, request: ForwardBackwardRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Compute losses and add their gradient to what the model has accumulated.

        ``POST /api/v1/forward_backward``

        Args:
            request: The model, the data and the loss.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.ForwardBackwardOutput`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown, 400 or 422 if a datum does not
                fit the loss.
        """
        return self._call(FORWARD_BACKWARD, request, **options)

    def optim_step(self, request: OptimStepRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Change the weights by the accumulated gradient, with Adam, and clear the gradient.

        ``POST /api/v1/optim_step``

        Args:
            request: The model and Adam's parameters.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of an :class:`~tinkex.types.OptimStepResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown.
        """
        return self._call(OPTIM_STEP, request, **options)


class RawTrainingResource:
    """The methods of :class:`TrainingResource`, returning the answers unread."""

    def __init__(self, resource: TrainingResource) -> None:
        """Wrap the methods."""
        self.forward = raw(resource.forward)
        self.forward_backward = raw(resource.forward_backward)
        self.optim_step = raw(resource.optim_step)
