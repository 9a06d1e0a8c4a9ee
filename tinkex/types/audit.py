"""What an organization's audit log says."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import attrs

from tinkex.types._base import Value, copied_dict

__all__ = ["AuditEventType", "AuditLogEntry", "AuditLogResponse"]

AuditEventType = Literal["all", "checkpoints", "projects", "teams", "organizations"]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AuditLogEntry(Value):
    """One event.

    Attributes:
        timestamp: When it happened.
        event: What happened, such as ``checkpoint_read``.
        event_details: Who did it, to what, and whatever else belongs to this kind of event.
        model_id: Only of events of checkpoints; also in ``event_details``.
        tinker_path: Only of events of checkpoints; also in ``event_details``.
        purpose: Only of reads of checkpoints; also in ``event_details``.
    """

    timestamp: datetime
    event: str
    event_details: dict[str, Any] = copied_dict(factory=dict)
    model_id: str | None = None
    tinker_path: str | None = None
    purpose: str | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AuditLogResponse(Value):
    """The events of a day, in order."""

    entries: list[AuditLogEntry]
