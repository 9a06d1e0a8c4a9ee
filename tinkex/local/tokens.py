"""Short-lived tokens that stand for the server's key: JWTs (RFC 7519), signed with a secret of this run."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

__all__ = ["Tokens"]

_HEADER = {"alg": "HS256", "typ": "JWT"}
_CLAIMS = {"sub": "tml:organization_user:local", "org_id": "local", "email": ""}


class Tokens:
    """Makes tokens and knows them again. Used from the HTTP thread only."""

    def __init__(self, life_s: float, now: Callable[[], datetime]) -> None:
        """Make a new secret.

        Args:
            life_s: For how many seconds a token is good; 0 if there are to be none.
            now: Time of day.
        """
        self._life_s = life_s
        self._now = now
        self._secret = secrets.token_bytes(32)

    @property
    def offered(self) -> bool:
        """True if clients are to exchange the key for tokens."""
        return self._life_s > 0

    def make(self) -> str:
        """Return a new token."""
        made = self._now().timestamp()
        # The number makes two tokens of one moment differ.
        claims = {**_CLAIMS, "iat": made, "exp": made + self._life_s, "jti": secrets.token_hex(8)}
        signed = f"{_encode(_HEADER)}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}"

    def accepts(self, token: str) -> bool:
        """Tell whether a token was made here and is still good."""
        signed, _, signature = token.rpartition(".")
        if not self.offered or not hmac.compare_digest(signature.encode(), self._sign(signed).encode()):
            return False
        claims = json.loads(_decode(signed.partition(".")[2]))
        return bool(claims["exp"] > self._now().timestamp())

    def _sign(self, signed: str) -> str:
        return _to_text(hmac.digest(self._secret, signed.encode(), "sha256"))


def _encode(value: dict[str, Any]) -> str:
    return _to_text(json.dumps(value, separators=(",", ":")).encode())


def _to_text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
