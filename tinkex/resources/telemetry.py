"""Telemetry."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, Resource, WriteOptions, raw
from tinkex.types import TelemetryResponse, TelemetrySendRequest

__all__ = ["ENDPOINTS", "RawTelemetryResource", "TelemetryResource"]

SEND = Endpoint(
    name="telemetry.send",
    method="POST",
    path="/telemetry",
    request=TelemetrySendRequest,
    response=TelemetryResponse,
    timeout=5.0,
    # Events are never worth a wait; the reporter keeps or drops them.
    retried=False,
)

ENDPOINTS = (SEND,)


class TelemetryResource(Resource):
    """Telling the server what the client met with."""

    @cached_property
    def with_raw_response(self) -> RawTelemetryResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawTelemetryResource(self)

    def send(self, request: TelemetrySendRequest, **options: Unpack[WriteOptions]) -> TelemetryResponse:
        """Send a batch of events; a single attempt of at most 5 s.

        ``POST /api/v1/telemetry``

        Args:
            request: Up to 100 events, and who sends them.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            ``status``, which is ``"accepted"``.

        Raises:
            APIError: See :mod:`tinkex.errors`.
        """
        return self._call(SEND, request, **options)


class RawTelemetryResource:
    """The methods of :class:`TelemetryResource`, returning the answers unread."""

    def __init__(self, resource: TelemetryResource) -> None:
        """Wrap the methods."""
        self.send = raw(resource.send)
