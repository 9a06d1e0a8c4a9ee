"""The benchmark runs: every workload, a little of it, with tinkex alone. No claim about time is made here."""

from __future__ import annotations

import json
import math
import struct
import sys

import pytest

from tests.benchmarks import report, run, server
from tests.benchmarks.cases import CASES, NEW, ROWS, TINKEX, Row
from tinkex.types import ForwardBackwardOutput, SampleResponse
from tinkex.wire.json import decode
from tinkex.wire.proto import decode_output, decode_sample


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the quick run prints as JSON."""
    pytest.importorskip("numpy")
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    options = ["--quick", "--clients", TINKEX, "--python", f"{TINKEX}={sys.executable}", "--json", str(path)]
    assert run.main(options) == 0
    return json.loads(path.read_text())


def test_every_workload_runs(measured):
    """Each case gives figures for each form of the wire, none of them missing or infinite."""
    for case in CASES:
        columns = {run.name for run in case.runs if run.client == TINKEX}
        figures = measured["raw"][case.name]
        assert columns == figures.keys()
        assert all(math.isfinite(value) for runs in figures.values() for value in runs[0].values())
    assert all(value > 0 for value in measured["references"].values() if value > 1e-3)


def test_no_operation_is_lost_to_faults(measured):
    """What a server fails now and then is done all the same."""
    assert [0] == [figures["lost"] for figures in measured["raw"]["W6"][TINKEX]]


def test_every_line_of_the_table_has_a_source():
    """A line names a case, a column of it, and what it is held against."""
    columns = {case.name: {run.name for run in case.runs} for case in CASES}
    for row in ROWS:
        assert {row.of, *([row.against] if row.against else [])} <= columns[row.case], row
        assert row.share_of in columns or row.share_of == "bytes" or isinstance(row.share_of, float), row


@pytest.mark.parametrize(
    ("row", "own", "measure", "held"),
    [
        (Row("W3", "x", "wall", 0.5), 1.0, 0.25, True),
        (Row("W3", "x", "wall", 0.2), 1.0, 0.25, False),
        (Row("W3", "x", "wall"), 1.0, 0.25, None),
        (Row("W3", "x", "wall", 0.1, against=None, ideal=10.0, share_of=10.0), 10.5, 0.05, True),
    ],
)
def test_limits_are_held_against_ratios_or_figures(row, own, measure, held):
    """A ratio is tinkex over the other; a figure alone is what is above the ideal, in shares of it."""
    line = report._line(row, {"W3": {TINKEX: {"wall": own}, NEW: {"wall": 4.0}}})
    assert line is not None
    assert (measure, held) == (line.measure, line.held)


def test_the_scripted_results_are_those_of_the_wire():
    """Both forms of a result hold the same numbers."""
    text, packed = server._output(2, 3)
    assert decode(text, ForwardBackwardOutput) == decode_output(packed)
    text, packed = server._sample(2)
    read, unpacked = decode(text, SampleResponse), decode_sample(packed)
    assert read.sequences[0].tokens == unpacked.sequences[0].tokens
    single = struct.unpack("<2f", struct.pack("<2f", *read.sequences[0].logprobs))
    assert list(single) == unpacked.sequences[0].logprobs


def test_the_page_keeps_its_text(tmp_path):
    """Only what stands between the marks is replaced."""
    pytest.importorskip("matplotlib")
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{report._BEGIN}\nstale\n{report._END}\nafter\n")
    facts = dict.fromkeys(("date", "machine", "python", "command", "took", "load"), "x")
    lines = report.table({"W3": {TINKEX: {"cpu_each": 1.0}, NEW: {"cpu_each": 4.0}}})
    report.write(tmp_path, facts, lines, {"orjson, lists": 0.02})
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "0.25" in written
    assert "stale" not in written
    assert (tmp_path / "speed.svg").exists()
