"""Rules for every test: Hypothesis profiles, no thread left behind, no settings from the outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=50, **_COMMON)
settings.register_profile("ci", max_examples=100, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# A shell that starts the tests in the background may have switched Ctrl-C off, for them and for what they start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tinkex_threads() -> list[threading.Thread]:
    """Return the threads of all clients and servers."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("tinkex-")]


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a thread of tinkex running."""
    before = set(tinkex_threads())
    yield
    deadline = time.monotonic() + 30.0
    left = set(tinkex_threads()) - before
    while left and time.monotonic() < deadline:
        for thread in left:
            thread.join(0.05)
        left = {thread for thread in left if thread.is_alive()}
    assert sorted(thread.name for thread in left) == []


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the settings and the login of whoever runs the tests."""
    monkeypatch.setattr("tinkex.config.STORED_LOGIN", Path("no-such-login.json"))
    for name in list(os.environ):
        if name.startswith(("TINKER_", "TINKEX_", "CLOUDFLARE_ACCESS_")):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
