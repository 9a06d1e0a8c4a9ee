"""The server itself, its settings for clients, and sessions."""

from __future__ import annotations

from functools import cached_property

from typing_extensions import Unpack

from tinkex.resources import _account
from tinkex.resources._account import AccountMethods
from tinkex.resources._base import Endpoint, ReadOptions, WriteOptions, raw
from tinkex.types import (
    ClientConfigResponse,
    ClientDynamicConfigResponse,
    ClientSessionFinishReasonType,
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
    SessionSearchRequest,
    SessionSearchResponse,
    TraceExportResponse,
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
    name="service.client_config", method="POST", path="/client/config", request=dict, response=ClientConfigResponse
)
CLIENT_DYNAMIC_CONFIG = Endpoint(
    name="service.client_dynamic_config",
    method="POST",
    path="/client/dynamic_config",
    request=dict,
    response=ClientDynamicConfigResponse,
    timeout=10.0,
)
FINISH_SESSION: Endpoint[None] = Endpoint(
    name="service.finish_session",
    method="POST",
    path="/sessions/{session_id}/finish",
    request=dict,
    response=None,
    timeout=10.0,
)
SEARCH_SESSIONS = Endpoint(
    name="service.search_sessions",
    method="POST",
    path="/sessions/search",
    request=SessionSearchRequest,
    response=SessionSearchResponse,
)
ASSIGN_SESSION_PROJECT: Endpoint[None] = Endpoint(
    name="service.assign_session_project",
    method="PUT",
    path="/sessions/{session_id}/project",
    request=dict,
    response=None,
    hint={403: "you may not use that project"},
)
EXPORT_SESSION_TRACE = Endpoint(
    name="service.export_session_trace",
    method="GET",
    path="/sessions/{session_id}/trace_export",
    response=TraceExportResponse,
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
    CLIENT_DYNAMIC_CONFIG,
    FINISH_SESSION,
    SEARCH_SESSIONS,
    ASSIGN_SESSION_PROJECT,
    EXPORT_SESSION_TRACE,
    *_account.ENDPOINTS,
)


class ServiceResource(AccountMethods):
    """What the server offers, sessions, and the account."""

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

    def client_config(self, sdk_version: str, **options: Unpack[WriteOptions]) -> ClientConfigResponse:
        """Ask for the server's settings for clients.

        ``POST /api/v1/client/config``

        Args:
            sdk_version: Version to ask for.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The settings; those that the server leaves out have their defaults.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 from a server that has no settings.
        """
        return self._call(CLIENT_CONFIG, {"sdk_version": sdk_version}, **options)

    def client_dynamic_config(self, sdk_version: str, **options: Unpack[WriteOptions]) -> ClientDynamicConfigResponse:
        """Ask for those of the server's settings that may change meanwhile.

        ``POST /api/v1/client/dynamic_config``

        Args:
            sdk_version: Version to ask for.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The settings; those that the server leaves out have their defaults.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 from a server that has no such settings.
        """
        return self._call(CLIENT_DYNAMIC_CONFIG, {"sdk_version": sdk_version}, **options)

    def finish_session(
        self,
        session_id: str,
        reason: ClientSessionFinishReasonType = "success",
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

    def search_sessions(self, request: SessionSearchRequest, **options: Unpack[WriteOptions]) -> SessionSearchResponse:
        """Find sessions, the newest first.

        ``POST /api/v1/sessions/search``

        Args:
            request: Which ones.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            A page of sessions, and where the next page begins.

        Raises:
            APIError: See :mod:`tinkex.errors`; 403 if a project is not yours to list.
        """
        return self._call(SEARCH_SESSIONS, request, **options)

    def assign_session_project(self, session_id: str, project_id: str, **options: Unpack[WriteOptions]) -> None:
        """Move a session, with all that belongs to it, into a project.

        ``PUT /api/v1/sessions/{session_id}/project``

        Args:
            session_id: Id of the session.
            project_id: Id of the project.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if either is unknown, 403 if the project is not yours to use.
        """
        body = {"project_id": project_id}
        return self._call(ASSIGN_SESSION_PROJECT, body, ids={"session_id": session_id}, **options)

    def export_session_trace(self, session_id: str, **options: Unpack[ReadOptions]) -> TraceExportResponse:
        """Ask for what a session did over time, as a trace for https://ui.perfetto.dev; the server begins to build it.

        ``GET /api/v1/sessions/{session_id}/trace_export``

        Args:
            session_id: Id of the session.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Where to fetch it, or that it is not ready yet: then ask again some seconds later.

        Raises:
            APIError: See :mod:`tinkex.errors`; 404 if the session is unknown.
        """
        return self._call(EXPORT_SESSION_TRACE, ids={"session_id": session_id}, **options)


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
        self.client_dynamic_config = raw(resource.client_dynamic_config)
        self.finish_session = raw(resource.finish_session)
        self.search_sessions = raw(resource.search_sessions)
        self.assign_session_project = raw(resource.assign_session_project)
        self.export_session_trace = raw(resource.export_session_trace)
        self.auth_token = raw(resource.auth_token)
        self.get_api_key = raw(resource.get_api_key)
        self.delete_api_key = raw(resource.delete_api_key)
        self.get_audit_log = raw(resource.get_audit_log)
        self.get_billing_usage = raw(resource.get_billing_usage)
        self.get_current_checkpoint_storage_usage = raw(resource.get_current_checkpoint_storage_usage)
