"""Fetching the results of submitted operations."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar, Union

from typing_extensions import Unpack

from tinkex.http import Answer
from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw, read_with
from tinkex.types import FutureRetrieveRequest, RequestFailedResponse, ResultMetadata, TryAgainResponse
from tinkex.wire.json import decode_result

__all__ = ["ENDPOINTS", "FuturesResource", "RawFuturesResource"]

T = TypeVar("T")

RETRIEVE: Endpoint[Any] = Endpoint(
    name="futures.retrieve",
    method="POST",
    path="/retrieve_future",
    request=FutureRetrieveRequest,
    # What it is, is an argument.
    response=object,
    # When to ask again is the poller's business.
    retried=False,
)

ENDPOINTS = (RETRIEVE,)


class FuturesResource(Resource):
    """Promises and their results."""

    @cached_property
    def with_raw_response(self) -> RawFuturesResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawFuturesResource(self)

    def retrieve(
        self,
        request: FutureRetrieveRequest,
        expected: type[T],
        *,
        request_type: str = "ForwardBackward",
        iteration: int = 0,
        **options: Unpack[WriteOptions],
    ) -> Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]:
        """Ask once for the result of an operation; the server holds the request while it is not there.

        ``POST /api/v1/retrieve_future``; a single attempt, with the timeout ``poll_timeout`` of the settings.

        Args:
            request: Id of the operation.
            expected: Type of its result; nothing in the answer tells it.
            request_type: Name of the operation for the server's statistics, such as ``OptimStep``.
            iteration: How often this has been asked before.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The result, or that it is not there yet, that it is large, or that the operation failed.

        Raises:
            APIError: See :mod:`tinkex.errors`, with ``request_id`` set; 408 if the result is not there yet,
                410 if it is gone, 404 if the id is unknown.
        """
        headers = {"X-Tinker-Request-Type": request_type, "X-Tinker-Request-Iteration": str(iteration)}
        if options.get("timeout") is None:
            options["timeout"] = self._client.config.poll_timeout

        def read(answer: Answer) -> Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]:
            return read_with(answer, lambda content: decode_result(content, expected))

        endpoint: Endpoint[Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]] = RETRIEVE
        return self._call(endpoint, request, headers=headers, read=read, request_id=request.request_id, **options)


class RawFuturesResource:
    """The methods of :class:`FuturesResource`, returning the answers unread."""

    def __init__(self, resource: FuturesResource) -> None:
        """Wrap the methods."""
        self.retrieve = raw(resource.retrieve)
