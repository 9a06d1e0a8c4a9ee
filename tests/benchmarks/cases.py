"""The workloads with their settings, and what their figures must show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

TINKEX, NEW, OLD = "tinkex", "0.38.0", "0.7.0"
BATCH = {"datums": 128, "length": 4096}


@dataclasses.dataclass(frozen=True)
class Run:
    """One column of a case: a client, and what is special about its server."""

    client: str
    stage: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    repeats: int | None = None

    @property
    def name(self) -> str:
        return self.label or self.client


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload, run with each client in turn."""

    name: str
    title: str
    workload: str
    options: Mapping[str, Any]
    runs: tuple[Run, ...]
    stage: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    repeats: int = 3
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a figure of tinkex, and what it is held against.

    ``against`` names a column of the same case, and the limit is that of the ratio; without it the figure itself,
    less ``ideal`` and in shares of ``share_of`` if given, must not pass the limit.
    """

    case: str
    text: str
    key: str
    limit: float | None = None
    of: str = TINKEX
    against: str | None = NEW
    unit: str = "s"
    ideal: float = 0.0
    share_of: float | str = 1.0


_JSON = {"form": "json"}
_ALL = (Run(TINKEX), Run(NEW), Run(OLD, _JSON))
_BOTH = (Run(TINKEX), Run(NEW))
_SLOW = (*_BOTH, Run(OLD, _JSON, repeats=1))
_FORMS = (
    Run(TINKEX, label="tinkex binary"),
    Run(TINKEX, _JSON, label="tinkex JSON"),
    Run(NEW),
    Run(OLD, _JSON),
)
_OFTEN = 7
"""Repeats of what takes a second or two, where another program on the machine falls into whole runs."""
_STEP = {"train_s": 0.05, "optim_s": 0.02}
_SMALL = {"datums": 4, "batches": 1}
_FEW = {"count": 5}


def _futures(count: int, quick: int, runs: tuple[Run, ...], repeats: int) -> Case:
    name = f"{count // 1000}k"
    return Case(
        f"W7 {name}",
        f"{count:,} samples of 1 s in flight",
        "samples",
        {"count": count, "prompt": 16},
        runs,
        {"sample_s": 1.0},
        repeats,
        {"count": quick},
    )


def _models(count: int) -> Case:
    return Case(
        f"W7 models {count}",
        f"640 steps of {count} models",
        "models",
        {"count": count, "total": 640},
        _BOTH,
        repeats=2,
        quick={"total": count},
    )


CASES = (
    Case("W4", "import, and the first result", "first_result", {}, _ALL, repeats=5),
    Case(
        "W1 lists",
        "encode 128 x 4096 tokens from lists",
        "encode",
        {**BATCH, "arrays": False, "batches": 6},
        _FORMS,
        repeats=_OFTEN,
        quick=_SMALL,
    ),
    Case(
        "W1 arrays",
        "the same from NumPy arrays",
        "encode",
        {**BATCH, "arrays": True, "batches": 6},
        _FORMS,
        repeats=_OFTEN,
        quick=_SMALL,
    ),
    Case(
        "W5",
        "decode 128 x 4096 logprobs",
        "decode",
        {"datums": 128, "values": 4096, "batches": 6},
        _FORMS,
        {"outputs": 128, "values": 4096},
        _OFTEN,
        {**_SMALL, "datums": 128},
    ),
    Case("W2", "100 steps at 50 + 20 ms, one ahead", "steps", {"count": 100}, _BOTH, _STEP, quick=_FEW),
    Case(
        "W2 delay",
        "the same over a network of 40 ms",
        "steps",
        {"count": 100},
        _BOTH,
        {**_STEP, "delay_s": 0.04},
        2,
        _FEW,
    ),
    Case("W2x", "300 steps at no service time", "steps", {"count": 300}, _ALL, repeats=_OFTEN, quick=_FEW),
    Case("W3", "2,000 samples at 30 ms", "samples", {"count": 2000}, _SLOW, {"sample_s": 0.03}, quick=_FEW),
    Case(
        "W3 bulk",
        "the same with bulk retrieval",
        "samples",
        {"count": 2000},
        _BOTH,
        {"sample_s": 0.03, "bulk": True},
        quick=_FEW,
    ),
    Case(
        "W3L",
        "2,000 samples at 5 s",
        "samples",
        {"count": 2000},
        _BOTH,
        {"sample_s": 5.0},
        2,
        _FEW,
    ),
    Case(
        "W3L bulk",
        "the same with bulk retrieval",
        "samples",
        {"count": 2000},
        _BOTH,
        {"sample_s": 5.0, "bulk": True},
        2,
        _FEW,
    ),
    Case(
        "W6",
        "200 steps and 500 samples; 5 % each of 429, 500, reset",
        "faults",
        {"steps": 200, "samples": 500},
        (Run(TINKEX, repeats=2), Run(NEW)),
        {"train_s": 0.01, "optim_s": 0.005, "sample_s": 0.03, "faults": 0.05},
        1,
        {"steps": 5, "samples": 5},
    ),
    _futures(1_000, 5, _BOTH, _OFTEN),
    _futures(10_000, 10, _BOTH, 1),
    _futures(100_000, 20, (Run(TINKEX),), 1),
    _models(1),
    _models(8),
    _models(64),
)


def _w1(kind: str, form: str) -> Row:
    return Row(f"W1 {kind}", f"CPU per batch, {kind}, {form}", "cpu", 0.40, f"tinkex {form}")


ROWS = (
    _w1("lists", "binary"),
    _w1("lists", "JSON"),
    _w1("arrays", "binary"),
    _w1("arrays", "JSON"),
    Row("W1 lists", "of it making the datums, lists", "build", None, "tinkex JSON"),
    Row("W1 lists", "peak memory, lists", "rss", 0.6, "tinkex binary", unit="B"),
    Row("W1 arrays", "peak memory, arrays", "rss", 0.6, "tinkex binary", unit="B"),
    Row("W1 lists", "peak memory over bytes sent", "rss", 2.0, "tinkex binary", None, "x", share_of="bytes"),
    Row("W2", "time above the service time", "wall", 0.01, against=None, unit="%", ideal=7.0, share_of=7.0),
    Row("W2 delay", "time above the round trips", "wall", 0.05, against=None, unit="%", ideal=8.0, share_of=8.0),
    Row("W2x", "CPU per step", "cpu_each", 0.30),
    Row("W3", "CPU per sample", "cpu_each", 0.30),
    Row("W3", "time", "wall", 0.35),
    Row("W3", "peak memory", "rss", 0.6, unit="B"),
    Row("W3 bulk", "CPU per sample, bulk", "cpu_each", 0.30),
    Row("W3 bulk", "time, bulk", "wall", 0.35),
    Row("W3L", "time above 5 s", "wall", 1.5, against=None, ideal=5.0),
    Row("W3L", "threads", "threads", 100, against=None, unit=""),
    Row("W3L bulk", "time above 5 s, bulk", "wall", 1.5, against=None, ideal=5.0),
    Row("W3L bulk", "threads, bulk", "threads", 100, against=None, unit=""),
    Row("W4", "import", "import", 0.25),
    Row("W4", "import, with the names of a program", "names"),
    Row("W4", "first result", "first", 0.5),
    Row("W4", "installed size", "size", 0.3, unit="B"),
    Row("W5", "decode CPU, binary", "cpu", 0.50, "tinkex binary"),
    Row("W5", "decode CPU, JSON", "cpu", 0.20, "tinkex JSON", OLD),
    Row("W6", "time", "wall", 0.20),
    Row("W6", "operations lost", "lost", 0, against=None, unit=""),
    Row("W7 1k", "CPU per future, 1k", "cpu_each"),
    Row("W7 10k", "CPU per future, 10k", "cpu_each"),
    Row("W7 100k", "CPU per future, 100k", "cpu_each", against=None),
    Row("W7 100k", "growth of it, 100k over 1k", "cpu_each", 1.2, against=None, unit="x", share_of="W7 1k"),
    Row("W7 models 1", "CPU per operation, 1 model", "cpu_each"),
    Row("W7 models 8", "CPU per operation, 8 models", "cpu_each"),
    Row("W7 models 64", "CPU per operation, 64 models", "cpu_each"),
)
