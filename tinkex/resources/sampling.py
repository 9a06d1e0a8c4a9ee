"""Sampling."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw
from tinkex.types import SampleRequest, UntypedAPIFuture

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

ENDPOINTS = (ASAMPLE,)


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


class RawSamplingResource:
    """The methods of :class:`SamplingResource`, returning the answers unread."""

    def __init__(self, resource: SamplingResource) -> None:
        """Wrap the methods."""
        self.asample = raw(resource.asample)
