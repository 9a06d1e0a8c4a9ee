"""A plugin for the pytest that runs the cookbook's own tests: tinkex as ``tinker``, and a note of what came out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

if "COOKBOOK_ON_OFFICIAL" not in os.environ:
    # Before any of their modules is imported.
    from tinkex.compat import install

    install()

_outcomes: dict[str, list[str]] = {}


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    before = _outcomes.get(report.nodeid, ["passed", ""])[0]
    if before == "passed" and (report.outcome != "passed" or getattr(report, "when", None) == "call"):
        reason = "" if report.passed else str(report.longrepr)[-2000:]
        _outcomes[report.nodeid] = [report.outcome, reason]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ended, the worst of its three phases."""
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file that cannot be imported."""
    if report.failed:
        _note(report)


def pytest_sessionfinish() -> None:
    """Write it down."""
    Path(os.environ["COOKBOOK_OUTCOMES"]).write_text(json.dumps(_outcomes))
