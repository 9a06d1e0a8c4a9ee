"""What a run tells whoever watches it."""

from __future__ import annotations

import concurrent.futures
from typing import Any, TypeVar

import attrs

__all__ = ["Reporter", "StepRecord", "wait_for"]

T = TypeVar("T")

REFRESH_S = 0.25


@attrs.frozen(kw_only=True, slots=True)
class StepRecord:
    """One finished training step, as it is written to ``metrics.jsonl``.

    Attributes:
        step: Counted from 1.
        loss: ``loss:sum`` divided by the sum of the weights: nats for each learned token.
        learning_rate: Rate of this step.
        tokens: Tokens that the model read.
        tokens_per_s: ``tokens`` by the time since the step before was finished.
        elapsed_s: Training time of the run so far, resumed parts included.
    """

    step: int
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_s: float
    elapsed_s: float


class Reporter:
    """Hears how a run goes; this one ignores it. Override what you want to show.

    All methods are called on the thread that runs the recipe and should be quick.
    """

    def phase(self, title: str, total: int = 0, done: int = 0) -> None:
        """Begin a part of the run: ``total`` units of work, ``done`` of them finished already."""

    def waiting(self, future: concurrent.futures.Future[Any], *, long: bool) -> None:
        """Tell what is waited for: when the wait begins, then several times a second with ``long`` true."""

    def step(self, record: StepRecord) -> None:
        """Finish a training step."""

    def answered(self) -> None:
        """Finish one held-out prompt."""

    def note(self, text: str) -> None:
        """Tell something worth a line."""

    def close(self) -> None:
        """End; nothing more will come."""


def wait_for(future: concurrent.futures.Future[T], reporter: Reporter) -> T:
    """Wait for a future in short slices, telling the reporter between them.

    Raises:
        TinkexError: The operation failed.
    """
    long = False
    while not future.done():
        reporter.waiting(future, long=long)
        long = not concurrent.futures.wait([future], timeout=REFRESH_S).done
    return future.result()
