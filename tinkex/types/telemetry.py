"""Events that a client tells the server about itself. None of them can carry a credential."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Union

import attrs

from tinkex.types._base import ALWAYS, Value, copied_dict, copied_list, one_of, since

__all__ = [
    "GenericEvent",
    "SessionEndEvent",
    "SessionStartEvent",
    "Severity",
    "TelemetryEvent",
    "TelemetryResponse",
    "TelemetrySendRequest",
    "UnhandledExceptionEvent",
]

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_SEVERITY = one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionStartEvent(Value):
    """A session began."""

    event_id: str
    event_session_index: int
    timestamp: datetime
    severity: Severity = attrs.field(default="INFO", validator=_SEVERITY, metadata=ALWAYS)
    event: Literal["SESSION_START"] = attrs.field(default="SESSION_START", metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionEndEvent(Value):
    """A session ended; ``duration`` as text, hours:minutes:seconds."""

    event_id: str
    event_session_index: int
    timestamp: datetime
    duration: str
    severity: Severity = attrs.field(default="INFO", validator=_SEVERITY, metadata=ALWAYS)
    event: Literal["SESSION_END"] = attrs.field(default="SESSION_END", metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class UnhandledExceptionEvent(Value):
    """A call of the client raised."""

    event_id: str
    event_session_index: int
    timestamp: datetime
    error_type: str
    error_message: str
    traceback: str | None = None
    severity: Severity = attrs.field(default="ERROR", validator=_SEVERITY, metadata=ALWAYS)
    event: Literal["UNHANDLED_EXCEPTION"] = attrs.field(default="UNHANDLED_EXCEPTION", metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GenericEvent(Value):
    """Anything else, by name."""

    event_id: str
    event_session_index: int
    timestamp: datetime
    event_name: str
    event_data: dict[str, Any] = copied_dict(factory=dict)
    severity: Severity = attrs.field(default="INFO", validator=_SEVERITY, metadata=ALWAYS)
    event: Literal["GENERIC_EVENT"] = attrs.field(default="GENERIC_EVENT", metadata=ALWAYS)


TelemetryEvent = Union[SessionStartEvent, SessionEndEvent, UnhandledExceptionEvent, GenericEvent]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TelemetrySendRequest(Value):
    """Body of ``POST telemetry``; it has no ``type`` field. At most 100 events."""

    events: list[TelemetryEvent] = attrs.field(converter=copied_list)
    platform: str
    sdk_version: str
    session_id: str
    process_uuid: str | None = attrs.field(default=None, metadata=since("0.24"))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TelemetryResponse(Value):
    """The events were accepted."""

    status: Literal["accepted"]
