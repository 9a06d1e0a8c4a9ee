"""Fetching the results of submitted operations."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar, Union

from typing_extensions import Unpack

from tinkex.errors import InvalidInputError
from tinkex.http import Answer
from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw, read_with
from tinkex.types import (
    CancelFutureRequest,
    ForwardBackwardOutput,
    FutureRetrieveRequest,
    FuturesRetrieveRequest,
    FuturesRetrieveResponse,
    RequestFailedResponse,
    ResultMetadata,
    SampleResponse,
    TryAgainResponse,
)
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

RETRIEVE_MANY = Endpoint(
    name="futures.retrieve_many",
    method="POST",
    path="/retrieve_futures",
    request=FuturesRetrieveRequest,
    response=FuturesRetrieveResponse,
    retried=False,
)
CANCEL: Endpoint[None] = Endpoint(
    name="futures.cancel",
    method="POST",
    path="/cancel_future",
    request=CancelFutureRequest,
    response=None,
    timeout=30.0,
)

ENDPOINTS = (RETRIEVE, RETRIEVE_MANY, CANCEL)

BINARY_RESULTS: tuple[type[Any], ...] = (ForwardBackwardOutput, SampleResponse)
"""The results that have a binary form, here again so that asking for them does not load the protobuf library."""

_BINARY_TYPE = "application/x-protobuf"
_AT_ONCE_S = 5.0


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
        binary: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]:
        """Ask once for the result of an operation; the server holds the request while it is not there.

        ``POST /api/v1/retrieve_future``; a single attempt, with the timeout ``poll_timeout`` of the settings.

        Args:
            request: Id of the operation.
            expected: Type of its result; nothing in the answer tells it.
            request_type: Name of the operation for the server's statistics, such as ``OptimStep``.
            iteration: How often this has been asked before.
            binary: Ask for the binary form if the result has one; the server may answer with JSON all the same.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The result, or that it is not there yet, that it is large, or that the operation failed.

        Raises:
            APIError: See :mod:`tinkex.errors`, with ``request_id`` set; 408 if the result is not there yet,
                410 if it is gone, 404 if the id is unknown.
        """
        headers = {"X-Tinker-Request-Type": request_type, "X-Tinker-Request-Iteration": str(iteration)}
        if binary and expected in BINARY_RESULTS:
            headers["Accept"] = f"{_BINARY_TYPE}, application/json"
        if options.get("timeout") is None:
            options["timeout"] = self._client.config.poll_timeout

        def read(answer: Answer) -> Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]:
            if _BINARY_TYPE in answer.response.headers.get("content-type", "").lower():
                return read_with(answer, lambda content: _decode_binary(content, expected))
            return read_with(answer, lambda content: decode_result(content, expected))

        endpoint: Endpoint[Union[TryAgainResponse, ResultMetadata, RequestFailedResponse, T]] = RETRIEVE
        return self._call(endpoint, request, headers=headers, read=read, request_id=request.request_id, **options)

    def retrieve_many(
        self, request: FuturesRetrieveRequest, **options: Unpack[WriteOptions]
    ) -> FuturesRetrieveResponse:
        """Ask which samples of a sampler have ended; the server holds the request while there are none.

        ``POST /api/v1/retrieve_futures``; a single attempt, with the timeout ``poll_timeout`` of the settings, or of
        5 s if the server is to answer at once.

        Args:
            request: The sampler, and what is known already.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            What has ended since; :meth:`retrieve` fetches the results.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the sampler is unknown, or if the server has no such endpoint.
        """
        if options.get("timeout") is None:
            options["timeout"] = _AT_ONCE_S if request.timeout == 0 else self._client.config.poll_timeout
        return self._call(RETRIEVE_MANY, request, **options)

    def cancel(self, request: CancelFutureRequest, **options: Unpack[WriteOptions]) -> None:
        """Tell the server that a result is not wanted any more; it may be worked on all the same.

        ``POST /api/v1/cancel_future``

        Args:
            request: Id of the operation.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the server has no such endpoint.
        """
        return self._call(CANCEL, request, request_id=request.request_id, **options)


def _decode_binary(content: bytes, expected: type[T]) -> T:
    from tinkex.wire.proto import RESULTS

    if expected not in RESULTS:
        raise InvalidInputError(f"{expected.__name__} has no binary form")
    _, decode = RESULTS[expected]
    value: T = decode(content)
    return value


class RawFuturesResource:
    """The methods of :class:`FuturesResource`, returning the answers unread."""

    def __init__(self, resource: FuturesResource) -> None:
        """Wrap the methods."""
        self.retrieve = raw(resource.retrieve)
        self.retrieve_many = raw(resource.retrieve_many)
        self.cancel = raw(resource.cancel)
