"""The telemetry of one session: numbered, timed events for the server. Turned off by ``TINKER_TELEMETRY=0``."""

from __future__ import annotations

import itertools
import platform
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from tinkex._version import __version__
from tinkex.clients.reports import Report, is_user_error, plain
from tinkex.errors import InvalidInputError
from tinkex.pipeline import APIFuture, Reporter
from tinkex.pipeline.futures import finished
from tinkex.types import (
    GenericEvent,
    SessionEndEvent,
    SessionStartEvent,
    TelemetryEvent,
    TelemetrySendRequest,
    UnhandledExceptionEvent,
)
from tinkex.types.telemetry import Severity

__all__ = ["Telemetry"]

_PROCESS = str(uuid.uuid4())
_SEND_S = 2.0


class Telemetry:
    """Tells the server what you log here, and that the session began and ended.

    ``ServiceClient.get_telemetry`` returns it. Events are sent in the background; a server that does not take them
    costs the program nothing. What may be a credential is left out. Public methods are thread-safe.
    """

    def __init__(
        self,
        send: Callable[..., object],
        session_id: str,
        hide: Callable[[str], str] = lambda text: text,
        *,
        names_process: bool = True,
    ) -> None:
        """Make it for a session.

        Args:
            send: Takes a TelemetrySendRequest and ``timeout``.
            session_id: The session.
            hide: Puts stars in the place of credentials in a text.
            names_process: Tell the server which process the events come from.
        """
        self._hide = hide
        self._numbers = itertools.count()
        self._began = datetime.now(timezone.utc)

        def send_events(events: list[TelemetryEvent]) -> None:
            request = TelemetrySendRequest(
                events=events,
                platform=platform.system(),
                sdk_version=__version__,
                session_id=session_id,
                process_uuid=_PROCESS if names_process else None,
            )
            send(request, timeout=_SEND_S)

        self._reporter = Reporter(send_events)

    def log(self, event_name: str, event_data: Mapping[str, object] | None = None, severity: Severity = "INFO") -> bool:
        """Log an event of your own.

        Args:
            event_name: What happened; one of few names, with the particulars in ``event_data``.
            event_data: Particulars. What JSON has no form for is sent as its ``repr``; entries whose name promises a
                credential are left out.
            severity: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL``.

        Returns:
            True if it will be sent; False if the session is over, or belongs to another process.

        Raises:
            InvalidInputError: The name is empty, the particulars are no mapping, or there is no such severity.
        """
        _check("event_name", event_name or None, str, "a non-empty text")
        data = {} if event_data is None else event_data
        _check("event_data", data, Mapping, "a mapping")
        event = GenericEvent(
            **self._header(), event_name=event_name, event_data=plain(data, self._hide), severity=severity
        )
        return self._reporter.report(event)

    def log_exception(self, exception: BaseException, severity: Severity = "ERROR") -> APIFuture[bool]:
        """Log an exception: its class, its message, and the functions that it went through.

        A mistake of the program, such as a refused argument, becomes the event ``user_error`` with severity WARNING.
        Variables and lines of source are not sent.

        Args:
            exception: What was raised.
            severity: As for :meth:`log`.

        Returns:
            A future that is done: True if it will be sent. Nobody has to wait for it; it can be awaited, because in the
            official SDK this is a coroutine.

        Raises:
            InvalidInputError: There is no such severity.
        """
        return finished("log_exception", self.log_exception_sync(exception, severity))

    def log_exception_sync(self, exception: BaseException, severity: Severity = "ERROR") -> bool:
        """Do the same as :meth:`log_exception`, and return True or False."""
        told = Report.of(exception, self._hide)
        if is_user_error(exception):
            return self.log("user_error", {"error_type": told.kind, "error_message": told.message}, "WARNING")
        return self._reporter.report(
            UnhandledExceptionEvent(
                **self._header(),
                error_type=told.kind,
                error_message=told.message,
                traceback=told.trace,
                severity=severity,
            )
        )

    def log_fatal_exception(self, exception: BaseException, severity: Severity = "ERROR") -> APIFuture[bool]:
        """Log an exception that ends the program, and see to it that it is sent; see :meth:`log_exception`."""
        return finished("log_fatal_exception", self.log_fatal_exception_sync(exception, severity))

    def log_fatal_exception_sync(self, exception: BaseException, severity: Severity = "ERROR") -> bool:
        """Do the same as :meth:`log_fatal_exception`, and return True if it was sent."""
        return self.log_exception_sync(exception, severity) and self.flush()

    def flush(self, timeout: float = _SEND_S) -> bool:
        """Send what was logged now, and wait for that.

        Args:
            timeout: Seconds to wait.

        Returns:
            True if nothing is left to be sent.
        """
        return self._reporter.drain(timeout)

    def start(self) -> None:
        """Begin; the session does that."""
        self._reporter.report(SessionStartEvent(**self._header()))
        self._reporter.start()

    def stop(self) -> None:
        """End: send what there is once, within two seconds. The session does that."""
        duration = datetime.now(timezone.utc) - self._began
        self._reporter.report(SessionEndEvent(**self._header(), duration=str(duration)))
        self._reporter.stop(_SEND_S)

    def _header(self) -> dict[str, Any]:
        return {
            "event_id": str(uuid.uuid4()),
            "event_session_index": next(self._numbers),
            "timestamp": datetime.now(timezone.utc),
        }


def _check(field: str, value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise InvalidInputError(f"{field} must be {what}, got {value!r:.60}", field=field)
