"""Forward passes, gradients and optimizer steps."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import attrs
from typing_extensions import Unpack

from tinkex.http import Pieces
from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw
from tinkex.types import (
    CreateCustomLossRequest,
    ForwardBackwardRequest,
    ForwardRequest,
    OptimStepRequest,
    UntypedAPIFuture,
)

__all__ = ["ENDPOINTS", "RawTrainingResource", "TrainingResource", "Wire"]

Wire = Literal["json", "proto", "proto+zstd"]
"""Form of the body of a training request: JSON, protobuf, or protobuf compressed by zstd (extra ``zstd``)."""

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
# In the binary form there is one endpoint, and a flag in the body.
FORWARD_BINARY = attrs.evolve(FORWARD, path=FORWARD_BACKWARD.path)
OPTIM_STEP = Endpoint(
    name="training.optim_step",
    method="POST",
    path="/optim_step",
    request=OptimStepRequest,
    response=UntypedAPIFuture,
)

CREATE_CUSTOM_LOSS = Endpoint(
    name="training.create_custom_loss",
    method="POST",
    path="/create_custom_loss",
    request=CreateCustomLossRequest,
    response=UntypedAPIFuture,
    # A server that cannot run them will not learn it meanwhile.
    final=frozenset({501}),
)

ENDPOINTS = (FORWARD, FORWARD_BACKWARD, OPTIM_STEP, CREATE_CUSTOM_LOSS)


class TrainingResource(Resource):
    """The operations that make up a training step; requests with the same ``seq_id`` are one operation."""

    @cached_property
    def with_raw_response(self) -> RawTrainingResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawTrainingResource(self)

    def prepare(self, wire: Wire) -> None:
        """Load the libraries that a form of the bodies needs, if that is not done: for a time that is spent waiting."""
        _form(wire)

    def forward(
        self, request: ForwardRequest, *, wire: Wire = "json", **options: Unpack[WriteOptions]
    ) -> UntypedAPIFuture:
        """Compute losses and log-probabilities, and no gradient.

        ``POST /api/v1/forward``; in the binary form ``POST /api/v1/forward_backward`` with ``forward_only``.

        Args:
            request: The model, the data and the loss.
            wire: Form of the body.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.ForwardBackwardOutput`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown, 400 or 422 if a datum does not
                fit the loss.
        """
        endpoint = FORWARD if wire == "json" else FORWARD_BINARY
        return self._call(endpoint, request, **_form(wire), **options)

    def forward_backward(
        self, request: ForwardBackwardRequest, *, wire: Wire = "json", **options: Unpack[WriteOptions]
    ) -> UntypedAPIFuture:
        """Compute losses and add their gradient to what the model has accumulated.

        ``POST /api/v1/forward_backward``

        Args:
            request: The model, the data and the loss.
            wire: Form of the body.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.ForwardBackwardOutput`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown, 400 or 422 if a datum does not
                fit the loss.
        """
        return self._call(FORWARD_BACKWARD, request, **_form(wire), **options)

    def optim_step(self, request: OptimStepRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Change the weights by the accumulated gradient, and clear the gradient.

        ``POST /api/v1/optim_step``

        Args:
            request: The model and the optimizer's parameters.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of an :class:`~tinkex.types.OptimStepResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the model is unknown.
        """
        return self._call(OPTIM_STEP, request, **options)

    def create_custom_loss(self, request: CreateCustomLossRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Hand the server a loss function to run, which the loss ``custom`` then names by its id.

        ``POST /api/v1/create_custom_loss``

        Args:
            request: The session, a number unique in it, and the function.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.CreateCustomLossResponse`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 or 501 if the server runs no custom losses.
        """
        return self._call(CREATE_CUSTOM_LOSS, request, **options)


def _form(wire: Wire) -> dict[str, Any]:
    """Return how a request is written in a form, and the headers that say so."""
    if wire == "json":
        return {}
    # The libraries are loaded when they are first needed.
    from tinkex.wire.proto import CONTENT_TYPE, compose_forward_backward, encode_forward_backward

    def write(request: Any) -> Pieces:
        message = compose_forward_backward(request)
        return Pieces(message.parts, message.size)

    headers = {"Content-Type": CONTENT_TYPE}
    if wire == "proto":
        return {"write": write, "headers": headers}
    import zstandard

    return {
        "write": lambda request: zstandard.ZstdCompressor().compress(encode_forward_backward(request)),
        "headers": {**headers, "Content-Encoding": "zstd"},
    }


class RawTrainingResource:
    """The methods of :class:`TrainingResource`, returning the answers unread."""

    def __init__(self, resource: TrainingResource) -> None:
        """Wrap the methods."""
        self.forward = raw(resource.forward)
        self.forward_backward = raw(resource.forward_backward)
        self.optim_step = raw(resource.optim_step)
        self.create_custom_loss = raw(resource.create_custom_loss)
