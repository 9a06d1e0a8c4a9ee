"""Sessions beyond their creation: how they end, searching them, their traces, and joining a sampler of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, Union

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import Value, copied_dict, copied_list, kind, optional, tag, text, texts, whole
from tinkex.types.unions import Unrecognized

__all__ = [
    "AccessibleSearchOwner",
    "ActiveSessionStatusQuery",
    "CancelledSessionStatusQuery",
    "ClientFinishedSessionStatusQuery",
    "ClientSessionFinishErrored",
    "ClientSessionFinishInterrupted",
    "ClientSessionFinishReason",
    "ClientSessionFinishReasonType",
    "ClientSessionFinishSuccess",
    "ClientSessionFinished",
    "FailedSessionStatusQuery",
    "JoinSamplingSessionRequest",
    "JoinSamplingSessionResponse",
    "OwnSearchOwner",
    "SearchOwner",
    "SessionActive",
    "SessionCancelled",
    "SessionFailed",
    "SessionFailedReason",
    "SessionFailedRequestReason",
    "SessionFailedSamplingSessionReason",
    "SessionFailedTrainingRunReason",
    "SessionSearchCursor",
    "SessionSearchRequest",
    "SessionSearchResponse",
    "SessionStatus",
    "SessionStatusQuery",
    "SessionSummary",
    "TraceExportResponse",
    "UserSearchOwner",
]

ClientSessionFinishReasonType = Literal["success", "errored", "interrupted"]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionFailedRequestReason(Value):
    """One request failed the session."""

    request_id: str
    request_type: str
    type: Literal["request"] = kind("request")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionFailedTrainingRunReason(Value):
    """One training run failed the session."""

    training_run_id: str
    type: Literal["training_run"] = kind("training_run")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionFailedSamplingSessionReason(Value):
    """One sampler failed the session."""

    sampling_session_id: str
    type: Literal["sampling_session"] = kind("sampling_session")


SessionFailedReason = Union[
    SessionFailedRequestReason, SessionFailedTrainingRunReason, SessionFailedSamplingSessionReason, Unrecognized
]
"""What a session failed by."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionFailed(Value):
    """The session failed; ``category`` is whose fault it was, ``user`` or ``internal``."""

    category: str
    reason: SessionFailedReason
    message: str
    type: Literal["failed"] = kind("failed")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionCancelled(Value):
    """Somebody cancelled the session, with these words."""

    detail: str | None = None
    type: Literal["cancelled"] = kind("cancelled")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientSessionFinishSuccess(Value):
    """The program came to its end."""

    type: Literal["success"] = kind("success")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientSessionFinishErrored(Value):
    """The program failed."""

    type: Literal["errored"] = kind("errored")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientSessionFinishInterrupted(Value):
    """The program was interrupted."""

    type: Literal["interrupted"] = kind("interrupted")


ClientSessionFinishReason = Union[
    ClientSessionFinishSuccess, ClientSessionFinishErrored, ClientSessionFinishInterrupted, Unrecognized
]
"""How a client said that its session ended."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientSessionFinished(Value):
    """The client said that it was done."""

    reason: ClientSessionFinishReason
    detail: str | None = None
    type: Literal["client_finished"] = kind("client_finished")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionActive(Value):
    """The session goes on."""

    type: Literal["active"] = kind("active")


SessionStatus = Union[SessionFailed, SessionCancelled, ClientSessionFinished, SessionActive, Unrecognized]
"""What became of a session."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class OwnSearchOwner(Value):
    """Look for sessions of your own."""

    type: Literal["own"] = kind("own")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AccessibleSearchOwner(Value):
    """Look for sessions of everybody."""

    type: Literal["accessible"] = kind("accessible")


def _non_empty(instance: Any, attribute: attrs.Attribute[Any], value: Sequence[Any]) -> None:
    if not value:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise InvalidInputError(f"{name} is empty: name at least one, or leave it out", field=attribute.name)


def _one_to_ten(_: Any, attribute: attrs.Attribute[Any], value: Sequence[str]) -> None:
    if not 1 <= len(value) <= 10:
        raise InvalidInputError(f"owner_urns must name 1 to 10 users, got {len(value)}", field=attribute.name)


