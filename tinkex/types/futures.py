"""Promises: what a submit returns, and what a poll answers while the result is not there."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from tinkex.errors import FailureCategory
from tinkex.types._base import ALWAYS, text

__all__ = [
    "FutureRetrieveRequest",
    "QueueState",
    "RequestFailedResponse",
    "ResultMetadata",
    "TryAgainResponse",
    "UntypedAPIFuture",
]

QueueState = Literal["active", "paused_capacity", "paused_rate_limit", "unknown"]


@attrs.frozen(kw_only=True, slots=True)
class UntypedAPIFuture:
    """The server's promise of a result.

    Attributes:
        request_id: Names the operation.
        model_id: Model that it belongs to, if the server says so.
        sample_sequence_ids: One id for each sequence that a sample will return.
    """

    request_id: str
    model_id: str | None = None
    sample_sequence_ids: list[str] | None = None


@attrs.frozen(kw_only=True, slots=True)
class FutureRetrieveRequest:
    """Body of ``POST retrieve_future``; it has no ``type`` field."""

    request_id: str = attrs.field(validator=text)
    allow_metadata_only: bool = False


@attrs.frozen(kw_only=True, slots=True)
class TryAgainResponse:
    """The result is not there yet."""

    request_id: str | None = None
    queue_state: str = "active"
    queue_state_reason: str | None = None
    # Not decoration here: a reader tells the answers of retrieve_future apart by it.
    type: Literal["try_again"] = attrs.field(default="try_again", metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True)
class ResultMetadata:
    """The result is there and large; ask again without ``allow_metadata_only``."""

    response_payload_size: int
    status: Literal["complete_metadata"] = attrs.field(default="complete_metadata", metadata=ALWAYS)


def _to_category(value: Any) -> FailureCategory:
    return value if value in ("user", "server") else "unknown"


@attrs.frozen(kw_only=True, slots=True)
class RequestFailedResponse:
    """The operation failed; a ``category`` other than ``user`` and ``server`` reads as ``unknown``."""

    error: str
    category: FailureCategory = attrs.field(default="unknown", converter=_to_category)
