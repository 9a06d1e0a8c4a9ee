"""The operations of one model, sent in order by one worker.

::

    caller                     worker (one thread)                       poller
    submit(...) --- queue ---> take it (skip if cancelled)
                               number it, send it, get a request id ---> watch, in order
                                                                         result: combine, complete the future
                               <--- BROKEN, then fail the future ------- failure

A number is taken on the worker, just before the request is sent, and advances when the server has accepted
it. So an operation that was cancelled or refused leaves no gap for the server to wait at.

Where the server allows it, the requests of a large operation are sent side by side, all but the first, and the first
when the others have been accepted: the server waits for it, and then has the whole operation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
from typing_extensions import override

from tinkex.errors import (
    ClientClosedError,
    InvalidInputError,
    LifecycleError,
    PipelineBrokenError,
    RequestFailedError,
)
from tinkex.pipeline.flow import ByteBudget
from tinkex.pipeline.futures import APIFuture, Promise
from tinkex.pipeline.keeper import Part, PromiseKeeper, Wiring, is_refusal
from tinkex.pipeline.poller import Poller, Watched
from tinkex.pipeline.process import ExitDeadline, renewed
from tinkex.pipeline.state import Failure, PipelineState
from tinkex.pipeline.uploads import Sent, Uploads

__all__ = ["Submission"]

T = TypeVar("T")

_LOOK_UP_S = 1.0
# Sent side by side, all but the first: of two there is nothing to gain.
_FEW = 2


class _StoppedError(Exception):
    """The pipeline broke or closed between the requests of an operation."""


class _Operation:
    """One call: the requests still to be sent, and the results that have come."""

    __slots__ = ("between", "charge", "combine", "doomed", "left", "parts", "promise", "results")

    def __init__(
        self,
        promise: Promise[Any],
        parts: Sequence[Part],
        combine: Callable[[list[Any]], Any],
        between: Callable[[list[Any]], Sequence[Part]] | None,
    ) -> None:
        self.promise = promise
        self.combine = combine
        self.between = between
        self.doomed = False  # its failure is known, and whoever knows completes the future
        self.charge = 0
        self.load(parts)

    def load(self, parts: Sequence[Part]) -> None:
        """Take on the requests of the next stage."""
        self.parts = deque(parts)
        self.results: list[Any] = [None] * len(parts)
        self.left = len(parts)
        self.charge += sum(part.size for part in parts)

    @property
    def name(self) -> str:
        return self.promise.future.operation


@attrs.define(kw_only=True, slots=True, eq=False)
class _Chunk(Watched):
    """One accepted request of an operation."""

    pipeline: Submission
    operation: _Operation
    index: int

    @override
    def on_pending(self, queue_state: str, reason: str | None) -> None:
        self.operation.promise.queue(queue_state, reason)

    @override
    def on_ready(self, value: Any) -> None:
        self.pipeline._chunk_ready(self, value)

    @override
    def on_failed(self, error: BaseException) -> None:
        self.pipeline._chunk_failed(self, error)


class Submission(PromiseKeeper):
    """Sends the operations of one model in order. Public methods are thread-safe.

    A call blocks only while the byte budget is used up. Its future is completed by the poller, in the order
    of the calls.
    """

    def __init__(
        self,
        name: str,
        poller: Poller,
        *,
        budget: ByteBudget,
        first_seq_id: int = 1,
        uploads: int = 1,
        wiring: Wiring | None = None,
    ) -> None:
        """Make an OPEN pipeline; its thread starts with the first operation.

        Args:
            name: The model; its thread is called ``tinkex-submit-<name>``.
            poller: Finds out the results.
            budget: Bytes that may be queued or being sent at once; may be shared between pipelines.
            first_seq_id: Number of the first request.
            uploads: Requests of one operation that may be sent at once.
            wiring: Clock, executor (of one thread) and observers.
        """
        super().__init__(name, threads=1, thread_name=f"tinkex-submit-{name}", wiring=wiring)
        self._poller = poller
        self._budget = budget
        self._uploads = Uploads(name, uploads, self._clock)
        # guarded by _lock
        self._queue: deque[_Operation] = deque()
        self._next = first_seq_id
        self._failure: Failure | None = None
        self._doubt = False  # it is not certain which numbers the server has used
        self._sending = False
        self._in_flight = 0  # accepted requests whose outcome is not known
        self._working = False  # the worker runs or is about to
        # written by the worker only
        self._worker: int | None = None
        self._in_loss = False

    # --- public ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> PipelineState:
        """What the pipeline does with operations now."""
        if self._closed is not None:
            return PipelineState.CLOSED
        return PipelineState.OPEN if self._failure is None else PipelineState.BROKEN

    @property
    def next_seq_id(self) -> int:
        """The number that the next request will have."""
        return self._next

    def submit(self, operation: str, parts: Sequence[Part], combine: Callable[[list[Any]], T]) -> APIFuture[T]:
        """Queue an operation of one or more requests.

        The requests get consecutive numbers. Of three or more, all but the first may be sent at once, and then the
        first; see ``uploads``. Else they are sent one after the other.

        Args:
            operation: Name of the method, such as ``forward_backward``.
            parts: The requests, at least one.
            combine: Makes the result of the operation from the results of the requests, in order. Runs on a
                thread of the poller; if it raises, the operation has failed.

        Returns:
            The future of the result.

        Raises:
            PipelineBrokenError: An earlier operation failed; it is the ``__cause__``.
            ClientClosedError: The pipeline was closed, or belongs to another process.
            FlowControlError: The requests exceed the whole byte budget.
        """
        return self._enqueue(operation, parts, combine, None)

    def submit_staged(
        self,
        operation: str,
        parts: Sequence[Part],
        between: Callable[[list[Any]], Sequence[Part]],
        combine: Callable[[list[Any]], T],
    ) -> APIFuture[T]:
        """Queue an operation whose second half depends on the results of the first, as a custom loss does.

        The worker sends ``parts``, waits for their results, calls ``between`` with them and sends what it
        returns. Nothing overtakes it, and the numbers are contiguous.

        Args:
            operation: Name of the method.
            parts: The requests of the first half.
            between: Makes the requests of the second half; runs on the worker. If it raises, the operation
                and what is queued behind it fail, and the pipeline stays open: nothing was half-sent.
            combine: Makes the result from the results of the second half.

        Returns:
            The future of the result.

        Raises:
            TinkexError: As for :meth:`submit`.
        """
        return self._enqueue(operation, parts, combine, between)

    def check(self) -> None:
        """Raise what :meth:`submit` would raise now, before any work is spent on preparing a request."""
        with self._lock:
            self._raise_if_refusing_locked()

    def break_(self, error: BaseException, operation: str, request_id: str | None = None) -> None:
        """Break the pipeline from outside, because the session has ended for instance; cannot be reopened."""
        failure = Failure(error, operation, request_id)
        with self._lock:
            queued = self._break_locked(failure, certain=False)
        self._refuse(queued, failure)
        self._wake_callers()

    def reopen(self) -> None:
        """Go on after a failure: BROKEN -> OPEN. Does nothing if the pipeline is OPEN.

        The server may hold gradients of operations that were done before the failure.

        Raises:
            PipelineBrokenError: Operations are still in flight, or it is not certain which numbers the server
                has used.
            ClientClosedError: The pipeline was closed.
        """
        with self._lock:
            if self._closed is not None:
                raise renewed(self._closed)
            if self._failure is None:
                return
            obstacle = self._obstacle_locked()
            if obstacle is not None:
                raise self._broken_error(self._failure, obstacle)
            self._failure = None

    # --- the caller's side ----------------------------------------------------------------------------------

    def _enqueue(
        self,
        name: str,
        parts: Sequence[Part],
        combine: Callable[[list[Any]], Any],
        between: Callable[[list[Any]], Sequence[Part]] | None,
    ) -> APIFuture[Any]:
        if not parts:
            raise InvalidInputError("an operation needs at least one request", field="parts")
        self.check()
        self._poller.start()
        self._take_budget(sum(part.size for part in parts))
        promise = self._promise(name)
        operation = _Operation(promise, parts, combine, between)
        with self._lock:
            error = self._refusal_locked(new=True)
            starts = error is None and not self._working
            if error is None:
                self._kept[promise] = None
                self._queue.append(operation)
                self._working = True
        if error is not None:
            self._budget.release(operation.charge)
            promise.fail(error)
            raise error
        if starts:
            self._start_worker()
        return promise.future

    def _take_budget(self, size: int) -> None:
        if self._on_own_thread():
            # A callback: what it would wait for is freed by the worker, which may be waiting for this thread.
            self._budget.take(size)
            return
        try:
            self._budget.acquire(size, owner=self)
        except LifecycleError:
            self.check()  # sent away by a failure or by close
            raise

    def _start_worker(self) -> None:
        try:
            self._executor.submit(self._work)
        except RuntimeError as error:
            with self._lock:
                self._working = False
            self._give_up_at_exit()
            raise ExitDeadline.error() from error

    def _refusal_locked(self, *, new: bool) -> LifecycleError | None:
        """Return why an operation cannot be taken (``new``) or sent, or None."""
        if self._closed is not None and (new or self._dropping):
            return renewed(self._closed)
        if self._failure is not None:
            return self._broken_error(self._failure)
        return None

    def _raise_if_refusing_locked(self) -> None:
        error = self._refusal_locked(new=True)
        if error is not None:
            raise error
        if self._in_loss and self._worker == threading.get_ident():
            raise LifecycleError(
                f"a loss function cannot call {self.name}: the call would have to wait for the loss itself; "
                "compute what it needs before, or with another client"
            )

    def _broken_error(self, failure: Failure, obstacle: str | None = None) -> PipelineBrokenError:
        consequence = (
            f"and {self.name} cannot be reopened: {obstacle}"
            if obstacle
            else "so this one was given up; reopen the client, or create a new one from the last checkpoint"
        )
        error = PipelineBrokenError(
            f"an earlier {failure.operation} of {self.name} failed ({failure.text}), {consequence}",
            operation=failure.operation,
            request_id=failure.request_id,
        )
        error.__cause__ = failure.error
        return error

    def _obstacle_locked(self) -> str | None:
        if self._doubt:
            return "the server may or may not have used its number; create a new client from the last checkpoint"
        if self._sending or self._in_flight:
            return "other operations are still in flight; wait for their futures and try again"
        return None

    # --- the worker -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._worker = threading.get_ident()
        try:
            while (operation := self._take()) is not None:
                operation.promise.run(self._run, operation)
        except BaseException as error:  # rule 3: no thread dies holding promises
            self.break_(error, "submission")
            with self._lock:
                self._rest_locked()
            raise

    def _rest_locked(self) -> None:
        self._working = False
        self._worker = None
        self._changed.notify_all()

    def _take(self) -> _Operation | None:
        """Take the next operation that is not cancelled; None if there is none, and the worker is at rest."""
        if self._exit.over():
            self._give_up_at_exit()
        while True:
            with self._lock:
                if not self._queue:
                    self._rest_locked()
                    return None
                operation = self._queue.popleft()
                started = operation.promise.start()
            if started:
                return operation
            self._budget.release(operation.charge)
            self._end(operation.promise, None)

    def _run(self, operation: _Operation) -> None:
        try:
            done = self._send(operation) and (operation.between is None or self._run_second_half(operation))
            if not done and not operation.doomed:
                with self._lock:
                    error = self._refusal_locked(new=False) or ExitDeadline.error()
                self._fail(operation.promise, error)
        except BaseException as error:
            self._break_with(operation, error, certain=is_refusal(error))
            if not isinstance(error, Exception):
                raise
        finally:
            operation.parts.clear()
            self._budget.release(operation.charge)

    def _send(self, operation: _Operation) -> bool:
        """Send the requests; False if the pipeline broke or closed in between."""
        if self._uploads.threads > 1 and len(operation.parts) > _FEW:
            return self._send_side_by_side(operation)
        for index in range(len(operation.parts)):
            seq_id = self._claim(operation)
            if seq_id is None:
                return False
            part = operation.parts.popleft()
            try:
                sent = self._uploads.send(part, seq_id)
            except BaseException:
                with self._lock:
                    self._sending = False
                raise
            if not self._count_accepted(seq_id + 1, 1):
                return False
            self._accept(operation, part, index, sent)
        return True

    def _send_side_by_side(self, operation: _Operation) -> bool:
        """Send all requests but the first, and when they are accepted the first; as :meth:`_send` otherwise."""
        seq_id = self._claim(operation)
        if seq_id is None:
            return False
        parts = tuple(operation.parts)
        try:
            sent = self._uploads.send_all(parts[1:], seq_id + 1)
            if self._claim(operation) is None:
                raise _StoppedError
            sent.insert(0, self._uploads.send(parts[0], seq_id))
        except BaseException as error:
            with self._lock:
                self._sending = False
                # Numbers behind a gap: the server waits for the first, and no other operation can have it.
                self._doubt = True
            if isinstance(error, _StoppedError):
                return False
            raise
        if not self._count_accepted(seq_id + len(parts), len(parts)):
            return False
        operation.parts.clear()
        for index, part in enumerate(parts):
            self._accept(operation, part, index, sent[index])
        return True

    def _count_accepted(self, next_seq_id: int, requests: int) -> bool:
        """Note what the server has; False if nobody wants to know of it any more."""
        with self._lock:
            self._sending = False
            self._next = next_seq_id
            if self._dropping:
                return False
            self._in_flight += requests
        return True

    def _accept(self, operation: _Operation, part: Part, index: int, sent: Sent) -> None:
        self._budget.release(part.size)
        operation.charge -= part.size
        operation.promise.accept(sent.request_id)
        self._watch(operation, part, index, sent)

    def _claim(self, operation: _Operation) -> int | None:
        """Return the number of the next request, or None if nothing may be sent any more."""
        with self._lock:
            if operation.doomed or self._refusal_locked(new=False) is not None:
                return None
            self._sending = True
            return self._next

    def _watch(self, operation: _Operation, part: Part, index: int, sent: Sent) -> None:
        self._poller.watch(
            _Chunk(
                request_id=sent.request_id,
                request_type=part.request_type,
                lane=self,
                decode=part.decode,
                submit_s=sent.submit_s,
                patience=self._patience,
                pipeline=self,
                operation=operation,
                index=index,
            )
        )

    def _run_second_half(self, operation: _Operation) -> bool:
        """Wait for the first half, call the user's loss and send what it returns."""
        between = operation.between
        if between is None or not self._await_first_half(operation):
            return False
        self._in_loss = True
        try:
            parts = list(between(operation.results))
        except BaseException as error:
            self._loss_failed(operation, error)
            if not isinstance(error, Exception):
                raise
            return True
        finally:
            self._in_loss = False
        self._budget.take(sum(part.size for part in parts))
        with self._lock:
            operation.between = None
            operation.load(parts)
        if not parts:
            self._finish(operation)
        return self._send(operation)

    def _await_first_half(self, operation: _Operation) -> bool:
        with self._lock:
            while not operation.doomed and self._refusal_locked(new=False) is None:
                if operation.left == 0:
                    return True
                if self._exit.over():
                    return False
                # Woken by results and failures; the timeout is for noticing the end of the program.
                self._changed.wait(_LOOK_UP_S)
            return False

    def _loss_failed(self, operation: _Operation, error: BaseException) -> None:
        """Fail the operation, and what was queued in the belief that it would be done."""
        failure = Failure(error, operation.name, operation.promise.future.request_id)
        with self._lock:
            queued = self._take_all_locked()
        self._fail(operation.promise, error)
        self._refuse(queued, failure)

    # --- the poller's side ----------------------------------------------------------------------------------

    def _chunk_ready(self, chunk: _Chunk, value: Any) -> None:
        operation = chunk.operation
        with self._lock:
            self._in_flight -= 1
            operation.results[chunk.index] = value
            operation.left -= 1
            complete = operation.left == 0
            first_half = operation.between is not None
            if first_half:
                self._changed.notify_all()
        if complete and not first_half:
            self._finish(operation)

    def _chunk_failed(self, chunk: _Chunk, error: BaseException) -> None:
        with self._lock:
            self._in_flight -= 1
        self._break_with(chunk.operation, error, certain=isinstance(error, RequestFailedError))

    def _finish(self, operation: _Operation) -> None:
        try:
            value = operation.combine(operation.results)
        except BaseException as error:
            # The server has done it, so its numbers are certain.
            self._break_with(operation, error, certain=True)
            if not isinstance(error, Exception):
                raise
            return
        self._resolve(operation.promise, value)

    # --- failing --------------------------------------------------------------------------------------------

    def _break_with(self, operation: _Operation, error: BaseException, *, certain: bool) -> None:
        """Break the pipeline, and only then fail the operation, so that no reaction to it slips through."""
        failure = Failure(error, operation.name, operation.promise.future.request_id)
        with self._lock:
            operation.doomed = True
            queued = self._break_locked(failure, certain=certain)
        self._fail(operation.promise, error)
        self._refuse(queued, failure)
        self._wake_callers()

    def _break_locked(self, failure: Failure, *, certain: bool) -> list[tuple[_Operation, bool]]:
        """Become BROKEN, and return what was queued; the caller refuses it."""
        self._doubt = self._doubt or not certain
        self._failure = self._failure or failure
        self._changed.notify_all()
        return self._take_all_locked()

    def _take_all_locked(self) -> list[tuple[_Operation, bool]]:
        """Empty the queue; return each operation, and False for one that was cancelled."""
        queued = [(operation, operation.promise.start()) for operation in self._queue]
        self._queue.clear()
        return queued

    def _refuse(self, queued: list[tuple[_Operation, bool]], failure: Failure) -> None:
        for operation, started in queued:
            self._budget.release(operation.charge)
            self._end(operation.promise, self._broken_error(failure) if started else None)

    @override
    def _abandon(self, error: ClientClosedError) -> None:
        with self._lock:
            self._dropping = True
            queued = self._take_all_locked()
        self._poller.forget(self)
        super()._abandon(error)
        for operation, _ in queued:
            self._budget.release(operation.charge)

    @override
    def _wake_callers(self) -> None:
        self._budget.send_away(self, ClientClosedError(f"{self.name} takes no more operations"))

    @override
    def _idle_locked(self) -> bool:
        return not self._working

    @override
    def _on_own_thread(self) -> bool:
        return self._worker == threading.get_ident() or self._poller.on_own_thread()
