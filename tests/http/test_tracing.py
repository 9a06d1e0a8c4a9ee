"""Trace headers, made by a propagator that stands in for OpenTelemetry's."""

from __future__ import annotations

import sys
import types

import pytest

from tinkex.config import ClientConfig
from tinkex.errors import ConfigurationError
from tinkex.http import ApiClient, Response

OK = Response(status=200, headers={"content-length": "2"}, content=b"{}")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Sender:
    """Keeps the headers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    def send(self, method: str, path: str, *, headers: dict[str, str], **_: object) -> Response:
        """Keep them."""
        self.headers.append(dict(headers))
        return OK

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def install(monkeypatch):
    """Puts an ``inject`` where OpenTelemetry has its own."""

    def install(inject) -> None:
        package, module = types.ModuleType("opentelemetry"), types.ModuleType("opentelemetry.propagate")
        package.propagate, module.inject = module, inject
        monkeypatch.setitem(sys.modules, "opentelemetry", package)
        monkeypatch.setitem(sys.modules, "opentelemetry.propagate", module)

    return install


def sent(**settings) -> dict[str, str]:
    """Make one call, and return what it carried, names in lower case; none is there twice."""
    sender = Sender()
    headers = settings.pop("headers", None)
    client = ApiClient(ClientConfig(base_url="http://tinker.test", **settings), transport=sender)
    client.call("POST", "/x", headers=headers)
    (carried,) = sender.headers
    lower = {name.lower(): value for name, value in carried.items()}
    assert len(lower) == len(carried)
    return lower


def test_the_headers_of_the_context_are_sent(install):
    """Those that the propagators of the program put there, besides all others."""
    install(lambda carrier: carrier.update(traceparent=PARENT, tracestate="a=1"))
    carried = sent(propagate_trace=True)
    assert (carried["traceparent"], carried["tracestate"]) == (PARENT, "a=1")
    assert carried["accept"] == "application/json"


def test_headers_of_ones_own_go_before(install):
    """Whatever their case."""
    install(lambda carrier: carrier.update(traceparent=PARENT, tracestate="a=1"))
    carried = sent(propagate_trace=True, default_headers={"TraceParent": "mine"}, headers={"Tracestate": "b=2"})
    assert (carried["traceparent"], carried["tracestate"]) == ("mine", "b=2")


def test_nothing_is_sent_unless_asked_for(install):
    """The package is not even imported."""
    install(None)
    assert "traceparent" not in sent()


def test_a_propagator_that_fails_does_not_stop_the_request(install, caplog):
    """It is logged."""
    install(lambda carrier: 1 / 0)
    assert sent(propagate_trace=True)["accept"] == "application/json"
    assert "a propagator of OpenTelemetry failed" in caplog.text


def test_without_the_package_one_is_told_how_to_get_it(monkeypatch):
    """Before anything is sent."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", None)
    with pytest.raises(ConfigurationError, match=r'not installed: pip install .*"tinkex\[otel\]"'):
        sent(propagate_trace=True)


@pytest.mark.parametrize(("text", "on"), [("1", True), ("YES", True), ("on", True), ("true", True), ("0", False)])
def test_the_environment_turns_it_on(text, on):
    """By a word that means yes."""
    environ = {"TINKER_API_KEY": "k", "TINKEX_OTEL_PROPAGATE": text}
    assert ClientConfig.from_env(environ).propagate_trace is on
