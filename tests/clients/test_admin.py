"""AdminClient: what it asks of a server, and what it refuses to ask."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
import responses

import tinkex
from tinkex import types

URL = "http://tinker.test"
WAIT = 30.0
TEN = datetime(2026, 3, 1, 10, tzinfo=timezone.utc)


@pytest.fixture
def web():
    """A server that has no settings for its clients."""
    with responses.RequestsMock() as mocked:
        mocked.post(f"{URL}/api/v1/client/config", status=404)
        yield mocked


@pytest.fixture
def admin():
    """The client."""
    with tinkex.AdminClient(base_url=URL, api_key="tml-key") as admin:
        yield admin


def test_the_audit_log_of_a_day(web, admin):
    """Kind and day travel; the entries come back."""
    entry = {"timestamp": "2026-03-01T10:00:00Z", "event": "checkpoint_read"}
    web.get(f"{URL}/api/v1/audit?event_type=checkpoints&day=2026-03-01", json={"entries": [entry]})
    log = admin.get_audit_log("checkpoints", date(2026, 3, 1)).result(WAIT)
    assert log.entries == [types.AuditLogEntry(timestamp=TEN, event="checkpoint_read")]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (TEN, TEN + timedelta(hours=1)),
        ("2026-03-01T10:00:00Z", "2026-03-01T12:00:00+01:00"),
        (datetime(2026, 3, 1, 10), "2026-03-01T11:00:00"),
    ],
)
def test_usage_by_the_hour(web, admin, start, end):
    """Times may be datetimes or texts, with or without a zone."""
    query = "starting_on=2026-03-01T10%3A00%3A00Z&ending_before=2026-03-01T11%3A00%3A00Z"
    event = {
        "bucket_start": "2026-03-01T10:00:00Z",
        "bucket_end": "2026-03-01T11:00:00Z",
        "event_info": {"type": "storage", "gigabyte_hours": 2, "free": False},
    }
    web.get(f"{URL}/api/v1/billing/usage/events?{query}", json={"data": [event]})
    (used,) = admin.get_billing_usage(start, end).result(WAIT).data
    assert used.event_info == types.StorageBillingEvent(gigabyte_hours=2.0)


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        (TEN, TEN, "later than starting_on by 14 days at most"),
        (TEN, TEN + timedelta(days=14, hours=1), "later than starting_on by 14 days at most"),
        (TEN + timedelta(minutes=1), TEN + timedelta(hours=1), "starting_on must be a whole hour"),
        (TEN, "tomorrow", "ending_before must be a datetime or a text"),
        (5, TEN, "starting_on must be a datetime or a text"),
    ],
)
def test_a_period_that_no_server_takes_is_refused_at_once(admin, start, end, problem):
    """Nothing is sent."""
    with pytest.raises(tinkex.InvalidInputError, match=problem):
        admin.get_billing_usage(start, end)


def test_an_unknown_kind_of_event_is_refused_at_once(admin):
    """The kinds that there are, are named."""
    with pytest.raises(tinkex.InvalidInputError, match="all, checkpoints, projects"):
        admin.get_audit_log("checkpoint")


def test_storage_of_a_project(web, admin):
    """The room that checkpoints take now."""
    item = {"checkpoint_count": 1, "size_bytes": 2, "size_gigabytes": 0.5}
    web.get(f"{URL}/api/v1/billing/usage/checkpoints/current?project_id=p", json={"data": [item]})
    usage = admin.get_current_checkpoint_storage_usage("p").result(WAIT)
    assert usage.data[0].size_gigabytes == 0.5


def test_who_is_no_administrator_is_told(web, admin):
    """403 names the role that is missing."""
    web.get(f"{URL}/api/v1/audit?event_type=all", status=403, json={"detail": "no"})
    with pytest.raises(tinkex.PermissionDeniedError, match="administrator's role"):
        admin.get_audit_log().result(WAIT)


def test_a_rest_client_has_these_calls_too():
    """SDKs before 0.38 have them there."""
    assert issubclass(tinkex.RestClient, tinkex.AdminClient)
    assert tinkex.RestClient.get_billing_usage_async
