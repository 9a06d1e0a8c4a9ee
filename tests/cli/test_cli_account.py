"""``tinkex auth``, ``model``, ``session`` and ``billing``."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

import tinkex
from tinkex.cli import _app, auth, main
from tinkex.cli._app import App
from tinkex.config import DEFAULT_BASE_URL, LOCAL, ClientConfig, Secret
from tinkex.errors import AuthenticationError, PermissionDeniedError
from tinkex.local import LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.types import (
    BillingUsageEvent,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageItem,
    CurrentCheckpointStorageUsageResponse,
    StorageBillingEvent,
    TrainingBillingEvent,
    WhoamiResponse,
)

KEY = "tml-very-secret"
HOUR = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


class Done:
    """A future that is done."""

    def __init__(self, value):
        self.result = lambda: value


class Account:
    """A client of an organization whose answers are fixed; it keeps what it was asked for."""

    def __init__(self):
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def create_rest_client(self):
        return self

    def whoami(self):
        return Done(WhoamiResponse(user_urn="tml:user:1", org_urn="tml:organization:2", email="a@b.test"))

    def get_billing_usage(self, starting_on, ending_before):
        self.asked.append((starting_on, ending_before))
        hour = {"bucket_start": HOUR, "bucket_end": HOUR + timedelta(hours=1)}
        trained = BillingUsageEvent(
            **hour,
            event_info=TrainingBillingEvent(token_count=1200),
            base_model="acme/small",
            user_name="Ann, B.",
            estimated_cost_usd=0.25,
        )
        return Done(
            BillingUsageResponse(
                data=[trained, BillingUsageEvent(**hour, event_info=StorageBillingEvent(gigabyte_hours=1.5))]
            )
        )

    def get_current_checkpoint_storage_usage(self, project_id):
        self.asked.append(project_id)
        item = CurrentCheckpointStorageUsageItem(
            checkpoint_count=3, size_bytes=1536, size_gigabytes=1.5e-6, project_id="p1", user_email="a@b.test"
        )
        return Done(CurrentCheckpointStorageUsageResponse(data=[item]))


@pytest.fixture
def login(tmp_path, monkeypatch):
    """Where the key is stored; nothing is there yet."""
    path = tmp_path / "home" / "credentials.json"
    monkeypatch.setattr("tinkex.config.STORED_LOGIN", path)
    return path


@pytest.fixture
def run():
    """Runs a command line, and expects it to end well unless told otherwise."""

    def invoke(*words, fails=False, app=None, **options):
        outcome = CliRunner().invoke(main, [str(word) for word in words], obj=app or App(), **options)
        assert fails == bool(outcome.exit_code), outcome.output
        assert KEY not in outcome.output
        return outcome.output

    return invoke


@pytest.fixture
def server(tmp_path):
    """A server."""
    with LocalServer(ScriptedEngine(["acme/small", "Other/large"]), data_dir=tmp_path / "data") as running:
        yield running


@pytest.fixture
def embedded(server, monkeypatch):
    """A command line that talks to it."""
    monkeypatch.setenv("TINKER_BASE_URL", server.base_url)
    monkeypatch.setenv("TINKER_API_KEY", server.api_key)
    return App()


# --- The key ----------------------------------------------------------------------------------------------------


def test_a_stored_key_is_that_of_the_next_program(run, login):
    """A login writes a file that nobody else can read, which the settings and the next command use."""
    assert str(login) in run("auth", "login", input=f"{KEY}\n")
    assert ClientConfig.from_env({}).api_key == Secret(KEY)
    assert (login.stat().st_mode & 0o777, login.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [login] == list(login.parent.iterdir())
    account, addresses = Account(), []
    app = App(connect=lambda base_url: addresses.append(base_url) or account)
    assert "a@b.test" in run("auth", "whoami", app=app)
    assert addresses == [None]


def test_a_key_is_asked_for_without_showing_it(run, login, monkeypatch):
    """On a terminal there is a prompt, and what is typed does not appear."""
    monkeypatch.setattr(auth, "_at_terminal", lambda: True)
    assert "API key" in run("auth", "login", input=f"{KEY}\n")
    assert ClientConfig.from_env({}).api_key == Secret(KEY)


def test_what_is_no_key_is_not_stored(run, login):
    """Nothing, or a line with blanks in it."""
    for text in ("", f"{KEY} {KEY}\n"):
        assert "error: api_key" in run("auth", "login", input=text, fails=True)
    assert not login.exists()


def test_other_keys_of_the_file_stay(run, login):
    """Those that the official program stored; the new one is the default until it is deleted."""
    login.parent.mkdir()
    old = {"version": 1, "default": "7", "keys": {"7": {"type": "manual", "key": "tml-old", "name": "laptop"}}}
    login.write_text(json.dumps(old))
    run("auth", "login", input=KEY)
    assert ClientConfig.from_env({}).api_key == Secret(KEY)
    assert "deleted" in run("auth", "logout")
    assert json.loads(login.read_text()) == {"version": 1, "keys": old["keys"]}
    assert "no key is stored" in run("auth", "logout")


def test_a_file_that_is_no_login_is_left_alone(run, login):
    """The error names it."""
    login.parent.mkdir()
    login.write_text("{")
    for words in (["auth", "login"], ["auth", "logout"], ["auth", "status"]):
        assert str(login) in run(*words, input=KEY, fails=True)
    assert login.read_text() == "{"


def test_a_login_that_cannot_be_written_leaves_nothing(run, login, monkeypatch):
    """No half of a file with a key in it; the error says where it should have gone."""

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    assert f"error: the login cannot be stored in {login} (no room)" in run("auth", "login", input=KEY, fails=True)
    assert list(login.parent.iterdir()) == []


def test_logging_out_revokes_only_when_asked(run, login):
    """The stored key, not that of the environment; it stays here if the server refuses."""
    revoked = []
    run("auth", "login", input=KEY)
    run("auth", "logout", app=App(revoke=revoked.append))
    assert (revoked, login.exists()) == ([], False)
    run("auth", "login", input=KEY)

    def refuse(_):
        raise PermissionDeniedError("no", status_code=403)

    assert "error: no" in run("auth", "logout", "--revoke", app=App(revoke=refuse), fails=True)
    assert login.exists()
    run("auth", "logout", "--revoke", app=App(revoke=revoked.append), env={"TINKER_API_KEY": "tml-other"})
    assert (revoked, login.exists()) == ([KEY], False)


def test_revoking_asks_with_the_key_itself(server, monkeypatch):
    """The server is asked to delete the key of the request; the embedded one keeps its own, and knows no other."""
    monkeypatch.setattr(_app, "DEFAULT_BASE_URL", server.base_url)
    monkeypatch.setenv("TINKER_API_KEY", "tml-other")
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "exit 1")
    with pytest.raises(PermissionDeniedError, match="ends with the server"):
        App().revoke(server.api_key)
    with pytest.raises(AuthenticationError):
        App().revoke("tml-wrong")


def test_the_status_says_where_the_credential_comes_from(run, login):
    """A variable, a command, the stored login for its own server, or nowhere; nothing is sent or run."""

    def status(*words, **env):
        told = json.loads(run("auth", "status", "-f", "json", *words, env=env))
        return told["server"], told["credential"]

    assert status() == (LOCAL, "none")
    run("auth", "login", input=KEY)
    assert status() == (DEFAULT_BASE_URL, str(login))
    assert status(TINKER_BASE_URL="http://a.test") == ("http://a.test", "none")
    assert status("--base-url", LOCAL) == (LOCAL, "none")
    assert status(TINKER_CREDENTIAL_CMD="exit 1") == (DEFAULT_BASE_URL, "TINKER_CREDENTIAL_CMD")
    assert status(TINKER_CREDENTIAL_CMD="exit 1", TINKER_API_KEY=KEY) == (DEFAULT_BASE_URL, "TINKER_API_KEY")
    assert "TINKER_API_KEY is set" in run("auth", "login", input=KEY, env={"TINKER_API_KEY": "tml-other"})


def test_a_server_of_plain_keys_says_so(run, embedded):
    """To ask who one is there ends with one line of error."""
    assert "error: whoami" in run("auth", "whoami", app=embedded, fails=True)


# --- What the server has ----------------------------------------------------------------------------------------


def test_models_are_listed(run, embedded):
    """All of them, or those with a word in the name; upper and lower case are the same."""
    lines = run("model", "list", app=embedded).splitlines()
    assert lines[0].split() == ["MODEL", "CONTEXT", "TRAINS", "SAMPLES"]
    assert [line.split()[0] for line in lines[1:]] == ["Other/large", "acme/small"]
    (found,) = json.loads(run("model", "list", "LARGE", "-f", "json", app=embedded))
    assert found["model_name"] == "Other/large"


def test_sessions_are_listed_and_their_trace_is_fetched(run, embedded, tmp_path, monkeypatch):
    """The newest first, with all pages; the trace as a file of its name or the one given, or as an address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinkex.cli.session.PAGE", 1)
    for _ in range(2):
        with tinkex.ServiceClient(telemetry=False) as service:
            service.create_sampling_client(base_model="acme/small").compute_logprobs(
                tinkex.ModelInput.from_ints([1])
            ).result(30)
    sessions = json.loads(run("session", "list", "--format", "json", "--limit", 0, app=embedded))
    # Newest first; the command line may have one of its own.
    begun = [session["created_at"] for session in sessions]
    assert len(begun) >= 2
    assert begun == sorted(begun, reverse=True)
    lines = run("session", "list", "--limit", 1, app=embedded).splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["SESSION", "BEGUN", "STATUS", "CHECKPOINTS", "NAME"]
    name = sessions[-1]["session_id"]
    assert run("session", "export-trace", name, app=embedded).strip() == f"{name}.pftrace"
    run("session", "export-trace", name, "-o", "own", app=embedded)
    assert (tmp_path / "own").read_bytes() == (tmp_path / f"{name}.pftrace").read_bytes()
    assert json.loads((tmp_path / "own").read_text())
    assert run("session", "export-trace", name, "--url-only", app=embedded).startswith("http://")
    assert "--url-only" in run("session", "export-trace", name, "--url-only", "-o", "x", app=embedded, fails=True)
    assert "error: " in run("session", "export-trace", "nobody", app=embedded, fails=True)


