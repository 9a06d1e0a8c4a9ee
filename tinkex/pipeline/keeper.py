"""What both kinds of submission have in common: an executor that sends, and promises that must be kept."""

from __future__ import annotations

import atexit
import contextvars
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import attrs

from tinkex.errors import APIError, APIStatusError, ClientClosedError, InvalidInputError, RateLimitError
from tinkex.pipeline.futures import APIFuture, Observer, Promise, report_unread
from tinkex.pipeline.herald import Herald
from tinkex.pipeline.patience import Patience
from tinkex.pipeline.process import ExitDeadline, forked_error, renewed, survive_fork
from tinkex.pipeline.step import Outcome

__all__ = ["Part", "PromiseKeeper", "Wiring", "is_refusal"]

logger = logging.getLogger(__name__)

_GRACE_S = 1.0


@attrs.frozen(kw_only=True, slots=True)
class Part:
    """One request of an operation.

    Attributes:
        send: Sends the request with the sequence number it is given, retrying as the client's policy says,
            and returns the request id. Raises ``TinkexError`` if the server refuses it or cannot be reached.
        size: Estimated bytes of the request.
        request_type: What the server calls the type of the result, such as ``ForwardBackward``.
        decode: Whatever ``retrieve`` needs to decode the result; the pipeline only carries it.
        again: How often it may be sent again, under a new number, if the server has lost its result; 0 for what must
            not be done twice.
        look_up: Asked about an error of ``send``: returns what to call in place of ``retrieve`` if the server may have
            the request nevertheless, from an earlier attempt; None if it was refused.
        halve: Makes two requests that together say the same, for a server that finds this one too large (413); None
            for what cannot be split.
        withdraw: Tells the server, without waiting, that the result of a request id is not wanted any more; None for
            what cannot be taken back.
        herald: Hears when the result is there; None to ask for it by itself.
        patience: How long it and others may make no progress; None for that of the pipeline.
        observer: Called on its phase changes, besides those of the pipeline.
    """

    send: Callable[[int], str]
    size: int = 0
    request_type: str = ""
    decode: Any = None
    again: int = 0
    look_up: Callable[[APIError], Callable[[], Outcome] | None] | None = None
    halve: Callable[[], Sequence[Part]] | None = None
    withdraw: Callable[[str], None] | None = None
    herald: Herald | None = None
    patience: Patience | None = None
    observer: Observer | None = None


@attrs.frozen(kw_only=True, slots=True)
class Wiring:
    """What is the same for all pipelines of a session; tests and tools may replace it.

    Attributes:
        clock: Monotonic seconds.
        executor: Runs the workers; a ``ThreadPoolExecutor`` of its own unless given. One that is given is not
            shut down by ``close``; one that runs its tasks at once, in the calling thread, works too.
        observers: Called on each phase change of each operation, on the thread where it happens.
        exit_deadline: How long operations are still sent after the end of the program.
        keeps_context: Send each operation in the context variables of its caller.
        patience_s: How long the operations of one pipeline may make no progress.
        owner: Kept alive while operations are under way, so that it is not collected and closed beneath them.
    """

    clock: Callable[[], float] = time.monotonic
    executor: Executor | None = None
    observers: Iterable[Observer] = ()
    exit_deadline: ExitDeadline | None = None
    keeps_context: bool = False
    patience_s: float = math.inf
    owner: object = None


def is_refusal(error: object) -> bool:
    """Return True for an error by which the server has surely not accepted the request, so that its number is free."""
    if isinstance(error, InvalidInputError):
        return True  # found while the request was encoded
    if not isinstance(error, APIStatusError) or error.status_code >= 500:
        return False
    return not error.retryable or isinstance(error, RateLimitError)


_keepers: weakref.WeakSet[PromiseKeeper] = weakref.WeakSet()


# Runs after the executors have finished their queues, and before logging shuts down.
@atexit.register
def _report_at_exit() -> None:
    for keeper in list(_keepers):
        keeper.report()


