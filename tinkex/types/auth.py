"""Who is calling: tokens, keys and identities."""

from __future__ import annotations

import attrs

from tinkex.types._base import Value

__all__ = [
    "ApiKeyDetails",
    "ApiKeyOrgDetails",
    "ApiKeyResponse",
    "ApiKeyUserDetails",
    "AuthTokenResponse",
    "WhoamiResponse",
]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AuthTokenResponse(Value):
    """Answer of ``POST auth/token``: a token that stands for the credential for a short time."""

    jwt: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ApiKeyOrgDetails(Value):
    """The organization that a key belongs to."""

    name: str


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ApiKeyUserDetails(Value):
    """The user that a key belongs to."""

    email: str


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ApiKeyDetails(Value):
    """Whose key it is."""

    org_details: ApiKeyOrgDetails
    user_details: ApiKeyUserDetails


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ApiKeyResponse(Value):
    """What the server knows of the key that a request carried."""

    key_id: int
    name: str
    details: ApiKeyDetails
    note: str | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class WhoamiResponse(Value):
    """Who is calling; ``email`` is None for anybody but a person."""

    user_urn: str
    org_urn: str
    email: str | None = None
