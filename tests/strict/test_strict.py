"""Plain requests against the classes of five generations of the SDK, which ``tox -e strict`` installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.strict.bodies import PLAIN, bodies
from tinkex._version import __version__

HOME = Path(os.environ.get("TINKEX_STRICT_SDKS", "."))
SDKS = ("0.7.0", "0.16.1", "0.24.1", "0.25.0", "0.38.0")
NEVER = "99"

SINCE = {
    # The SDK writes these bodies by hand.
    "CancelFutureRequest": NEVER,
    "WeightsInfoRequest": NEVER,
    # Endpoints and values that came later, each with the SDK that brought it.
    "ClientConfigRequest": "0.18",
    "DmelChunk": "0.23",
    "CopyWeightsRequest": "0.27",
    "FuturesRetrieveRequest": "0.27",
    "SamplingSessionFuturesTarget": "0.27",
    "SaveWeightsExternalRequest": "0.28",
    "AdamOptimizerConfig": "0.30",
    "DimuonOptimizerConfig": "0.30",
    "DimuonParams": "0.30",
    "JoinSamplingSessionRequest": "0.32",
    "AccessibleSearchOwner": "0.36",
    "ActiveSessionStatusQuery": "0.36",
    "CancelledSessionStatusQuery": "0.36",
    "ClientFinishedSessionStatusQuery": "0.36",
    "CreateCustomLossRequest": "0.36",
    "CustomLossGraph": "0.36",
    "CustomLossInput": "0.36",
    "CustomLossNode": "0.36",
    "FailedSessionStatusQuery": "0.36",
    "OwnSearchOwner": "0.36",
    "SessionSearchCursor": "0.36",
    "SessionSearchRequest": "0.36",
    "UserSearchOwner": "0.36",
}
"""What an older SDK has no class for, and why."""
NAMES_ONLY = {"Datum", "ForwardBackwardInput", "ForwardBackwardRequest", "ForwardRequest", "TensorData"}
"""Dataclasses since 0.24, which read no JSON: the names of their fields are compared."""


def numbers(version: str) -> list[int]:
    """Make a version comparable."""
    return [int(part) for part in version.split(".")]


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    """A version of the SDK."""
    return request.param


@pytest.fixture(scope="module")
def verdicts(sdk: str) -> list[dict[str, Any]]:
    """What the classes of the SDK say of every body."""
    folder = HOME / sdk
    if not folder.exists():
        pip = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), f"tinker=={sdk}"], check=True)
    settings = {"name": "ClientConfigRequest", "era": "B", "body": {"sdk_version": __version__}}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("validate.py"))],
        input=json.dumps([*bodies(has_settings=numbers(sdk) >= [0, 18]), settings]),
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_an_sdk_takes_every_plain_request(sdk, verdicts):
    """No field is sent at its default that a server with this SDK's classes would refuse."""
    assert [] == [item for item in verdicts if item["verdict"] not in ([], "absent", "names")]


def test_what_an_sdk_has_no_class_for_is_known(sdk, verdicts):
    """A class that is missing without a reason would mean that nothing is tested."""
    absent = {item["name"] for item in verdicts if item["verdict"] == "absent"}
    assert absent == {name for name, since in SINCE.items() if numbers(sdk) < numbers(since)}


def test_what_an_sdk_has_no_reader_for_is_known(sdk, verdicts):
    """Everything else is read by its class."""
    dataclasses = {item["name"] for item in verdicts if item["verdict"] == "names"}
    assert dataclasses == (NAMES_ONLY if numbers(sdk) >= [0, 24] else set())


def test_every_field_came_with_the_sdk_that_it_says(sdk, verdicts):
    """The ages in the types are those of the SDKs: each knows exactly the fields that are as old as itself."""
    known = {item["name"]: set(item["fields"]) for item in verdicts}
    wrong = [
        f"{type(value).__name__}.{field.name}"
        for value in PLAIN
        for field in (attrs.fields(type(value)) if attrs.has(type(value)) else ())
        if not field.name.startswith("_") and known[type(value).__name__]
        if (field.name in known[type(value).__name__]) != (numbers(sdk) >= numbers(field.metadata.get("since", "0")))
    ]
    assert [] == wrong
