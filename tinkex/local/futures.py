"""Promises and their results: made by the HTTP thread, kept by the engine thread, waited for by polls."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

from tinkex.errors import InvalidInputError, TinkexError
from tinkex.local import codec
from tinkex.local.limits import Limits
from tinkex.local.problems import Problem
from tinkex.types import RequestFailedResponse

__all__ = ["FutureTable", "Promise", "result_of"]

logger = logging.getLogger(__name__)

_REMEMBERED_GONE = 100_000
_RETRY_AFTER_S = "1"
# What a result takes besides its bytes, more or less.
_OVERHEAD_BYTES = 1000


@attrs.define(eq=False, kw_only=True)
class Promise:
    """One operation's result, or the place where it will be.

    ``session_id`` says whose it is, None if it is nobody's. ``explain`` says what it waits for; ``withdraw`` takes the
    operation back if it has not begun.
    """

    request_id: str
    operation: str
    session_id: str | None = None
    result: codec.Kept | None = None
    finished_at: float = 0.0
    explain: Callable[[], str] = lambda: "queued"
    withdraw: Callable[[], bool] = lambda: False
    wakers: list[Callable[[], None]] = attrs.field(factory=list)

    @property
    def done(self) -> bool:
        """True once there is a result, be it a failure."""
        return self.result is not None


def describe_failure(error: BaseException, operation: str) -> RequestFailedResponse:
    """Say what went wrong, and whose fault it was."""
    if isinstance(error, InvalidInputError):
        return RequestFailedResponse(error=error.message, category="user")
    if isinstance(error, TinkexError):
        return RequestFailedResponse(error=error.message, category=getattr(error, "category", "server"))
    logger.error("%s failed", operation, exc_info=error)
    return RequestFailedResponse(error=f"{operation} failed: {type(error).__name__}: {error}", category="server")


def result_of(outcome: Any, operation: str) -> codec.Kept:
    """Write what came of an operation as it is to be kept.

    Args:
        outcome: A value of the API, or the exception that ended the operation.
        operation: What it is called in a failure.

    Returns:
        The result; a value that has no wire form is a failure.
    """
    value = describe_failure(outcome, operation) if isinstance(outcome, BaseException) else outcome
    try:
        return codec.keep(value)
    except InvalidInputError as error:
        no_form = RuntimeError(f"the result has no wire form: {error.message}")
        return codec.keep(describe_failure(no_form, operation))


def _finished() -> str:
    return "finished"


class FutureTable:
    """All promises of the server, by request id. Methods may be called from any thread.

    Results stay readable until they take too much room, are too old, or were read and many others since; those that
    were read go first. A request id whose result is gone is remembered, so that the answer is "gone" and not "unknown".
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """Start empty."""
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._open: dict[str, Promise] = {}
        self._unread: OrderedDict[str, Promise] = OrderedDict()
        self._read: OrderedDict[str, Promise] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0

    def create(self, request_id: str, operation: str, session_id: str | None = None) -> Promise:
        """Make a promise.

        Raises:
            Problem: 429, too many have no result yet.
        """
        with self._lock:
            if len(self._open) >= self._limits.open_futures:
                raise Problem(
                    429,
                    f"{len(self._open)} operations are queued, the limit is {self._limits.open_futures}; "
                    "wait for some results and send this again",
                    {"Retry-After": _RETRY_AFTER_S},
                )
            promise = Promise(request_id=request_id, operation=operation, session_id=session_id)
            self._open[request_id] = promise
            return promise

    def operation_of(self, request_id: str) -> str | None:
        """Return which operation a request id was given to, also if its result is gone; None if it is unknown."""
        with self._lock:
            promise = self._find_locked(request_id)
            return promise.operation if promise else self._gone.get(request_id)

    def find(self, request_id: str) -> Promise:
        """Return a promise.

        Raises:
            Problem: 404 unknown, 410 the result is gone.
        """
        with self._lock:
            promise = self._find_locked(request_id)
            if promise is None:
                raise self._missing_locked(request_id)
            return promise

    def drop(self, request_id: str) -> None:
        """Forget a result that nobody needs any more; nothing if there is none."""
        with self._lock:
            for table in (self._unread, self._read):
                if request_id in table:
                    self._forget_locked(table, table[request_id])

    def watch(self, request_id: str, waker: Callable[[], None]) -> Promise:
        """Return a promise, and call ``waker`` when it gets its result; at once if it has one.

        Raises:
            Problem: 404 unknown, 410 the result is gone.
        """
        with self._lock:
            promise = self._find_locked(request_id)
            if promise is None:
                raise self._missing_locked(request_id)
            if not promise.done:
                promise.wakers.append(waker)
                return promise
        waker()
        return promise

    def unwatch(self, promise: Promise, waker: Callable[[], None]) -> None:
        """End a watch."""
        with self._lock:
            if waker in promise.wakers:
                promise.wakers.remove(waker)

    def mark_read(self, promise: Promise) -> None:
        """Remember that a result was handed out, so that it may go before others."""
        with self._lock:
            self._mark_read_locked(promise)

    def finish(self, promise: Promise, result: codec.Kept) -> None:
        """Give a promise its result, which whoever waits for it then has; the first one counts."""
        with self._lock:
            if promise.done:
                return
            promise.result, promise.finished_at = result, self._clock()
            promise.explain = _finished
            wakers, promise.wakers = promise.wakers, []
            self._open.pop(promise.request_id, None)
            self._unread[promise.request_id] = promise
            self._bytes += len(result.body) + _OVERHEAD_BYTES
            self._trim_locked()
        for wake in wakers:
            wake()

    def counts(self) -> tuple[int, int]:
        """Return how many promises are open, and how many results are kept."""
        with self._lock:
            return len(self._open), len(self._unread) + len(self._read)

    def _find_locked(self, request_id: str) -> Promise | None:
        self._trim_locked()
        for table in (self._open, self._unread, self._read):
            if request_id in table:
                return table[request_id]
        return None

    def _missing_locked(self, request_id: str) -> Problem:
        if request_id in self._gone:
            return Problem(
                410,
                f"the result of {request_id!r:.200} is no longer kept; results are kept for "
                f"{self._limits.kept_result_s:g} s at most, so read them soon",
            )
        return Problem(
            404,
            f"request_id {request_id!r:.200} is unknown to this server; promises end when the server stops, "
            "so submit the operation again",
        )

    def _mark_read_locked(self, promise: Promise) -> None:
        if self._unread.pop(promise.request_id, None):
            self._read[promise.request_id] = promise
            self._trim_locked()

    def _trim_locked(self) -> None:
        limits = self._limits
        oldest = self._clock() - limits.kept_result_s
        for table in (self._read, self._unread):
            while table:
                promise = next(iter(table.values()))
                # The newest result stays even if it alone is too large: nobody has had the time to read it.
                large = self._bytes > limits.kept_result_bytes and len(self._read) + len(self._unread) > 1
                many = len(self._read) > limits.kept_results
                if not (large or many) and promise.finished_at >= oldest:
                    break
                self._forget_locked(table, promise)

    def _forget_locked(self, table: OrderedDict[str, Promise], promise: Promise) -> None:
        del table[promise.request_id]
        self._bytes -= (len(promise.result.body) if promise.result else 0) + _OVERHEAD_BYTES
        self._gone[promise.request_id] = promise.operation
        if len(self._gone) > _REMEMBERED_GONE:
            self._gone.popitem(last=False)
