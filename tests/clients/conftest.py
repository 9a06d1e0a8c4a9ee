"""A real server over a real socket, with an engine that is a script."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import tinkex
from tinkex import types
from tinkex.local import LocalServer
from tinkex.testing.engine import ScriptedEngine
from tinkex.testing.faults import FaultPlan

BASE = "acme/small"


@attrs.frozen
class Stage:
    """What a test plays on."""

    service: tinkex.ServiceClient
    server: LocalServer
    engine: ScriptedEngine
    faults: FaultPlan

    def new_service(self, **settings: object) -> tinkex.ServiceClient:
        """Make another client of the same server."""
        given = {"base_url": self.server.base_url, "api_key": self.server.api_key, "telemetry": False, **settings}
        return tinkex.ServiceClient(**given)

    def train(self, **options: object) -> tinkex.TrainingClient:
        """Make a model."""
        return self.service.create_lora_training_client(BASE, rank=4, **options)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A server, its engine, its fault plan, and a client."""
    engine, faults = ScriptedEngine([BASE]), FaultPlan()
    with LocalServer(engine, data_dir=tmp_path, faults=faults) as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        with tinkex.ServiceClient(**settings) as service:
            yield Stage(service, server, engine, faults)


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never was so")


def until_collected(*threads: threading.Thread) -> None:
    """Collect garbage until threads have ended: one that was inside a method of its owner lets go a little later."""

    def are_collected() -> bool:
        gc.collect()
        return not any(thread.is_alive() for thread in threads)

    until(are_collected)


def make_datum(*tokens: int, **inputs: object) -> types.Datum:
    """Make a datum for cross_entropy, or for whatever the inputs given are for."""
    tokens = tokens or (1, 2, 3)
    given = inputs or {"weights": [1.0] * len(tokens)}
    return types.Datum(
        model_input=types.ModelInput.from_ints(list(tokens)), loss_fn_inputs={"target_tokens": list(tokens), **given}
    )


@pytest.fixture
def datum() -> object:
    """Makes datums."""
    return make_datum


@pytest.fixture
def batch() -> list[types.Datum]:
    """Two small datums for cross_entropy."""
    return [make_datum(1, 2, 3), make_datum(4, 5)]