def _optional_list(value: Iterable[Any] | None) -> list[Any] | None:
    return None if value is None else copied_list(value)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class UserSearchOwner(Value):
    """Look for sessions of certain users, 1 to 10, by their URNs."""

    owner_urns: list[str] = attrs.field(converter=copied_list, validator=_one_to_ten)
    type: Literal["user"] = kind("user")


SearchOwner = Union[OwnSearchOwner, AccessibleSearchOwner, UserSearchOwner]
"""Whose sessions to look for."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ActiveSessionStatusQuery(Value):
    """Sessions that go on."""

    type: Literal["active"] = kind("active")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CancelledSessionStatusQuery(Value):
    """Sessions that somebody cancelled."""

    type: Literal["cancelled"] = kind("cancelled")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class FailedSessionStatusQuery(Value):
    """Sessions that failed."""

    type: Literal["failed"] = kind("failed")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientFinishedSessionStatusQuery(Value):
    """Sessions whose client said that it was done, for one of these reasons; None for any."""

    reasons: list[ClientSessionFinishReasonType] | None = attrs.field(
        default=None, converter=_optional_list, validator=optional(_non_empty)
    )
    type: Literal["client_finished"] = kind("client_finished")


SessionStatusQuery = Union[
    ActiveSessionStatusQuery,
    CancelledSessionStatusQuery,
    FailedSessionStatusQuery,
    ClientFinishedSessionStatusQuery,
]
"""One status to look for."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionSearchCursor(Value):
    """Where the next page begins; hand it back as it came."""

    last_created_at: datetime
    last_session_id: str


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionSearchRequest(Value):
    """Body of ``POST sessions/search``: which sessions to find. All conditions must hold, except as said below.

    Attributes:
        session_id: Exactly this one; together with ``display_name`` either may fit.
        project_ids: In one of these projects; None for any.
        user_metadata: All these pairs.
        display_name: The name has each of these words, in upper or lower case.
        owner: Whose.
        statuses: One of these; None for any.
        limit: Sessions on a page, 1 to 200.
        cursor: ``next_cursor`` of the page before; None for the first page.
    """

    session_id: str | None = None
    project_ids: list[str] | None = attrs.field(default=None, converter=_optional_list)
    user_metadata: dict[str, str] = copied_dict(factory=dict, validator=texts)
    display_name: str | None = attrs.field(default=None, validator=optional(text))
    owner: SearchOwner = attrs.field(factory=OwnSearchOwner)
    statuses: list[SessionStatusQuery] | None = attrs.field(
        default=None, converter=_optional_list, validator=optional(_non_empty)
    )
    limit: int = attrs.field(default=50, converter=plain_number, validator=whole(1, 200))
    cursor: SessionSearchCursor | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionSummary(Value):
    """A session that was found; ``status`` is None if it has not finished and is not known to go on."""

    session_id: str
    created_at: datetime
    owner: str
    project_id: str
    checkpoints_count: int
    status: SessionStatus | None = None
    display_name: str | None = None
    user_metadata: dict[str, str] | None = None
    checkpoint_storage_bytes: int | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionSearchResponse(Value):
    """A page of sessions, the newest first; ``next_cursor`` is None on the last one."""

    sessions: list[SessionSummary]
    next_cursor: SessionSearchCursor | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TraceExportResponse(Value):
    """How far the export of a trace is; ``url`` is where to fetch it once ``status`` is ``ready``."""

    status: Literal["pending", "ready", "failed"]
    url: str | None = attrs.field(default=None, repr=lambda url: repr(url and url.split("?", 1)[0]))
    error: str | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class JoinSamplingSessionRequest(Value):
    """Body of ``POST join_sampling_session``."""

    sampling_session_id: str = attrs.field(validator=text)
    type: Literal["join_sampling_session"] = tag("join_sampling_session")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class JoinSamplingSessionResponse(Value):
    """A number that no other client of the sampler has; the client that made the sampler has 0."""

    client_counter: int
    type: Literal["join_sampling_session"] | None = tag("join_sampling_session")
