"""Sampling."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw
from tinkex.types import (
    JoinSamplingSessionRequest,
    JoinSamplingSessionResponse,
    SampleRequest,
    UntypedAPIFuture,
)

__all__ = ["ENDPOINTS", "RawSamplingResource", "SamplingResource"]

ASAMPLE = Endpoint(
    name="sampling.asample",
    method="POST",
    path="/asample",
    request=SampleRequest,
    response=UntypedAPIFuture,
    # 429 means "too many at once"; a retry here would hide it from the dispatcher, which then sends fewer.
    final=frozenset({429}),
    headers={"X-Tinker-Sampling-Backpressure": "1"},
)

JOIN_SAMPLING_SESSION = Endpoint(
    name="sampling.join_sampling_session",
    method="POST",
    path="/join_sampling_session",
    request=JoinSamplingSessionRequest,
    response=JoinSamplingSessionResponse,
)

ENDPOINTS = (ASAMPLE, JOIN_SAMPLING_SESSION)


class SamplingResource(Resource):
    """Drawing samples."""

    @cached_property
    def with_raw_response(self) -> RawSamplingResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawSamplingResource(self)

    def asample(self, request: SampleRequest, **options: Unpack[WriteOptions]) -> UntypedAPIFuture:
        """Ask for samples, or for the log-probabilities of a prompt.

        ``POST /api/v1/asample``

        Args:
            request: The sampler (and a number unique in it), the prompt and how to sample.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The promise of a :class:`~tinkex.types.SampleResponse`.

        Raises:
            RateLimitError: The server has enough to do; this is not tried again here.
            APIError: See :mod:`tinkex.errors`; 404 if the sampler is unknown.
        """
        return self._call(ASAMPLE, request, **options)

    def join_sampling_session(
        self, request: JoinSamplingSessionRequest, **options: Unpack[WriteOptions]
    ) -> JoinSamplingSessionResponse:
        """Become another client of a sampler, with numbers of its own for its requests.

        ``POST /api/v1/join_sampling_session``

        Args:
            request: The sampler.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The number of this client; its requests are numbered from that number times a thousand million.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the sampler is unknown, or if the server has no such endpoint.
        """
        return self._call(JOIN_SAMPLING_SESSION, request, **options)


class RawSamplingResource:
    """The methods of :class:`SamplingResource`, returning the answers unread."""

    def __init__(self, resource: SamplingResource) -> None:
        """Wrap the methods."""
        self.asample = raw(resource.asample)
        self.join_sampling_session = raw(resource.join_sampling_session)
