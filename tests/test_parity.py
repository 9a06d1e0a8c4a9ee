"""The table of what the other clients have is held against the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "parity.py"
spec = importlib.util.spec_from_file_location("parity", FILE)
parity = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parity)


def test_every_row_holds() -> None:
    """No row is missing; a row that we have names an object and a test that exist; what makes no sense says why."""
    assert parity.faults(parity.read()) == []


def test_the_page_is_that_of_the_table() -> None:
    """docs/explanation/parity.md is what tools/parity.py writes."""
    assert parity.PAGE.read_text(encoding="utf-8") == parity.render(parity.read())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ours": "perhaps"}, "is not a mark"),
        ({"others": "yn-"}, "is not a mark"),
        ({"where": ""}, "there is no object"),
        ({"where": "tinkex.Datums"}, "there is no tinkex.Datums"),
        ({"where": "$TINKER_NOTHING"}, "nothing reads $TINKER_NOTHING"),
        ({"where": "tinkex trains"}, "there is no command trains"),
        ({"where": "tinkex serve --nothing"}, "there is no option --nothing"),
        ({"test": ""}, "there is no file of a test"),
        ({"test": "tests/test_parity.py::test_nothing"}, "there is no tests/test_parity.py::test_nothing"),
        (
            {"test": "tests/compat/cookbook/test_trainers.py::test_preference_trainer_learns"},
            "test_preference_trainer_learns runs only where a peer is installed",
        ),
        ({"ours": "no"}, "it names an object or a test"),
        ({"ours": "moot", "where": "", "test": ""}, "no reason is given"),
    ],
)
def test_a_row_that_does_not_hold_is_named(change: dict[str, str], fault: str) -> None:
    """Each rule of the table is checked."""
    row = parity.Row("S", 3, "yy-", "yes", "A datum", "tinkex.Datum", "tests/test_parity.py::test_every_row_holds", "")
    assert parity._faults_of(row) == []
    assert parity._faults_of(row._replace(**change)) == [fault] or fault in parity._faults_of(row._replace(**change))[0]


def test_a_missing_row_is_noticed() -> None:
    """The rows are numbered without a gap."""
    assert parity.faults(parity.read()[1:])[0] == "the rows are not numbered from 1 to 264"
