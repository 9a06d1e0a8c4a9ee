"""The server itself, its settings for clients, and sessions."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, ReadOptions, Resource, WriteOptions, raw
from tinkex.types import (
    CreateSamplingSessionRequest,
    CreateSamplingSessionResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    HealthResponse,
    ListSessionsResponse,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
)

__all__ = ["ENDPOINTS", "RawServiceResource", "ServiceResource"]

GET_SERVER_CAPABILITIES = Endpoint(
    name="service.get_server_capabilities",
    method="GET",
    path="/get_server_capabilities",
    response=GetServerCapabilitiesResponse,
)
HEALTH_CHECK = Endpoint(name="service.health_check", method="GET", path="/healthz", response=HealthResponse)
CREATE_SESSION = Endpoint(
    name="service.create_session",
    method="POST",
    path="/create_session",
    request=CreateSessionRequest,
    response=CreateSessionResponse,
)
SESSION_HEARTBEAT = Endpoint(
    name="service.session_heartbeat",
    method="POST",
    path="/session_heartbeat",
    request=SessionHeartbeatRequest,
    response=SessionHeartbeatResponse,
    timeout=10.0,
    # The next beat is the retry.
    retried=False,
)
CREATE_SAMPLING_SESSION = Endpoint(
    name="service.create_sampling_session",
    method="POST",
    path="/create_sampling_session",
    request=CreateSamplingSessionRequest,
    response=CreateSamplingSessionResponse,
)
GET_SESSION = Endpoint(
    name="service.get_session", method="GET", path="/sessions/{session_id}", response=GetSessionResponse
)
LIST_SESSIONS = Endpoint(name="service.list_sessions", method="GET", path="/sessions", response=ListSessionsResponse)
GET_SAMPLER = Endpoint(
    name="service.get_sampler", method="GET", path="/samplers/{sampler_id}", response=GetSamplerResponse
)
CLIENT_CONFIG = Endpoint(
    name="service.client_config", method="POST", path="/client/config", request=dict, response=dict[str, Any]
)
FINISH_SESSION: Endpoint[None] = Endpoint(
    name="service.finish_session",
    method="POST",
    path="/sessions/{session_id}/finish",
    request=dict,
    response=None,
    timeout=10.0,
)

ENDPOINTS = (
    GET_SERVER_CAPABILITIES,
    HEALTH_CHECK,
    CREATE_SESSION,
    SESSION_HEARTBEAT,
    CREATE_SAMPLING_SESSION,
    GET_SESSION,
    LIST_SESSIONS,
    GET_SAMPLER,
    CLIENT_CONFIG,
    FINISH_SESSION,
)


class ServiceResource(Resource):
    """What the server offers, and sessions."""

    @cached_property
    def with_raw_response(self) -> RawServiceResource:
        """The same methods, returning :class:`~tinkex.resources.APIResponse`."""
        return RawServiceResource(self)

    def get_server_capabilities(self, **options: Unpack[ReadOptions]) -> GetServerCapabilitiesResponse:
        """List the models that the server supports.

        ``GET /api/v1/get_server_capabilities``

        Args:
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The base models, with their context lengths in tokens.

        Raises:
            APIError: See :mod:`tinkex.errors`; 402 if the account cannot pay.
        """
        return self._call(GET_SERVER_CAPABILITIES, **options)

    def health_check(self, **options: Unpack[ReadOptions]) -> HealthResponse:
        """Ask if the server is ready.

        ``GET /api/v1/healthz``

        Args:
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            ``status``, which is ``"ok"``.

        Raises:
            APIError: See :mod:`tinkex.errors`; it is not ready.
        """
        return self._call(HEALTH_CHECK, **options)

    def create_session(self, request: CreateSessionRequest, **options: Unpack[WriteOptions]) -> CreateSessionResponse:
        """Begin a session, which models and samplers belong to.

        ``POST /api/v1/create_session``

        Args:
            request: Tags, metadata, version of this package.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The session's id, and what the server has to say to the user.

        Raises:
            APIError: See :mod:`tinkex.errors`.
        """
        return self._call(CREATE_SESSION, request, **options)

    def session_heartbeat(
        self, request: SessionHeartbeatRequest, **options: Unpack[WriteOptions]
    ) -> SessionHeartbeatResponse:
        """Keep a session alive; a single attempt of at most 10 s, because the next beat comes anyway.

        ``POST /api/v1/session_heartbeat``

        Args:
            request: The session's id.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            Nothing of interest.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the session is unknown, 410 if it is over.
        """
        return self._call(SESSION_HEARTBEAT, request, **options)

    def create_sampling_session(
        self, request: CreateSamplingSessionRequest, **options: Unpack[WriteOptions]
    ) -> CreateSamplingSessionResponse:
        """Make a sampler of a base model or of a saved checkpoint.

        ``POST /api/v1/create_sampling_session``

        Args:
            request: The session, a number unique in it, and what to sample from.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The sampler's id.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the session or the checkpoint is unknown.
        """
        return self._call(CREATE_SAMPLING_SESSION, request, **options)

    def get_session(
        self, session_id: str, *, access_scope: str | None = None, **options: Unpack[ReadOptions]
    ) -> GetSessionResponse:
        """List what belongs to a session.

        ``GET /api/v1/sessions/{session_id}``

        Args:
            session_id: Id of the session.
            access_scope: ``owned`` or ``accessible``; the server's default is ``owned``.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Ids of its models and samplers.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown.
        """
        query = {"access_scope": access_scope}
        return self._call(GET_SESSION, ids={"session_id": session_id}, query=query, **options)

    def list_sessions(
        self,
        *,
        limit: int = 20,
        offset: int = 0,
        access_scope: str | None = None,
        **options: Unpack[ReadOptions],
    ) -> ListSessionsResponse:
        """List sessions.

        ``GET /api/v1/sessions``

        Args:
            limit: How many at most.
            offset: How many to skip.
            access_scope: ``owned`` or ``accessible``; the server's default is ``owned``.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Ids of sessions.

        Raises:
            APIError: See :mod:`tinkex.errors`.
        """
        query = {"limit": limit, "offset": offset, "access_scope": access_scope}
        return self._call(LIST_SESSIONS, query=query, **options)

    def get_sampler(self, sampler_id: str, **options: Unpack[ReadOptions]) -> GetSamplerResponse:
        """Ask what a sampler samples from.

        ``GET /api/v1/samplers/{sampler_id}``

        Args:
            sampler_id: Id of the sampler.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Its base model, and the path of its checkpoint if it has one.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown.
        """
        return self._call(GET_SAMPLER, ids={"sampler_id": sampler_id}, **options)

    def client_config(self, sdk_version: str, **options: Unpack[WriteOptions]) -> dict[str, Any]:
        """Ask for the server's settings for clients.

        ``POST /api/v1/client/config``

        Args:
            sdk_version: Version to ask for.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            Settings by name; any may be missing.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 from a server that has no settings.
        """
        return self._call(CLIENT_CONFIG, {"sdk_version": sdk_version}, **options)

    def finish_session(
        self,
        session_id: str,
        reason: Literal["success", "errored", "interrupted"] = "success",
        detail: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> None:
        """End a session; the first reason given counts, and heartbeats get 410 from then on.

        ``POST /api/v1/sessions/{session_id}/finish``

        Args:
            session_id: Id of the session.
            reason: How it ended.
            detail: More about that.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if it is unknown.
        """
        body = {"reason": {"type": reason}, "detail": detail}
        return self._call(FINISH_SESSION, body, ids={"session_id": session_id}, **options)


class RawServiceResource:
    """The methods of :class:`ServiceResource`, returning the answers unread."""

    def __init__(self, resource: ServiceResource) -> None:
        """Wrap the methods."""
        self.get_server_capabilities = raw(resource.get_server_capabilities)
        self.health_check = raw(resource.health_check)
        self.create_session = raw(resource.create_session)
        self.session_heartbeat = raw(resource.session_heartbeat)
        self.create_sampling_session = raw(resource.create_sampling_session)
        self.get_session = raw(resource.get_session)
        self.list_sessions = raw(resource.list_sessions)
        self.get_sampler = raw(resource.get_sampler)
        self.client_config = raw(resource.client_config)
        self.finish_session = raw(resource.finish_session)
