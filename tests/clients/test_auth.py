"""Keys, commands and tokens of a client, over a real socket."""

from __future__ import annotations

import sys

import pytest

import tinkex
from tinkex import types
from tinkex.local import Limits, LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan

BASE = "acme/small"
WAIT = 30.0
INVALID = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


@pytest.fixture
def faults():
    """What goes wrong."""
    return FaultPlan()


@pytest.fixture
def server(tmp_path, faults):
    """A server that wants its key exchanged for tokens."""
    limits = Limits(token_s=3600)
    with LocalServer(ScriptedEngine([BASE]), data_dir=tmp_path, limits=limits, faults=faults) as server:
        yield server


def make_service(server, **settings):
    """Make a client of it."""
    given = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False, **settings}
    return tinkex.ServiceClient(**given)


def test_the_key_is_exchanged_once_before_anything_else(server, faults):
    """Settings, token, session: in this order, and every later request carries the token."""
    with make_service(server) as service:
        service.create_lora_training_client(BASE, rank=4)
        token = service._session.api.credentials.value()
        assert token.startswith("eyJ")
    paths = [path for _, path in faults.seen]
    assert paths[:3] == ["client/config", "auth/token", "create_session"]
    assert (paths.count("auth/token"), paths.count("client/config")) == (1, 1)


def test_a_token_that_the_server_calls_invalid_is_exchanged_again(server, faults):
    """The user does not notice."""
    with make_service(server) as service:
        train = service.create_lora_training_client(BASE, rank=4)
        faults.answer(401, path="optim_step", headers=INVALID)
        train.optim_step(types.AdamParams()).result(WAIT)
        assert 2 == faults.count("auth/token")
        assert 2 == faults.count("optim_step")


def test_who_is_calling_is_read_from_the_token(server, faults):
    """Nothing is asked for it but the token; a server that takes the key itself cannot say."""
    with tinkex.RestClient(base_url=server.base_url, api_key=server.api_key) as rest:
        who = rest.whoami().result(WAIT)
    assert who == types.WhoamiResponse(user_urn="tml:organization_user:local", org_urn="tml:organization:local")
    assert [path for _, path in faults.seen] == ["client/config", "auth/token"]


def test_a_plain_key_does_not_say_who_is_calling(stage):
    """The error says why."""
    with pytest.raises(tinkex.ConfigurationError, match="takes the key itself"):
        stage.service.create_rest_client().whoami().result(WAIT)


def test_a_command_prints_the_key(server, faults):
    """Alone it is enough, with tokens and without."""
    command = f'"{sys.executable}" -c "print(\'{server.api_key}\')"'
    with tinkex.RestClient(base_url=server.base_url, credential_cmd=command) as rest:
        assert rest.get_server_capabilities().result(WAIT).supported_models
    assert "auth/token" in [path for _, path in faults.seen]


def test_a_wrong_key_is_told_in_words(server):
    """The first request fails, and no other is sent."""
    with make_service(server, api_key="tml-other") as service:
        with pytest.raises(tinkex.AuthenticationError, match="is not accepted"):
            service.get_server_capabilities()


def test_an_expired_key_is_told_before_anything_is_sent(server, faults):
    """A JWT says itself when it ends."""
    expired = "eyJhbGciOiJ4In0.eyJleHAiOiAxfQ.x"
    with make_service(server, api_key=expired) as service:
        with pytest.raises(tinkex.ConfigurationError, match="has expired"):
            service.get_server_capabilities()
    assert [] == faults.seen


def test_the_local_server_needs_no_command(monkeypatch, server):
    """TINKER_CREDENTIAL_CMD is for the service it was set for; base_url="local" has a key of its own."""
    monkeypatch.setattr("tinkex.local.shared_local_server", lambda: server)
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "false")
    with tinkex.ServiceClient(base_url="local", telemetry=False) as service:
        assert service.config.credential_cmd is None
        assert service.get_server_capabilities().supported_models
