"""tinkex under the official SDK's name, on a server whose engine is a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tinkex.compat import install, uninstall
from tinkex.local import LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan


@pytest.fixture
def tinker() -> Iterator[object]:
    """The module that ``import tinker`` gives."""
    install()
    try:
        import tinker

        yield tinker
    finally:
        uninstall()


@pytest.fixture
def faults() -> FaultPlan:
    """What goes wrong on the server."""
    return FaultPlan()


@pytest.fixture
def server(tmp_path: Path, faults: FaultPlan) -> Iterator[LocalServer]:
    """A server that programs find in their environment."""
    with LocalServer(ScriptedEngine(["acme/small"]), data_dir=tmp_path, faults=faults) as server:
        yield server


@pytest.fixture
def service(tinker, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A client of that server, made as a program would."""
    monkeypatch.setenv("TINKER_BASE_URL", server.base_url)
    monkeypatch.setenv("TINKER_API_KEY", server.api_key)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    with tinker.ServiceClient() as service:
        yield service
