"""The tables, as printed and in the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
"""Of one client: its name, and for each check the error, or None."""

_REASON_LENGTH = 110
_NOISE = (
    (r"^AssertionError: ", ""),
    (r"(?s) \((GET|POST|PUT|DELETE|PATCH) /.*", ""),
    (r" with status \d+ for self\..*", ""),
    (r"https?://127\.0\.0\.1:\d+", "http://..."),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "..."),
    (r"\b(model|run|sess|mdl|session|req)_[0-9a-f]{6,}\b", r"\1_..."),
    (r"(/[\w.-]+)+/(checkpoints|ckpt)\b", r".../\2"),
    (r"\bself\.request_id='[^']*'", ""),
    (r"[|`<>]", " "),
    (r"\s+", " "),
)


def reason(error: str) -> str:
    """Shorten an error to what it says, without what differs from run to run."""
    for pattern, text in _NOISE:
        error = re.sub(pattern, text, error)
    return error if len(error) <= _REASON_LENGTH else error[: _REASON_LENGTH - 3] + "..."


def table(sdk: Report, tinkex: Report) -> list[str]:
    """Draw the checks side by side."""
    rows = [("check", sdk["client"].replace("tinker ", "SDK "), "tinkex")]
    rows += [(name, *(_cell(report, name) for report in (sdk, tinkex))) for name in sdk["checks"]]
    return draw(rows)


def _cell(report: Report, name: str) -> str:
    error = report["checks"][name]["error"]
    return "yes" if error is None else f"no: {reason(error)}"


def draw(rows: Sequence[Sequence[str]]) -> list[str]:
    """Draw a table in Markdown, aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|-" + "-|-".join("-" * width for width in widths) + "-|", *lines[1:]]


def passed(report: Report) -> set[str]:
    """Return the checks that passed."""
    return {name for name, result in report["checks"].items() if result["error"] is None}


def counts(sdk: Report, tinkex: Report) -> list[str]:
    """Say how many checks passed, and which passed with one client only."""
    total, with_sdk, with_tinkex = len(sdk["checks"]), passed(sdk), passed(tinkex)
    lines = [f"Of {total} checks, {len(with_sdk)} pass with {sdk['client']} and {len(with_tinkex)} with tinkex."]
    for names, client in ((with_sdk - with_tinkex, "the SDK"), (with_tinkex - with_sdk, "tinkex")):
        lines.append(f"With {client} only: {'; '.join(sorted(names)) or 'none'}.")
    return lines


def write(page: Path, name: str, lines: Sequence[str]) -> None:
    """Put lines between the marks of a server in the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, mark, rest = page.read_text().partition(begin)
    assert mark, f"{page} has no place for {name}"
    _, _, after = rest.partition(end)
    page.write_text(before + "\n".join([begin, "", *lines, "", end]) + after)
