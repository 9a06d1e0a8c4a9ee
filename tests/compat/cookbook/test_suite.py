"""The cookbook's own tests give on tinkex what they give on the official SDK."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.compat.cookbook import suite

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@attrs.frozen
class Part:
    """A part of the tests that was run.

    Attributes:
        outcomes: How they ended.
        rows: What the table says of them.
    """

    outcomes: suite.Outcomes
    rows: list[suite.Row]


@pytest.fixture(scope="module", params=["tinker_cookbook", "tests/downstream_compat"])
def part(request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Those beside the code, and those for what is built on it."""
    outcomes = suite.run_suite(sources, request.param, tmp_path_factory.mktemp("suite"))
    expected = ["both"] if suite.IS_OFFICIAL else ["both", "tinkex"]
    rows = [row for row in suite.read_table() if row.where in expected and row.tests.startswith(request.param)]
    return Part(outcomes, rows)


def test_whatever_fails_is_listed(part: Part) -> None:
    """No test fails but those of which the table says why."""
    listed = [test for test in part.outcomes.failed if any(row.covers(test) for row in part.rows)]
    assert {test: part.outcomes.failed[test] for test in part.outcomes.failed.keys() - listed} == {}


def test_whatever_is_listed_fails(part: Part) -> None:
    """A row whose tests are gone, or of which one passes, has to leave the table."""
    idle = [row.tests for row in part.rows if not any(map(row.covers, part.outcomes.failed))]
    passing = [test for test in part.outcomes.passed if any(row.covers(test) for row in part.rows)]
    assert (idle, passing) == ([], [])


def test_most_pass(part: Part) -> None:
    """The part was run at all."""
    assert len(part.outcomes.passed) > 500
