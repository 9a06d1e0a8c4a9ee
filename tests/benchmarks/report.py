"""The table, the page and the plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.cases import NEW, OLD, ROWS, TINKEX, Row

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_HEAD = ("workload", "figure", "0.7.0", "0.38.0", "tinkex", "ratio", "at most", "")


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the table, measured."""

    row: Row
    figures: tuple[float | None, float | None, float | None]
    """Of 0.7.0, 0.38.0 and tinkex."""
    measure: float | None
    """What the limit is held against: a ratio, or the figure of tinkex."""

    @property
    def held(self) -> bool | None:
        """Whether the limit holds; None if there is none or nothing was measured."""
        if self.row.limit is None or self.measure is None:
            return None
        return self.measure <= self.row.limit

    def cells(self) -> list[str]:
        """Return what stands in the columns."""
        row = self.row
        ratio = "" if row.against is None or self.measure is None else f"{self.measure:.2f}"
        limit = "" if row.limit is None else f"{row.limit:.2f}" if row.against else _show(row.limit, row.unit)
        verdict = {True: "yes", False: "NO", None: ""}[self.held]
        return [row.case.split()[0], row.text, *(_show(x, row.unit) for x in self.figures), ratio, limit, verdict]


def table(results: Results) -> list[Line]:
    """Hold the figures against the limits."""
    return [line for row in ROWS if (line := _line(row, results)) is not None]


def _line(row: Row, results: Results) -> Line | None:
    columns = results.get(row.case, {})
    old, new, own = (_figure(row, results, columns.get(name)) for name in (OLD, NEW, row.of))
    if own is None:
        return None
    against = {OLD: old, NEW: new, None: 1.0}[row.against]
    return Line(row, (old, new, own), own / against if against else None)


def _figure(row: Row, results: Results, figures: Mapping[str, float] | None) -> float | None:
    if figures is None or row.key not in figures:
        return None
    share = row.share_of
    if isinstance(share, str):
        share = figures[share] if share in figures else results.get(share, {}).get(row.of, {}).get(row.key, 0.0)
    return (figures[row.key] - row.ideal) / share if share else None


def _show(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        return f"{value:.2f} s" if abs(value) >= 1 else f"{value * 1e3:.3g} ms"
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    return f"{value:.2%}" if unit == "%" else f"{value:.2f}" if unit == "x" else f"{value:.0f}"


def references(figures: Mapping[str, float]) -> list[list[str]]:
    """Return the lines of the table of references."""
    return [[name, _show(value, "B" if name.startswith("bytes") else "s")] for name, value in figures.items()]


def render(lines: Sequence[Line] | Sequence[list[str]]) -> list[str]:
    """Draw a table in Markdown, aligned."""
    rows = [line.cells() if isinstance(line, Line) else line for line in lines]
    if not rows:
        return []
    head = list(_HEAD) if len(rows[0]) == len(_HEAD) else ["reference", "CPU or size"]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    ruled = ["-" * width for width in widths]
    return [_draw(row, widths) for row in [head, ruled, *rows]]


def _draw(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def write(folder: Path, facts: Mapping[str, str], lines: Sequence[Line], figures: Mapping[str, float]) -> None:
    """Put the figures between the marks of ``speed.md``, and draw the plot beside it."""
    page = folder / "speed.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    passed = sum(line.held is True for line in lines)
    judged = sum(line.held is not None for line in lines)
    measured = [
        f"Measured on {facts['date']} on {facts['machine']}, Python {facts['python']}, with `{facts['command']} "
        f"--write`, which took {facts['took']}; load of the machine at the start {facts['load']}. "
        f"{passed} of {judged} limits hold.",
        "",
        *render(lines),
        "",
        "![Ratios of tinkex to the official SDK](speed.svg)",
        "",
        "What the machine allows, without any client:",
        "",
        *render(references(figures)),
    ]
    page.write_text(before + "\n".join([_BEGIN, "", *measured, "", _END]) + after)
    plot(folder / "speed.svg", lines)


def plot(path: Path, lines: Sequence[Line]) -> None:
    """Draw the ratios, with a mark at each limit."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tinkex"
    from matplotlib import pyplot as plt

    shown = [line for line in lines if line.row.against and line.measure is not None][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(shown) + 1), layout="constrained")
    colours = ["#b04a4a" if line.held is False else "#3f7f5f" for line in shown]
    axes.barh(range(len(shown)), [line.measure or 0.0 for line in shown], color=colours)
    limits = [(line.row.limit, at) for at, line in enumerate(shown) if line.row.limit is not None]
    axes.plot(*zip(*limits, strict=True), "k|", markersize=11, label="at most")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{line.row.case.split()[0]}  {line.row.text}" for line in shown])
    axes.set_xlabel(f"{TINKEX} / official SDK (its line: 1)")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
