"""``tinker.auth``: what it says of the credential, and of the server behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinkex.errors import AuthenticationError, ConfigurationError, InternalServerError
from tinkex.local import LocalServer
from tinkex.testing.faults import FaultPlan


@pytest.fixture
def auth(tinker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The module, where nobody has logged in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tinker.auth


def test_without_a_credential_there_is_nothing(auth) -> None:
    """No variable is set: no token, no credentials, and the check for access says what is missing."""
    assert auth.get_tinker_token() is None
    assert not auth.tinker_has_credentials()
    with pytest.raises(ConfigurationError, match="TINKER_API_KEY"):
        auth.raise_if_tinker_not_accessible()


def test_a_key_or_a_command_is_a_credential(auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command counts although it is not run, and only a key can be shown."""
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "exit 1")
    assert auth.tinker_has_credentials()
    assert auth.get_tinker_token() is None
    monkeypatch.setenv("TINKER_API_KEY", "tml-one")
    assert auth.get_tinker_token() == "tml-one"


def test_access_is_what_the_server_says(auth, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right key passes in silence, a wrong one is refused at once."""
    monkeypatch.setenv("TINKER_BASE_URL", server.base_url)
    monkeypatch.setenv("TINKER_API_KEY", server.api_key)
    assert auth.raise_if_tinker_not_accessible() is None
    monkeypatch.setenv("TINKER_API_KEY", "tml-wrong")
    with pytest.raises(AuthenticationError):
        auth.raise_if_tinker_not_accessible()


def test_access_is_asked_for_once(
    auth, server: LocalServer, faults: FaultPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in trouble fails the check at once: nobody waits for it."""
    monkeypatch.setenv("TINKER_BASE_URL", server.base_url)
    monkeypatch.setenv("TINKER_API_KEY", server.api_key)
    faults.answer(503, path="get_server_capabilities", times=10)
    with pytest.raises(InternalServerError):
        auth.raise_if_tinker_not_accessible()
    assert faults.count("get_server_capabilities") == 1
