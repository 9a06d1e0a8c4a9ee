"""The server itself, and sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import ALWAYS, Value, since, tag, text, whole

__all__ = [
    "CreateSamplingSessionRequest",
    "CreateSamplingSessionResponse",
    "CreateSessionRequest",
    "CreateSessionResponse",
    "GetSamplerResponse",
    "GetServerCapabilitiesResponse",
    "GetSessionResponse",
    "HealthResponse",
    "ListSessionsResponse",
    "SessionHeartbeatRequest",
    "SessionHeartbeatResponse",
    "SupportedModel",
]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SupportedModel(Value):
    """A base model that the server offers; ``max_context_length`` in tokens."""

    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GetServerCapabilitiesResponse(Value):
    """What the server offers."""

    supported_models: list[SupportedModel]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class HealthResponse(Value):
    """The server is ready."""

    status: Literal["ok"]


def _to_tags(value: Iterable[str]) -> list[str]:
    if isinstance(value, str):
        raise InvalidInputError(f"tags must be a list of texts, got the text {value!r:.60}", field="tags")
    return list(value)


def _to_metadata(value: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(value or {})


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateSessionRequest(Value):
    """Body of ``POST create_session``; no ``user_metadata`` (None) travels as an empty object."""

    tags: list[str] = attrs.field(converter=_to_tags)
    user_metadata: dict[str, Any] = attrs.field(factory=dict, converter=_to_metadata, metadata=ALWAYS)
    sdk_version: str = attrs.field(validator=text)
    project_id: str | None = attrs.field(default=None, metadata=since("0.15"))
    display_name: str | None = attrs.field(default=None, metadata=since("0.34"))
    type: Literal["create_session"] = tag("create_session")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateSessionResponse(Value):
    """A session, and what the server has to say to the user."""

    session_id: str
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None
    type: Literal["create_session"] | None = tag("create_session")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionHeartbeatRequest(Value):
    """Body of ``POST session_heartbeat``."""

    session_id: str = attrs.field(validator=text)
    type: Literal["session_heartbeat"] = tag("session_heartbeat")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SessionHeartbeatResponse(Value):
    """The session is alive."""

    type: Literal["session_heartbeat"] | None = tag("session_heartbeat")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateSamplingSessionRequest(Value):
    """Body of ``POST create_sampling_session``: one of ``base_model`` and ``model_path`` at least."""

    session_id: str = attrs.field(validator=text)
    sampling_session_seq_id: int = attrs.field(converter=plain_number, validator=whole(0))
    base_model: str | None = None
    model_path: str | None = None
    type: Literal["create_sampling_session"] = tag("create_sampling_session")

    def __attrs_post_init__(self) -> None:
        """Refuse a sampler of nothing."""
        if not self.base_model and not self.model_path:
            raise InvalidInputError(
                "a sampler needs base_model (such as 'tinkex/tiny') or model_path (a tinker:// path)",
                field="model_path",
            )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CreateSamplingSessionResponse(Value):
    """A sampler."""

    sampling_session_id: str
    type: Literal["create_sampling_session"] | None = tag("create_sampling_session")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GetSessionResponse(Value):
    """The models and samplers of a session, by id."""

    training_run_ids: list[str]
    sampler_ids: list[str]
    user_metadata: dict[str, Any] | None = None
    display_name: str | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ListSessionsResponse(Value):
    """Ids of sessions."""

    sessions: list[str]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class GetSamplerResponse(Value):
    """What a sampler samples from."""

    sampler_id: str
    base_model: str
    model_path: str | None = None
