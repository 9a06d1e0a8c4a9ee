"""The two ends of an operation: :class:`APIFuture` for those who wait, :class:`Promise` for the pipeline.

A user holds an ``APIFuture``, a real ``concurrent.futures.Future``. Only the pipeline holds the ``Promise``
that belongs to it, and nothing else in tinkex writes to a future. Completing a future runs the callbacks of
its user, so no method of a ``Promise`` may be called with a lock held.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, Literal, TypeVar

import attrs
from typing_extensions import override

from tinkex._scalars import plain_number
from tinkex.errors import (
    ClientClosedError,
    OperationError,
    PipelineBrokenError,
    ResultTimeoutError,
    TinkexError,
    UnexpectedError,
)

__all__ = ["APIFuture", "Observer", "PhaseChange", "Phases", "Promise"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = TypeVar("P")

# A wait for a lock cannot be interrupted by Ctrl-C on Windows, so it is cut into slices there.
_LONGEST_WAIT_S = 0.2 if sys.platform == "win32" else threading.TIMEOUT_MAX
_REPR_LIMIT = 300


@attrs.define(kw_only=True, slots=True)
class Phases:
    """When an operation reached each phase, on the monotonic clock of the pipeline; None if it has not.

    Attributes:
        submitted: The call was made.
        accepted: The server answered the first request of the operation with a request id.
        ready: The outcome was known: a result, a failure or a cancellation.
        fetched: Somebody read the outcome for the first time.
    """

    submitted: float
    accepted: float | None = None
    ready: float | None = None
    fetched: float | None = None

    @property
    def accepting_s(self) -> float | None:
        """Seconds from the call until the server accepted the operation; None if it has not."""
        return None if self.accepted is None else self.accepted - self.submitted


@attrs.frozen(kw_only=True, slots=True)
class PhaseChange:
    """What observers are told.

    Attributes:
        operation: Name of the method, such as ``forward_backward``.
        phase: What happened.
        request_id: The server's name for the operation, once it has one.
        elapsed: Seconds since the call.
        queue_state: The server's word on its queue.
        queue_state_reason: Why, if the server said.
        error: The failure, if ``phase`` is ``failed``.
        accepted_after: Seconds from the call until the server accepted it, once it has.
    """

    operation: str
    phase: Literal["submitted", "accepted", "queue_state", "ready", "failed", "cancelled"]
    request_id: str | None
    elapsed: float
    queue_state: str
    queue_state_reason: str | None
    error: BaseException | None = None
    accepted_after: float | None = None


Observer = Callable[[PhaseChange], object]


class APIFuture(concurrent.futures.Future[T]):
    """The result of an operation, some time from now.

    A real ``concurrent.futures.Future``: ``wait``, ``as_completed``, callbacks and ``asyncio.wrap_future``
    work. It can also be awaited. Callbacks run on a thread of the pipeline: they must be quick, and must not
    wait for another future of the same model.

    Attributes:
        operation: Name of the method, such as ``forward_backward``.
        phases: When it was submitted, accepted, ready and fetched.
    """

    def __init__(self, operation: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a future of an operation that is called now."""
        super().__init__()
        self.operation = operation
        self._clock = clock
        self.phases = Phases(submitted=clock())
        self._request_id: str | None = None
        # State and reason change together, so they are one attribute.
        self._queue: tuple[str, str | None] = ("unknown", None)
        self._quiet = False
        self._has_callbacks = False  # of the user
        # Called whenever somebody reads the outcome.
        self._on_read: Callable[[], object] | None = None
        # Takes back what was begun; None for what cannot be taken back.
        self._withdraw: Callable[[], bool] | None = None

    @property
    def request_id(self) -> str | None:
        """The server's name for the operation (of its first chunk), or None until it was accepted."""
        return self._request_id

    @property
    def queue_state(self) -> str:
        """The server's last word: ``active``, ``paused_capacity``, ``paused_rate_limit`` or ``unknown``."""
        return self._queue[0]

    @property
    def queue_state_reason(self) -> str | None:
        """Why the server is paused, or why it could not be asked."""
        return self._queue[1]

    @property
    def elapsed(self) -> float:
        """Seconds since the call; stands still once the operation is done."""
        ready = self.phases.ready
        return (self._clock() if ready is None else ready) - self.phases.submitted

    @override
    def result(self, timeout: float | None = None) -> T:
        """Wait for the result.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Returns:
            The result.

        Raises:
            ResultTimeoutError: The time is up. The operation goes on; call again to go on waiting.
            concurrent.futures.CancelledError: It was cancelled before it was sent.
            TinkexError: The operation failed. Only what a custom loss raises comes out as it is.
        """
        self._await_outcome(timeout)
        return super().result(0)

    @override
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome and return its exception, or None if it has a result.

        Raises:
            ResultTimeoutError: The time is up. The operation goes on; call again to go on waiting.
            concurrent.futures.CancelledError: It was cancelled before it was sent.
        """
        self._await_outcome(timeout)
        return super().exception(0)

    @override
    def cancel(self) -> bool:
        """Cancel the operation if it is still queued, or if it is a sample.

        Returns:
            True if there will be no result: nothing was sent and nothing will be, or it is a sample, which the
            server is asked not to draw (once it has accepted one that is being sent). False if the operation is
            done, or if it is no sample and the server has it, or may have it; of a sample, also while it is to be
            sent once more, because the server has lost its result.
        """
        cancelled = super().cancel()
        withdraw = self._withdraw
        if not cancelled and withdraw is not None:
            cancelled = withdraw()
        if cancelled and self.phases.ready is None:
            self.phases.ready = self._clock()
        return cancelled

    @override
    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call ``fn`` with this future when it is done, on a thread of the pipeline; or now, if it is done."""
        self._has_callbacks = True
        super().add_done_callback(fn)

    def _when_done(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call ``fn``, which tells a thread that waits, if there is one."""
        super().add_done_callback(fn)

    async def result_async(self, timeout: float | None = None) -> T:
        """Wait for the result without blocking the event loop; like :meth:`result` otherwise."""
        import asyncio

        loop, timeout = asyncio.get_running_loop(), plain_number(timeout)
        done = asyncio.Event()

        def wake(_: concurrent.futures.Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(done.set)

        self._when_done(wake)
        try:
            await asyncio.wait_for(done.wait(), timeout)
        except asyncio.TimeoutError:
            raise self._timeout_error(timeout) from None
        return self.result(0)

    def coroutine(self) -> Coroutine[Any, Any, T]:
        """Return a coroutine that waits for the result."""
        return self.result_async()

    def future(self) -> APIFuture[T]:
        """Return itself; for programs written for the official SDK."""
        return self

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result inside a coroutine."""
        return self.result_async().__await__()

    def _await_outcome(self, timeout: float | None) -> None:
        timeout = plain_number(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = _LONGEST_WAIT_S if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                super().exception(min(left, _LONGEST_WAIT_S))
            except concurrent.futures.TimeoutError:
                if deadline is not None and time.monotonic() >= deadline and not self.done():
                    raise self._timeout_error(timeout) from None
            except concurrent.futures.CancelledError:
                break
        if self.phases.fetched is None:
            self.phases.fetched = self._clock()
        if self._on_read is not None:
            self._on_read()

    def _cancel_running(self) -> bool:
        """Become cancelled although it was begun; False if it is complete."""
        with self._condition:
            running = self._state == "RUNNING"
            if running:
                self._state = "PENDING"
        # Another thread may complete it here.
        if not (running and super().cancel()):
            return False
        self.set_running_or_notify_cancel()
        return True

    def _waits_for(self) -> str:
        if not self.running():
            return "its turn to be sent"
        return "the server to accept it" if self._request_id is None else "the server to finish it"

    def _timeout_error(self, timeout: float | None) -> ResultTimeoutError:
        reason = f" ({self.queue_state_reason})" if self.queue_state_reason else ""
        return ResultTimeoutError(
            f"{self.operation} has no result after waiting {timeout:g} s, {self.elapsed:.1f} s since the "
            f"call; it waits for {self._waits_for()}; queue state: {self.queue_state}{reason}. The operation "
            "goes on: call result() again to go on waiting",
            request_id=self._request_id,
        )

    def __repr__(self) -> str:
        """Show where the operation is, in one line."""
        name = f", request id {self._request_id}" if self._request_id else ""
        return f"<APIFuture {self.operation}: {self._describe()}, {self.elapsed:.2f} s{name}>"[:_REPR_LIMIT]

    def _describe(self) -> str:
        if self.cancelled():
            return "cancelled"
        if not self.done():
            return f"waits for {self._waits_for()} (queue {self.queue_state})"
        error = super().exception(0)
        return "done" if error is None else f"failed with {type(error).__name__}"

    def __del__(self) -> None:
        """Say so if nobody ever asked how a failed operation went."""
        if hasattr(self, "_quiet"):
            report_unread([self])


def finished(operation: str, value: T) -> APIFuture[T]:
    """Return a future that is done."""
    promise: Promise[T] = Promise(operation)
    promise.start()
    promise.resolve(value)
    return promise.future


def failed(operation: str, error: BaseException) -> APIFuture[Any]:
    """Return a future that has failed."""
    promise: Promise[Any] = Promise(operation)
    promise.start()
    promise.fail(error)
    return promise.future


def follow(future: APIFuture[T], other: concurrent.futures.Future[T]) -> None:
    """Let a future that nobody else completes end as another one does: with its result, its error, or cancelled."""

    def copy(done: concurrent.futures.Future[T]) -> None:
        future.phases.ready = future._clock()
        if done.cancelled():
            concurrent.futures.Future.cancel(future)
            future.set_running_or_notify_cancel()
            return
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(error)

    other.add_done_callback(copy)


# A failure that only repeats another one, or the user's own closing, needs no alarm.
_NO_ALARM = (PipelineBrokenError, ClientClosedError)


def report_unread(futures: Iterable[APIFuture[Any]]) -> None:
    """Log each failure that nobody has read, once."""
    for future in futures:
        error = future._exception
        if error is None or future._quiet or future.phases.fetched is not None or isinstance(error, _NO_ALARM):
            continue
        future._quiet = True
        # Not ``exc_info``: this may run while the interpreter is ending, and the error says where it belongs.
        logger.error("%s failed, and its result was never read: %s: %s", future.operation, type(error).__name__, error)


class Promise(Generic[T]):
    """The writing end of an :class:`APIFuture`; held by the pipeline only.

    No method but :meth:`start` may be called with a lock held: observers and the callbacks of the future are
    foreign code.
    """

    __slots__ = ("_context", "_observers", "_started", "future")

    def __init__(
        self,
        operation: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        observers: Iterable[Observer] = (),
        context: contextvars.Context | None = None,
    ) -> None:
        """Make the promise and its future, and tell the observers that the call was made."""
        self.future: APIFuture[T] = APIFuture(operation, clock=clock)
        self._observers = observers
        self._context = context
        self._started: bool | None = None
        self._tell("submitted")

    def start(self) -> bool:
        """Take it from the queue; from here on it cannot be cancelled.

        Call it with the lock of the queue held; a second call repeats the answer of the first. It runs no
        foreign code.

        Returns:
            False if the user has cancelled it; then call :meth:`cancelled`.
        """
        if self._started is None:
            self._started = self.future.set_running_or_notify_cancel()
        return self._started

    def run(self, work: Callable[[P], None], job: P) -> None:
        """Do the work of the operation, in the context of its caller where that was kept."""
        if self._context is None:
            work(job)
        else:
            # A copy, because what is sent again may begin on another thread before this one has left.
            self._context.copy().run(work, job)

    def cancelled(self) -> None:
        """Tell the observers that it was cancelled before it was sent."""
        self.future._withdraw = None
        self._tell("cancelled")

    def withdrawable(self, withdraw: Callable[[], bool]) -> None:
        """Say how it can be taken back once it was begun; ``withdraw`` returns False if it is too late for that."""
        self.future._withdraw = withdraw

    def withdraw(self) -> bool:
        """Cancel what was begun; False if it is complete."""
        self.future._withdraw = None
        withdrawn = self.future._cancel_running()
        if withdrawn:
            self._tell("cancelled")
        return withdrawn

    def resubmit(self, reason: str) -> None:
        """Record that the operation will be sent again, under another name."""
        self.future._withdraw = self.future._request_id = None
        self.queue("unknown", reason)

    def accept(self, request_id: str) -> None:
        """Record that the server has the operation, under this name; the first chunk names it."""
        if self.future._request_id is None:
            self.future._request_id = request_id
            self.future.phases.accepted = self.future._clock()
            self._tell("accepted")

    def queue(self, state: str, reason: str | None) -> None:
        """Record the server's word on its queue; observers hear of changes only."""
        if self.future._queue != (state, reason):
            self.future._queue = (state, reason)
            self._tell("queue_state")

    def resolve(self, value: T) -> bool:
        """Complete the future with a result; False if it was complete already."""
        return self._complete(self.future.set_result, value, "ready", None)

    def fail(self, error: BaseException, *, own: bool = False, on_read: Callable[[], object] | None = None) -> bool:
        """Complete the future with an error; False if it was complete already.

        Args:
            error: What went wrong. An exception that is no ``TinkexError`` becomes the cause of an UnexpectedError.
            own: It comes from code of the user, who gets it as it is.
            on_read: Called whenever somebody reads the error.
        """
        error = error if own else UnexpectedError.of(error)
        if on_read is not None:
            self.future._on_read = on_read
        if isinstance(error, OperationError):
            error.operation = error.operation or self.future.operation
        if isinstance(error, TinkexError):
            error.request_id = error.request_id or self.future._request_id
        return self._complete(self.future.set_exception, error, "failed", error)

    def fail_after_fork(self, error: BaseException) -> None:
        """Fail in a child process: locks may be held for ever, and the callbacks are the parent's."""
        future = self.future
        vars(future).update(_condition=threading.Condition(), _waiters=[], _done_callbacks=[])
        self._observers = ()
        if not future.done():
            self.fail(error)
        future._quiet = True

    def _complete(
        self,
        write: Callable[[Any], None],
        value: Any,
        phase: Literal["ready", "failed"],
        error: BaseException | None,
    ) -> bool:
        phases = self.future.phases
        self.future._withdraw = None
        before, phases.ready = phases.ready, self.future._clock()
        try:
            write(value)
        except concurrent.futures.InvalidStateError:
            phases.ready = phases.ready if before is None else before
            return False
        except BaseException:
            # A callback raised something like SystemExit. The future is complete; the thread has others to
            # serve.
            logger.exception("a callback of %s failed", self.future.operation)
        self._tell(phase, error)
        return True

    def _tell(
        self,
        phase: Literal["submitted", "accepted", "queue_state", "ready", "failed", "cancelled"],
        error: BaseException | None = None,
    ) -> None:
        if not self._observers:
            return
        future = self.future
        change = PhaseChange(
            operation=future.operation,
            phase=phase,
            request_id=future._request_id,
            elapsed=future.elapsed,
            queue_state=future.queue_state,
            queue_state_reason=future.queue_state_reason,
            error=error,
            accepted_after=future.phases.accepting_s,
        )
        for observer in self._observers:
            try:
                observer(change)
            except Exception:
                logger.exception("an observer failed")
