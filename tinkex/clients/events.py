"""The telemetry of one session: numbered, timed events for the server. Turned off by ``TINKER_TELEMETRY=0``."""

from __future__ import annotations

import itertools
import platform
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from tinkex._version import __version__
from tinkex.pipeline import Reporter
from tinkex.types import SessionEndEvent, SessionStartEvent, TelemetrySendRequest

__all__ = ["EventLog"]

_PROCESS = str(uuid.uuid4())
_SEND_S = 2.0


class EventLog:
    """Tells the server that the session began and ended. Public methods are thread-safe and never raise."""

    def __init__(self, send: Callable[..., object], session_id: str) -> None:
        """Send with ``send``, which takes a TelemetrySendRequest and ``timeout``."""
        self._numbers = itertools.count()
        self._began = datetime.now(timezone.utc)

        def send_events(events: list[Any]) -> None:
            request = TelemetrySendRequest(
                events=events,
                platform=platform.system(),
                sdk_version=__version__,
                session_id=session_id,
                process_uuid=_PROCESS,
            )
            send(request, timeout=_SEND_S)

        self._reporter = Reporter(send_events)

    def start(self) -> None:
        """Begin."""
        self._reporter.report(SessionStartEvent(**self._header()))
        self._reporter.start()

    def stop(self) -> None:
        """End: send what there is once, within two seconds."""
        duration = datetime.now(timezone.utc) - self._began
        self._reporter.report(SessionEndEvent(**self._header(), duration=str(duration)))
        self._reporter.stop(_SEND_S)

    def _header(self) -> dict[str, Any]:
        return {
            "event_id": str(uuid.uuid4()),
            "event_session_index": next(self._numbers),
            "timestamp": datetime.now(timezone.utc),
        }
