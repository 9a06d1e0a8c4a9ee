"""Showing a run on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import concurrent.futures
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from typing_extensions import override

from tinkex.recipes.progress import Reporter, StepRecord

__all__ = ["Bar", "Lines", "describe_wait", "make_reporter"]

LINE_EVERY_S = 5.0
COUNTED = "{desc} {percentage:3.0f}%|{bar:20}| {n}/{total} [{elapsed}<{remaining}{postfix}]"
UNCOUNTED = "{desc}{postfix}"


def make_reporter() -> Reporter:
    """Return the reporter that suits stderr."""
    return Bar() if sys.stderr.isatty() else Lines()


def describe_wait(future: Any) -> str:
    """Say in a few words what a future waits for: operation, state of the queue and seconds."""
    operation = getattr(future, "operation", "an answer")
    state = getattr(future, "queue_state", "unknown")
    reason = getattr(future, "queue_state_reason", None)
    queue = "" if state == "unknown" else f", queue {state}"
    why = f" ({reason})" if reason else ""
    return f"waiting for {operation}{queue}{why}, {getattr(future, 'elapsed', 0.0):.0f} s"


def _describe_step(record: StepRecord) -> str:
    return f"loss {record.loss:.3f}, {record.tokens_per_s:.0f} tokens/s"


class Bar(Reporter):
    """A progress bar for each part of a run."""

    def __init__(self) -> None:
        """Show nothing yet."""
        from tqdm import tqdm  # type: ignore[import-untyped]

        # tqdm would start a thread that redraws stalled bars; the waits below redraw them already.
        tqdm.monitor_interval = 0
        self._make = tqdm
        self._bar: Any = None
        self._shown = ""

    @override
    def phase(self, title: str, total: int = 0, done: int = 0) -> None:
        self.close()
        self._shown = ""
        self._bar = self._make(
            desc=title,
            total=total or None,
            initial=done,
            bar_format=COUNTED if total else UNCOUNTED,
            leave=bool(total),
            dynamic_ncols=True,
            file=sys.stderr,
        )

    @override
    def waiting(self, future: concurrent.futures.Future[Any], *, long: bool) -> None:
        if self._bar is not None:
            parts = (self._shown, describe_wait(future))
            self._bar.set_postfix_str(", ".join(part for part in parts if part), refresh=long)

    @override
    def step(self, record: StepRecord) -> None:
        self._shown = _describe_step(record)
        self._bar.set_postfix_str(self._shown, refresh=False)
        self._bar.update()

    @override
    def answered(self) -> None:
        self._bar.update()

    @override
    def note(self, text: str) -> None:
        self._make.write(text, file=sys.stderr)

    @override
    def close(self) -> None:
        # A bar that counted something stays on the screen.
        if self._bar is not None:
            self._bar.set_postfix_str(self._shown, refresh=False)
            self._bar.close()
            self._bar = None


class Lines(Reporter):
    """A line for each part of a run, and every few seconds one that says how far it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet."""
        self._clock = clock
        self._title = ""
        self._total = self._done = 0
        self._last = clock()
        self._detail = ""

    @override
    def phase(self, title: str, total: int = 0, done: int = 0) -> None:
        self._title, self._total, self._done, self._detail = title, total, done, ""
        self._write(f"{title} ({total})" if total else title)

    @override
    def waiting(self, future: concurrent.futures.Future[Any], *, long: bool) -> None:
        if long:
            self._now_and_then(describe_wait(future))

    @override
    def step(self, record: StepRecord) -> None:
        self._done = record.step
        self._detail = _describe_step(record)
        self._now_and_then(last=self._done == self._total)

    @override
    def answered(self) -> None:
        self._done += 1
        self._now_and_then()

    @override
    def note(self, text: str) -> None:
        self._write(text)

    def _now_and_then(self, wait: str = "", *, last: bool = False) -> None:
        if last or self._clock() - self._last >= LINE_EVERY_S:
            done = f"{self._title} {self._done}/{self._total}" if self._total else self._title
            self._write(", ".join(part for part in (done, self._detail, wait) if part))

    def _write(self, text: str) -> None:
        self._last = self._clock()
        click.echo(text, err=True)
