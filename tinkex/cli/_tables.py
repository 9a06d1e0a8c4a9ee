"""Showing what the server has: as a table for people, as JSON for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

__all__ = [
    "Columns",
    "as_plain",
    "describe_size",
    "describe_time",
    "format_option",
    "show_csv",
    "show_one",
    "show_table",
]

F = TypeVar("F", bound=Callable[..., Any])
Columns = Mapping[str, Callable[[Any], str]]
"""Heading of each column, and how to write its cell."""


def format_option(command: F) -> F:
    """Add ``--format`` to a command."""
    return click.option(
        "-f",
        "--format",
        "output_format",
        type=click.Choice(["table", "json"]),
        default="table",
        help="A table for people, or JSON for programs. Default: table.",
    )(command)


def show_table(items: Iterable[Any], columns: Columns, output_format: str) -> None:
    """Print values of the API as rows, or as a JSON list with all they have."""
    found = list(items)
    if output_format == "json":
        click.echo(json.dumps([as_plain(item) for item in found], indent=2))
        return
    rows = [list(columns), *([write(item) for write in columns.values()] for item in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_csv(items: Iterable[Any]) -> None:
    """Print values of the API as CSV: a column for each field that one of them has, an empty cell where it is None."""
    rows = [dict(_lines(as_plain(item))) for item in items]
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if text == "null" else text for name, text in row.items()} for row in rows)


def show_one(item: Any, output_format: str) -> None:
    """Print one value of the API: a line for each field, or a JSON object."""
    plain = item if isinstance(item, dict) else as_plain(item)
    if output_format == "json":
        click.echo(json.dumps(plain, indent=2))
        return
    lines = list(_lines(plain))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        click.echo(f"{name.ljust(width)}  {text}".rstrip())


def as_plain(item: Any) -> dict[str, Any]:
    """Return a value as its JSON object, read back."""
    from tinkex.wire.json import encode

    plain: dict[str, Any] = json.loads(encode(item))
    return plain


def _lines(plain: Mapping[str, Any], before: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    for name, value in plain.items():
        path = (*before, name)
        if isinstance(value, dict):
            yield from _lines(value, path)
        else:
            yield ".".join(path), value if isinstance(value, str) else json.dumps(value)


def describe_size(size: int | None) -> str:
    """Write a number of bytes."""
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def describe_time(time: datetime | None, *, missing: str = "-") -> str:
    """Write a time to the minute, as the server has it."""
    return missing if time is None else time.strftime("%Y-%m-%d %H:%M")
