"""Runs the cookbook's own tests, which only its source distribution has, and reads the table of those that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs

HERE = Path(__file__).parent

IS_OFFICIAL = "COOKBOOK_ON_OFFICIAL" in os.environ
"""Whether the same is run on the official SDK, to learn what fails there too."""


@attrs.frozen
class Row:
    """A line of ``suite.table``.

    Attributes:
        tests: A node id, or how the ids begin if it ends with ``*``.
        where: ``both``, ``tinkex``, or ``unrun``.
        reason: Why.
    """

    tests: str
    where: str
    reason: str

    def covers(self, node_id: str) -> bool:
        """Tell whether a test is meant."""
        return node_id.startswith(self.tests[:-1]) if self.tests.endswith("*") else node_id == self.tests


def read_table() -> list[Row]:
    """Return the rows of ``suite.table``."""
    lines = HERE.joinpath("suite.table").read_text().splitlines()
    fields = [[field.strip() for field in line.split(" | ")] for line in lines if line and not line.startswith("#")]
    return [Row(*three) for three in fields]


@attrs.frozen
class Outcomes:
    """How each test ended.

    Attributes:
        passed: Ids of those that passed.
        failed: Those that failed, or files that could not be imported, with the end of the report.
    """

    passed: set[str]
    failed: dict[str, str]


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a program of the cookbook: no key, no server, nothing downloaded."""
    dropped = ("TINKER_API_KEY", "TINKER_BASE_URL", "PYTHONSAFEPATH", "CI")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    offline = {"HF_HUB_OFFLINE": "1", "TINKER_TELEMETRY": "0", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return {**kept, **offline, **settings}


def _left_out(tests: str) -> str:
    return f"--deselect={tests}" if "::" in tests else f"--ignore={tests}"


def run_suite(sources: Path, part: str, scratch: Path) -> Outcomes:
    """Run a part of the cookbook's tests in a process of its own; return what came out."""
    outcomes = scratch / "outcomes.json"
    unrun = [_left_out(row.tests) for row in read_table() if row.where == "unrun"]
    quiet = ["-q", "--tb=native", "--continue-on-collection-errors", "--timeout=120"]
    # pytest-asyncio they need; these others would shuffle, write into the sources, or look into what fails.
    plugins = ["-p", "recorder", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", *plugins, *quiet, *unrun, part]
    settings = environment(PYTHONPATH=str(HERE), COOKBOOK_OUTCOMES=str(outcomes))
    ended = subprocess.run(command, env=settings, cwd=sources, capture_output=True, text=True)
    assert outcomes.exists(), (ended.stdout + ended.stderr)[-5000:]
    found = json.loads(outcomes.read_text())
    failed = {test: reason for test, (outcome, reason) in found.items() if outcome == "failed"}
    return Outcomes({test for test, (outcome, _) in found.items() if outcome == "passed"}, failed)