class PromiseKeeper:
    """Holds each promise from the call until its future is done, so that none is lost."""

    def __init__(self, name: str, *, threads: int, thread_name: str, wiring: Wiring | None) -> None:
        """Keep nothing yet."""
        wiring = wiring or Wiring()
        self.name = name
        self._owns_executor = wiring.executor is None
        self._executor = wiring.executor or ThreadPoolExecutor(threads, thread_name_prefix=thread_name)
        self._clock = wiring.clock
        self._patience = Patience(wiring.patience_s)
        self._observers = wiring.observers
        self._keeps_context = wiring.keeps_context
        self._owner = wiring.owner
        self._exit = wiring.exit_deadline or ExitDeadline(wiring.clock)
        self._pid = os.getpid()
        self._make_locks()
        # guarded by _lock
        self._closed: ClientClosedError | None = None
        self._dropping = False  # closed, and what is queued is not sent any more
        self._kept: dict[Promise[Any], None] = {}
        self._failed: weakref.WeakSet[APIFuture[Any]] = weakref.WeakSet()
        survive_fork(self)
        _keepers.add(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    # --- for everybody --------------------------------------------------------------------------------------

    def pending(self) -> list[APIFuture[Any]]:
        """Return the futures that are not done, oldest first."""
        with self._lock:
            futures = [promise.future for promise in self._kept]
        return [future for future in futures if not future.done()]

    def close(self, *, drain: bool = True, timeout: float = 300.0) -> None:
        """Take no more operations, finish or fail those there are, and end the threads.

        Idempotent, and callable from any thread. On a thread of the pipeline itself (in a callback) it does
        not wait.

        Args:
            drain: Send what is queued and wait for all results; else fail everything that is not done.
            timeout: Seconds for all of this; what is not done then fails.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._closed is not None and self._closed.reason == "forked":
                return
            self._closed = self._closed or ClientClosedError(f"{self.name} was closed")
        self._wake_callers()
        waits = not self._on_own_thread()
        if drain and waits:
            self._wait(lambda: not self._kept, deadline)
        if not drain or waits:
            self._abandon(ClientClosedError(f"{self.name} was closed before this operation was done"))
        idle = waits and self._wait(self._idle_locked, max(deadline, time.monotonic() + _GRACE_S))
        if self._owns_executor:
            self._executor.shutdown(wait=idle)
        self.report()

    def report(self) -> None:
        """Log each failure that nobody has read, once."""
        with self._lock:
            failed = list(self._failed)
        report_unread(failed)

    def after_fork(self) -> None:
        """Close in a child process, and fail what is pending there."""
        self._make_locks()
        if self._closed is None or self._closed.reason != "forked":
            self._closed = forked_error(self._pid)
        kept = list(self._kept)
        self._kept.clear()
        self._failed = weakref.WeakSet()
        for promise in kept:
            promise.fail_after_fork(renewed(self._closed))

    # --- what subclasses say --------------------------------------------------------------------------------

    def _wake_callers(self) -> None:
        """Fail the threads that are blocked in a call."""

    def _idle_locked(self) -> bool:
        """Return True if no worker is running."""
        raise NotImplementedError

    def _on_own_thread(self) -> bool:
        """Return True if waiting here would stop a thread that is waited for."""
        raise NotImplementedError

    def _abandon(self, error: ClientClosedError) -> None:
        """Become CLOSED, send nothing more and fail everything that is not done."""
        with self._lock:
            self._closed = self._closed or error
            self._dropping = True
            promises = [(promise, promise.start()) for promise in self._kept]
            self._changed.notify_all()
        for promise, started in promises:
            self._end(promise, renewed(error) if started else None)

    def _give_up_at_exit(self) -> None:
        """Drop what is not done, loudly: the interpreter has waited long enough."""
        dropped = self.pending()
        if dropped:
            names = ", ".join(sorted({future.operation for future in dropped}))
            logger.error("the program ended before %d operations of %s were done: %s", len(dropped), self.name, names)
        self._abandon(ExitDeadline.error())

    # --- keeping --------------------------------------------------------------------------------------------

    def _promise(self, operation: str, observer: Observer | None = None) -> Promise[Any]:
        context = contextvars.copy_context() if self._keeps_context else None
        observers = self._observers if observer is None else (*self._observers, observer)
        return Promise(operation, clock=self._clock, observers=observers, context=context)

    def _resolve(self, promise: Promise[Any], value: object) -> None:
        promise.resolve(value)
        self._drop(promise)

    def _fail(self, promise: Promise[Any], error: BaseException, **how: Any) -> None:
        """Fail a promise; ``how`` goes to :meth:`Promise.fail`."""
        self._drop(promise, failed=promise.fail(error, **how))

    def _end(self, promise: Promise[Any], error: BaseException | None, **how: Any) -> None:
        """Complete a promise that was taken from the queue: with the error, or as cancelled without one."""
        if error is not None:
            self._fail(promise, error, **how)
        else:
            promise.cancelled()
            self._drop(promise)

    def _drop(self, promise: Promise[Any], *, failed: bool = False) -> None:
        with self._lock:
            self._kept.pop(promise, None)
            if failed:
                self._failed.add(promise.future)
            if not self._kept:
                self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], deadline: float) -> bool:
        """Wait until a condition on fields guarded by the lock holds; False if ``deadline`` came first."""
        with self._lock:
            return self._changed.wait_for(until, max(0.0, deadline - time.monotonic()))
