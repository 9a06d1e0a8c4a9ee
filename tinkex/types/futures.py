"""Promises: what a submit returns, and what a poll answers while the result is not there."""

from __future__ import annotations

import enum
from typing import Any, Literal, Union

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import FailureCategory
from tinkex.types._base import ALWAYS, Value, copied_list, kind, number, optional, since, text, whole

__all__ = [
    "CancelFutureRequest",
    "FutureCompletion",
    "FutureFailed",
    "FutureFinished",
    "FutureRetrieveRequest",
    "FuturesRetrieveRequest",
    "FuturesRetrieveResponse",
    "QueueState",
    "RequestFailedResponse",
    "ResultMetadata",
    "SamplingSessionFuturesTarget",
    "TryAgainResponse",
    "UntypedAPIFuture",
]


class QueueState(str, enum.Enum):
    """The server's word on its queue; each member equals its text."""

    ACTIVE = "active"
    PAUSED_CAPACITY = "paused_capacity"
    PAUSED_RATE_LIMIT = "paused_rate_limit"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, _: object) -> QueueState:
        """Read a word that a later server may have as unknown."""
        return cls.UNKNOWN


@attrs.frozen(kw_only=True, slots=True, repr=False)
class UntypedAPIFuture(Value):
    """The server's promise of a result.

    Attributes:
        request_id: Names the operation.
        model_id: Model that it belongs to, if the server says so.
        sample_sequence_ids: One id for each sequence that a sample will return.
    """

    request_id: str
    model_id: str | None = None
    sample_sequence_ids: list[str] | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FutureRetrieveRequest(Value):
    """Body of ``POST retrieve_future``; it has no ``type`` field."""

    request_id: str = attrs.field(validator=text)
    allow_metadata_only: bool = attrs.field(default=False, metadata=since("0.14"))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TryAgainResponse(Value):
    """The result is not there yet."""

    request_id: str | None = None
    queue_state: str = "active"
    queue_state_reason: str | None = None
    # Not decoration here: a reader tells the answers of retrieve_future apart by it.
    type: Literal["try_again"] = attrs.field(default="try_again", metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ResultMetadata(Value):
    """The result is there and large; ask again without ``allow_metadata_only``."""

    response_payload_size: int
    status: Literal["complete_metadata"] = attrs.field(default="complete_metadata", metadata=ALWAYS)


def _to_category(value: Any) -> FailureCategory:
    known: tuple[FailureCategory, ...] = ("user", "server")
    return next((category for category in known if category == value), "unknown")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class RequestFailedResponse(Value):
    """The operation failed; a ``category`` other than ``user`` and ``server`` reads as ``unknown``."""

    error: str
    category: FailureCategory = attrs.field(default="unknown", converter=_to_category)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CancelFutureRequest(Value):
    """Body of ``POST cancel_future``."""

    request_id: str = attrs.field(validator=text)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SamplingSessionFuturesTarget(Value):
    """The samples of one client of a sampler; ``cloned_sampler_id`` is 0 for the client that made the sampler."""

    sampling_session_id: str = attrs.field(validator=text)
    cloned_sampler_id: int = attrs.field(default=0, converter=plain_number, validator=whole(0))
    type: Literal["sampling_session"] = kind("sampling_session")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FuturesRetrieveRequest(Value):
    """Body of ``POST retrieve_futures``: which of many operations have ended.

    Attributes:
        target: Whose.
        prev_cursor: ``cursor`` of the answer before; what that one said is not said again. 0 begins.
        timeout: 0 for an answer at once; None lets the server wait until there is something to say.
        retrieved_request_ids: Operations whose results were fetched, so that the server need not keep them.
    """

    target: SamplingSessionFuturesTarget
    prev_cursor: int = 0
    timeout: float | None = attrs.field(default=None, converter=plain_number, validator=optional(number(minimum=0)))
    retrieved_request_ids: list[str] = attrs.field(factory=list, converter=copied_list, metadata=since("0.36"))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FutureFinished(Value):
    """An operation has a result, of this many bytes if the server says so."""

    request_id: str
    response_payload_uncompressed_size: int | None = None
    state: Literal["finished"] = kind("finished")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FutureFailed(Value):
    """An operation failed; ``retrieve_future`` tells why."""

    request_id: str
    state: Literal["failed"] = kind("failed")


FutureCompletion = Union[FutureFinished, FutureFailed]
"""The end of an operation."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FuturesRetrieveResponse(Value):
    """Operations that have ended since the cursor that was sent, and the cursor to send next."""

    completions: list[FutureCompletion]
    cursor: int
