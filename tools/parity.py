"""Write ``docs/explanation/parity.md`` from ``docs/parity.table``, and hold the table against the code.

``python tools/parity.py`` writes the page; with ``--check`` it only says what is wrong with the table, or that the page
is old.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "parity.table"
PAGE = ROOT / "docs" / "explanation" / "parity.md"
ROWS = 264
_ELSEWHERE = ("tests/compat/cookbook/", "tests/peers/")
"""Tests that need the software of others, so that a row by one of them would be proven in its environment only."""
CLIENTS = ("SDK 0.7.0", "SDK 0.38.0", "Elixir 0.4.0")
MARKS = {"y": "yes", "p": "part", "d": "deprecated", "-": "–"}
OURS = {"yes": "yes", "part": "part", "no": "no", "moot": "not applicable"}

INTRO = """# What the other clients have, and where it is here

<!-- Written by tools/parity.py from docs/parity.table. -->

Every feature of the official SDK 0.7.0, of the official SDK 0.38.0 and of the Elixir client 0.4.0, with the public
object that gives it here and the test that proves it: one that fails without it. A test holds the table against the
code: a row that says *yes* or *part* names an object that exists and a test that exists and needs no other client.

"""


class Row(NamedTuple):
    """One feature."""

    section: str
    number: int
    others: str
    ours: str
    title: str
    where: str
    test: str
    remark: str


def read(path: Path = TABLE) -> list[Row]:
    """Read the table."""
    rows, section = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line and not line.startswith("#"):
            number, others, ours, title, where, test, remark = (cell.strip() for cell in f"{line} ".split("|"))
            rows.append(Row(section, int(number), others, ours, title, where, test, remark))
    return rows


def render(rows: list[Row]) -> str:
    """Return the page."""
    counts = Counter(row.ours for row in rows)
    parts = [INTRO, ", ".join(f"{counts[ours]} {text}" for ours, text in OURS.items()), ".\n"]
    for section in dict.fromkeys(row.section for row in rows):
        parts.append(f"\n## {section}\n\n| # | feature | {' | '.join(CLIENTS)} | tinkex | where | test |\n")
        parts.append("|" + "---|" * 8 + "\n")
        parts.extend(_line(row) for row in rows if row.section == section)
    parts.append("\n## What makes no sense here, and why\n\n")
    parts.append("Mostly what others need because there is an event loop below them; there is none here.\n\n")
    parts.extend(f"- *{row.title}* ({row.number}): {row.remark}\n" for row in rows if row.ours == "moot")
    return "".join(parts)


def _line(row: Row) -> str:
    others = " | ".join(MARKS[mark] for mark in row.others)
    where = f"`{row.where}`" if row.where else ""
    test = f"`{row.test}`" if row.test else ""
    remark = f"{'<br>' if test else ''}{row.remark}" if row.remark else ""
    return f"| {row.number} | {row.title} | {others} | {OURS[row.ours]} | {where} | {test}{remark} |\n"


def faults(rows: list[Row]) -> list[str]:
    """Say what does not hold of the table."""
    numbers = [row.number for row in rows]
    found = [] if numbers == list(range(1, ROWS + 1)) else ["the rows are not numbered from 1 to 264"]
    for row in rows:
        found += [f"row {row.number}: {fault}" for fault in _faults_of(row)]
    return found


def _faults_of(row: Row) -> list[str]:
    if row.ours not in OURS or not re.fullmatch(r"[ypd-]{3}", row.others):
        return [f"{row.ours!r} or {row.others!r} is not a mark"]
    if row.ours in ("no", "moot"):
        reason = [] if row.remark or row.ours == "no" else ["no reason is given"]
        return [*reason, *(["it names an object or a test"] if row.where or row.test else [])]
    return [fault for fault in (_no_object(row.where), _no_test(row.test)) if fault]


def _no_object(where: str) -> str | None:
    if where.startswith("$"):
        sources = (ROOT / "tinkex").rglob("*.py")
        used = any(f'"{where[1:]}"' in path.read_text(encoding="utf-8") for path in sources)
        return None if used else f"nothing reads {where}"
    if where.startswith("tinkex "):
        return _no_command(where.split()[1:])
    return None if where and _resolves(where) else f"there is no {where or 'object'}"


def _no_command(words: list[str]) -> str | None:
    from tinkex.cli import main

    command, context = main, None
    for word in words:
        if word.startswith("--"):
            return None if any(word in option.opts for option in command.params) else f"there is no option {word}"
        context = command.make_context(word, [], parent=context, resilient_parsing=True)
        command = command.get_command(context, word) if hasattr(command, "get_command") else None
        if command is None:
            return f"there is no command {' '.join(words)}"
    return None


def _resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for name in parts[size:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def _no_test(test: str) -> str | None:
    file, _, name = test.partition("::")
    path = ROOT / file
    if not file.startswith(("tests/", "docs/")) or not path.is_file():
        return f"there is no file {file or 'of a test'}"
    if file.startswith(_ELSEWHERE):
        return f"{test} runs only where a peer is installed"
    exists = re.search(rf"^\s*def {re.escape(name)}\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    return None if name and exists else f"there is no {test}"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    rows = read()
    wrong, page = faults(rows), render(rows)
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
    elif page != PAGE.read_text(encoding="utf-8"):
        wrong.append("docs/explanation/parity.md is old: python tools/parity.py writes it")
    print("\n".join(wrong) or f"{len(rows)} rows hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
