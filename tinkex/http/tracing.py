"""Trace headers: they tie a request to the trace of the program that makes it, through OpenTelemetry."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tinkex.errors import ConfigurationError

__all__ = ["trace_headers"]

_log = logging.getLogger(__name__)


def trace_headers() -> Callable[[], dict[str, str]]:
    """Find what makes the headers of the present context: ``traceparent`` and ``tracestate`` of W3C Trace Context.

    Which headers there are, ``baggage`` too for instance, is up to the propagators that the program has set up. Without
    a span there are none. A propagator that fails is logged: a request is more important than its trace.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.propagate import inject
    except ImportError as error:
        raise ConfigurationError(
            "propagate_trace needs the package opentelemetry-api, which is not installed: "
            'pip install opentelemetry-api (or pip install "tinkex[otel]")'
        ) from error

    def read() -> dict[str, str]:
        headers: dict[str, str] = {}
        try:
            inject(headers)
        except Exception:
            _log.exception("a propagator of OpenTelemetry failed")
        return headers

    return read
