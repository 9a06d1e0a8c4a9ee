"""AdminClient: what needs an administrator's role in the organization."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import get_args

from tinkex.clients.lookup import LookupClient
from tinkex.clients.twins import async_twins
from tinkex.errors import InvalidInputError
from tinkex.pipeline import APIFuture
from tinkex.types import (
    AuditEventType,
    AuditLogResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
)

__all__ = ["AdminClient"]

_LONGEST = timedelta(days=14)


@async_twins(values=("get_audit_log", "get_billing_usage", "get_current_checkpoint_storage_usage"))
class AdminClient(LookupClient):
    """Bills and the audit log of an organization, for its administrators.

    Make one directly, ``AdminClient()``; it reads the same settings as ``ServiceClient`` and opens no session. Every
    call returns an :class:`~tinkex.APIFuture` at once.
    """

    def get_audit_log(self, event_type: AuditEventType = "all", day: date | None = None) -> APIFuture[AuditLogResponse]:
        """Return what happened on one day.

        Args:
            event_type: ``all``, ``checkpoints``, ``projects``, ``teams`` or ``organizations``.
            day: Which day, from midnight to midnight UTC; today unless given.

        Raises:
            InvalidInputError: There is no such kind of event.
        """
        if event_type not in get_args(AuditEventType):
            raise InvalidInputError(
                f"event_type must be one of {', '.join(get_args(AuditEventType))}, got {event_type!r:.60}",
                field="event_type",
            )
        service = self._session.api.service
        return self._call("get_audit_log", lambda: service.get_audit_log(event_type, day))

    def get_billing_usage(
        self, starting_on: datetime | str, ending_before: datetime | str
    ) -> APIFuture[BillingUsageResponse]:
        """Return what was used by the hour, and what it is estimated to cost.

        Args:
            starting_on: The first hour, a datetime (UTC if it has no zone) or an RFC 3339 text.
            ending_before: The end, exclusive, at most 14 days later.

        Raises:
            InvalidInputError: A time is no whole hour, or the period is empty or too long.
        """
        start, end = _hour("starting_on", starting_on), _hour("ending_before", ending_before)
        if not timedelta(0) < end - start <= _LONGEST:
            raise InvalidInputError(
                f"ending_before must be later than starting_on by 14 days at most, got {start} and {end}",
                field="ending_before",
            )
        service = self._session.api.service
        return self._call("get_billing_usage", lambda: service.get_billing_usage(start, end))

    def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None
    ) -> APIFuture[CurrentCheckpointStorageUsageResponse]:
        """Return how much room checkpoints take now, by project and user; ``project_id`` selects one."""
        service = self._session.api.service
        return self._call(
            "get_current_checkpoint_storage_usage", lambda: service.get_current_checkpoint_storage_usage(project_id)
        )


def _hour(field: str, given: datetime | str) -> datetime:
    try:
        # Python 3.10 does not read the Z.
        when = datetime.fromisoformat(given.replace("Z", "+00:00")) if isinstance(given, str) else given
        when = when.astimezone(timezone.utc) if when.tzinfo else when.replace(tzinfo=timezone.utc)
    except (AttributeError, TypeError, ValueError):
        raise InvalidInputError(
            f"{field} must be a datetime or a text such as '2026-07-13T00:00:00Z', got {given!r:.60}", field=field
        ) from None
    if (when.minute, when.second, when.microsecond) != (0, 0, 0):
        raise InvalidInputError(f"{field} must be a whole hour in UTC, got {when}", field=field)
    return when
