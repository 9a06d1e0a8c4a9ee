"""The cookbook's trainers as programs of their own, on the embedded server, and where its tests are."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

# The cookbook has an environment of its own in tox.ini; elsewhere there is nothing to test.
collect_ignore_glob = [] if importlib.util.find_spec("tinker_cookbook") else ["test_*.py"]


@attrs.frozen
class Run:
    """What a run of a trainer left behind.

    Attributes:
        rows: Metrics of each step.
        checkpoints: What was saved, in order.
        official: Modules that came from an installed official SDK.
        is_ours: Whether ``tinker`` was tinkex.
    """

    rows: list[dict]
    checkpoints: list[dict]
    official: list[str]
    is_ours: bool


@pytest.fixture(scope="session")
def sources() -> Path:
    """The cookbook's source distribution: tox fetches it, because the wheel has neither tests nor tutorials."""
    return Path(os.environ["COOKBOOK_SOURCES"])


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    """Run a trainer's script under the official SDK's name; return what it left behind."""

    def run(script: str, *options: str) -> Run:
        log = tmp_path / "log"
        kept = {name: value for name, value in os.environ.items() if name not in ("TINKER_API_KEY", "PYTHONSAFEPATH")}
        settings = {
            "TINKER_BASE_URL": "local",
            "TINKER_TELEMETRY": "0",
            "TINKEX_LOCAL_DIR": str(tmp_path / "data"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "tinkex.compat", str(Path(__file__).with_name(script)), str(log), *options]
        ended = subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True, cwd=tmp_path)
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-5000:]
        modules = json.loads(log.with_suffix(".modules").read_text())
        return Run(_lines(log / "metrics.jsonl"), _lines(log / "checkpoints.jsonl"), **modules)

    return run
