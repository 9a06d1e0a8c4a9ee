"""The part of the service resource that is about the account: its key, its bills, its audit log."""

from __future__ import annotations

from datetime import date, datetime, timezone

from typing_extensions import Unpack

from tinkex.resources._base import Endpoint, ReadOptions, Resource, WriteOptions
from tinkex.types import (
    ApiKeyResponse,
    AuditEventType,
    AuditLogResponse,
    AuthTokenResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
)

__all__ = ["ENDPOINTS", "AccountMethods"]

_ADMINS_ONLY = {403: "this needs an administrator's role in your organization"}

AUTH_TOKEN = Endpoint(
    name="service.auth_token", method="POST", path="/auth/token", request=dict, response=AuthTokenResponse
)
GET_API_KEY = Endpoint(name="service.get_api_key", method="GET", path="/auth/apikey/me", response=ApiKeyResponse)
DELETE_API_KEY: Endpoint[None] = Endpoint(
    name="service.delete_api_key", method="DELETE", path="/auth/apikey/me", response=None
)
GET_AUDIT_LOG = Endpoint(
    name="service.get_audit_log", method="GET", path="/audit", response=AuditLogResponse, hint=_ADMINS_ONLY
)
GET_BILLING_USAGE = Endpoint(
    name="service.get_billing_usage",
    method="GET",
    path="/billing/usage/events",
    response=BillingUsageResponse,
    hint=_ADMINS_ONLY,
)
GET_CHECKPOINT_STORAGE_USAGE = Endpoint(
    name="service.get_current_checkpoint_storage_usage",
    method="GET",
    path="/billing/usage/checkpoints/current",
    response=CurrentCheckpointStorageUsageResponse,
    hint=_ADMINS_ONLY,
)

ENDPOINTS = (
    AUTH_TOKEN,
    GET_API_KEY,
    DELETE_API_KEY,
    GET_AUDIT_LOG,
    GET_BILLING_USAGE,
    GET_CHECKPOINT_STORAGE_USAGE,
)


class AccountMethods(Resource):
    """Keys, bills and the audit log."""

    def auth_token(self, credential: str | None = None, **options: Unpack[WriteOptions]) -> AuthTokenResponse:
        """Exchange a credential for a token that stands for it for a short time.

        ``POST /api/v1/auth/token``

        Args:
            credential: The credential; that of the settings unless given.
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Returns:
            The token.

        Raises:
            APIError: See :mod:`tinkex.errors`; 401 if the credential is not accepted.
        """
        headers = None if credential is None else {"X-API-Key": credential}
        return self._call(AUTH_TOKEN, {}, headers=headers, **options)

    def get_api_key(self, **options: Unpack[ReadOptions]) -> ApiKeyResponse:
        """Ask what the server knows of the key that this request carries.

        ``GET /api/v1/auth/apikey/me``

        Args:
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            Its name, and whose it is.

        Raises:
            APIError: See :mod:`tinkex.errors`; 401 if it is unknown.
        """
        return self._call(GET_API_KEY, **options)

    def delete_api_key(self, **options: Unpack[WriteOptions]) -> None:
        """Delete the key that this request carries: nobody can use it afterwards.

        ``DELETE /api/v1/auth/apikey/me``

        Args:
            **options: See :class:`~tinkex.resources.WriteOptions`.

        Raises:
            APIError: See :mod:`tinkex.errors`; 401 if it is unknown.
        """
        return self._call(DELETE_API_KEY, **options)

    def get_audit_log(
        self, event_type: AuditEventType = "all", day: date | None = None, **options: Unpack[ReadOptions]
    ) -> AuditLogResponse:
        """List what happened in the organization on one day.

        ``GET /api/v1/audit``

        Args:
            event_type: Which events.
            day: Which day, in UTC; today unless given.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The events, in order.

        Raises:
            APIError: See :mod:`tinkex.errors`; 403 for anybody but an administrator.
        """
        query = {"event_type": event_type, "day": None if day is None else day.isoformat()}
        return self._call(GET_AUDIT_LOG, query=query, **options)

    def get_billing_usage(
        self, starting_on: datetime, ending_before: datetime, **options: Unpack[ReadOptions]
    ) -> BillingUsageResponse:
        """List what was used, by the hour, and what it costs.

        ``GET /api/v1/billing/usage/events``

        Args:
            starting_on: The first hour, a whole one; without a zone it is UTC.
            ending_before: The end, exclusive, a whole hour at most 14 days later.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The usage.

        Raises:
            APIError: See :mod:`tinkex.errors`; 403 for anybody but an administrator of bills.
        """
        query = {"starting_on": _utc(starting_on), "ending_before": _utc(ending_before)}
        return self._call(GET_BILLING_USAGE, query=query, **options)

    def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None, **options: Unpack[ReadOptions]
    ) -> CurrentCheckpointStorageUsageResponse:
        """Ask how much room checkpoints take, by project and user, and what it costs.

        ``GET /api/v1/billing/usage/checkpoints/current``

        Args:
            project_id: Only those of a project.
            **options: See :class:`~tinkex.resources.ReadOptions`.

        Returns:
            The room, an hour or two late.

        Raises:
            APIError: See :mod:`tinkex.errors`; 403 for anybody but an administrator of bills.
        """
        return self._call(GET_CHECKPOINT_STORAGE_USAGE, query={"project_id": project_id}, **options)


def _utc(when: datetime) -> str:
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return when.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
