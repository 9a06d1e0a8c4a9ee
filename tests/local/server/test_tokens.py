"""Tokens that stand for the key."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest

from tinkex.local import Limits
from tinkex.local.tokens import Tokens

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def with_token(api, token):
    """Call something that needs a key, with a token instead."""
    return api.call("GET", "get_server_capabilities", headers={"X-API-Key": token})


def test_a_token_stands_for_the_key(serve):
    """A client is told to exchange its key, and may then use the token until it expires."""
    api = serve(Limits(token_s=60))
    assert api.post("client/config", {})["pjwt_auth_enabled"] is True
    token = api.post("auth/token")["jwt"]
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 60
    assert (claims["sub"], claims["org_id"]) == ("tml:organization_user:local", "local")
    assert with_token(api, token).status_code == 200
    assert token != api.post("auth/token")["jwt"]
    service = api.server._parts().service
    service.tokens._now = lambda: datetime.now(timezone.utc) + timedelta(seconds=61)
    answer = with_token(api, token)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')


def test_a_server_without_tokens_says_so(api):
    """Clients are told nothing of tokens, there are none to be had, and what looks like one is a wrong key."""
    assert "pjwt_auth_enabled" not in api.post("client/config", {})
    assert "send the key itself" in api.post("auth/token", status=404)["detail"]
    answer = with_token(api, Tokens(60, lambda: datetime.now(timezone.utc)).make())
    assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (401, False)


@pytest.mark.parametrize("spoil", [str.upper, lambda token: token[:-1], lambda token: token + "A", lambda _: "eyJ"])
def test_a_token_that_was_changed_is_none(spoil):
    """No byte of it can be another."""
    tokens = Tokens(60, lambda: NOON)
    token = tokens.make()
    assert tokens.accepts(token)
    assert not tokens.accepts(spoil(token))


def test_a_token_of_another_server_is_none():
    """Each run has a secret of its own."""
    assert not Tokens(60, lambda: NOON).accepts(Tokens(60, lambda: NOON).make())


def test_the_key_is_described_and_stays(api):
    """A client that logs out cannot take the server's key away."""
    assert api.get("auth/apikey/me")["details"]["org_details"] == {"name": "local"}
    answer = api.call("DELETE", "auth/apikey/me")
    assert (answer.status_code, "stop it" in answer.json()["detail"]) == (403, True)