# --- Bills ------------------------------------------------------------------------------------------------------


@pytest.fixture
def account(monkeypatch):
    """An organization."""
    monkeypatch.setenv("TINKER_API_KEY", "not used")
    return Account()


def rows_of(text):
    """The rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


def test_usage_is_shown_by_the_hour(run, account):
    """As a table with amounts and units, as JSON with all of the answer, or as CSV with every field."""
    words, app = ["billing", "usage", "2026-01-31", "2026-02-01T00:00:00Z"], App(connect=lambda _: account)
    heading, trained, stored = run(*words, app=app).splitlines()
    assert heading.split() == ["HOUR", "WHAT", "AMOUNT", "USD", "MODEL", "USER", "SESSION"]
    assert trained.split()[:7] == ["2026-01-31", "12:00", "training", "1200", "tokens", "0.2500", "acme/small"]
    assert stored.split()[2:6] == ["storage", "1.5", "GB", "h"]
    assert account.asked == [("2026-01-31", "2026-02-01T00:00:00Z")]
    assert len(json.loads(run(*words, "-f", "json", app=app))["data"]) == 2
    first, second = rows_of(run(*words, "--csv", app=app))
    assert (first["event_info.token_count"], first["user_name"], second["event_info.token_count"]) == (
        "1200",
        "Ann, B.",
        "",
    )


def test_storage_is_shown_by_project(run, account):
    """In the same three forms; --project-id is handed on."""
    words, app = ["billing", "checkpoint-storage"], App(connect=lambda _: account)
    assert run(*words, app=app).splitlines()[1].split() == ["p1", "a@b.test", "3", "1.5", "KiB", "-"]
    (row,) = rows_of(run(*words, "--csv", "--project-id", "p1", app=app))
    assert (row["checkpoint_count"], row["project_id"]) == ("3", "p1")
    assert json.loads(run(*words, "-f", "json", app=app))["data"][0]["size_bytes"] == 1536
    assert account.asked == [None, "p1", None]


def test_a_period_that_cannot_be_billed_is_one_line_of_error(run, embedded):
    """The field is named before anything is sent."""
    assert "error: starting_on must be" in run("billing", "usage", "soon", "later", app=embedded, fails=True)
