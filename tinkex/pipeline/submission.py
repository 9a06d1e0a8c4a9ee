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

import logging
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
    RequestFailedError,
    UnexpectedError,
)
from tinkex.pipeline.flow import ByteBudget
from tinkex.pipeline.futures import APIFuture
from tinkex.pipeline.keeper import Part, PromiseKeeper, Wiring, is_refusal
from tinkex.pipeline.operation import Operation
from tinkex.pipeline.poller import Poller, Watched
from tinkex.pipeline.process import ExitDeadline, renewed
from tinkex.pipeline.state import Failure, Failures, PipelineState, named
from tinkex.pipeline.uploads import Sent, Uploads, all_sent, is_too_large

__all__ = ["Submission"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_UP_S = 1.0
# Sent side by side, all but the first: of two there is nothing to gain.
_FEW = 2


class _StoppedError(Exception):
    """The pipeline broke or closed between the requests of an operation."""


@attrs.define(kw_only=True, slots=True, eq=False)
class _Chunk(Watched):
    """One accepted request of an operation."""

    pipeline: Submission
    operation: Operation
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
        uploads: int | Callable[[], int] = 1,
        wiring: Wiring | None = None,
    ) -> None:
        """Make an OPEN pipeline; its thread starts with the first operation.

        Args:
            name: The model; its thread is called ``tinkex-submit-<name>``.
            poller: Finds out the results.
            budget: Bytes that may be queued or being sent at once; may be shared between pipelines.
            first_seq_id: Number of the first request.
            uploads: Requests of one operation that may be sent at once; or tells how many may be now.
            wiring: Clock, executor (of one thread) and observers.
        """
        super().__init__(name, threads=1, thread_name=f"tinkex-submit-{name}", wiring=wiring)
        self._poller = poller
        self._budget = budget
        self._uploads = Uploads(name, uploads, self._clock)
        # guarded by _lock
        self._queue: deque[Operation] = deque()
        self._next = first_seq_id
        self._failures = Failures()
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
        return PipelineState.BROKEN if self._failures.governing else PipelineState.OPEN

    @property
    def next_seq_id(self) -> int:
        """The number that the next request will have."""
        return self._next

    def submit(
        self, operation: str, parts: Sequence[Part], combine: Callable[[list[Any]], T], *, read_only: bool = False
    ) -> APIFuture[T]:
        """Queue an operation of one or more requests.

        The requests get consecutive numbers. Of three or more, all but the first may be sent at once, and then the
        first; see ``uploads``. Else they are sent one after the other.

        Args:
            operation: Name of the method, such as ``forward_backward``.
            parts: The requests, at least one.
            combine: Makes the result of the operation from the results of the requests, in order. Runs on a
                thread of the poller; if it raises, the operation has failed.
            read_only: It cannot change the model, so its failure is its own.

        Returns:
            The future of the result.

        Raises:
            PipelineBrokenError: An earlier operation failed and the program did not know of it, or it is not certain
                what the server has done. The failure is the ``__cause__``.
            ClientClosedError: The pipeline was closed, or belongs to another process.
            FlowControlError: The requests exceed the whole byte budget.
        """
        return self._enqueue(operation, parts, combine, read_only=read_only)

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
            between: Makes the requests of the second half; runs on the worker. What it raises is the failure of the
                operation, as it is.
            combine: Makes the result from the results of the second half.

        Returns:
            The future of the result.

        Raises:
            TinkexError: As for :meth:`submit`.
        """
        return self._enqueue(operation, parts, combine, between=between)

    def check(self) -> None:
        """Raise what :meth:`submit` would raise now, before any work is spent on preparing a request.

        Whoever gets a failure from here knows of it.
        """
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
        """Go on after a failure, whether the program knows of it or not. Does nothing if the pipeline is OPEN.

        The server may hold gradients of operations that were done before the failure.

        Raises:
            PipelineBrokenError: Operations are still in flight, or it is not certain which numbers the server
                has used.
            ClientClosedError: The pipeline was closed.
        """
        with self._lock:
            if self._closed is not None:
                raise renewed(self._closed)
            obstacle = self._obstacle_locked()
            if self._failures.governing and obstacle is not None:
                raise self._failures.tell(self.name, obstacle)
            self._failures.end()

    # --- the caller's side ----------------------------------------------------------------------------------

    def _enqueue(
        self,
        name: str,
        parts: Sequence[Part],
        combine: Callable[[list[Any]], Any],
        **kind: Any,
    ) -> APIFuture[Any]:
        if not parts:
            raise InvalidInputError("an operation needs at least one request", field="parts")
        self.check()
        self._poller.start()
        self._take_budget(sum(part.size for part in parts))
        promise = self._promise(name)
        operation = Operation(promise, parts, combine, **kind)
        with self._lock:
            error = self._refusal_locked(new=True)
            starts = error is None and not self._working
            over = self._failures.end() if error is None else []
            if error is None:
                self._kept[promise] = None
                self._queue.append(operation)
                self._working = True
        if error is not None:
            self._budget.release(operation.charge)
            promise.fail(error)
            raise error
        if over:
            logger.warning("%s goes on after %s; what was submitted behind it was not done", self.name, named(over))
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
        except LifecycleError as error:
            raise self._why_sent_away(error) from None

    def _why_sent_away(self, error: LifecycleError) -> LifecycleError:
        """Return why a blocked call was refused: the pipeline was closed, or it broke, though that may be over."""
        with self._lock:
            failure = self._failures.latest
            if self._closed is not None or failure is None:
                return error
            failure.tell()
            return failure.broken(self.name)

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
        failures, obstacle = self._failures, self._obstacle_locked()
        if not failures.governing or (new and obstacle is None and failures.were_told()):
            return None
        return failures.tell(self.name, obstacle) if new else failures.governing[0].broken(self.name)

    def _raise_if_refusing_locked(self) -> None:
        error = self._refusal_locked(new=True)
        if error is not None:
            raise error
        if self._in_loss and self._worker == threading.get_ident():
            raise LifecycleError(
                f"a loss function cannot call {self.name}: the call would have to wait for the loss itself; "
                "compute what it needs before, or with another client"
            )

    def _obstacle_locked(self) -> str | None:
        return self._failures.obstacle(unsettled=self._sending or self._in_flight > 0)

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

    def _take(self) -> Operation | None:
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

    def _run(self, operation: Operation) -> None:
        try:
            done = self._send(operation) and (operation.between is None or self._run_second_half(operation))
            if not done and not operation.doomed:
                with self._lock:
                    error = self._refusal_locked(new=False) or ExitDeadline.error()
                self._fail(operation.promise, error)
        except BaseException as error:
            self._fail_operation(operation, error, certain=is_refusal(error))
            if not isinstance(error, Exception):
                raise
        finally:
            operation.parts.clear()
            self._budget.release(operation.charge)

    def _send(self, operation: Operation) -> bool:
        """Send the requests; False if the pipeline broke or closed in between."""
        if self._uploads.threads > 1 and len(operation.parts) > _FEW:
            return self._send_side_by_side(operation)
        return self._send_in_turn(operation)

    def _send_in_turn(self, operation: Operation) -> bool:
        index = 0
        while operation.parts:
            seq_id = self._claim(operation)
            if seq_id is None:
                return False
            part = operation.parts.popleft()
            try:
                sent = self._uploads.send(part, seq_id)
            except BaseException as error:
                halves = part.halve() if part.halve is not None and is_too_large(error) else ()
                with self._lock:
                    self._sending = False
                    operation.replace(index, halves)
                if not halves:
                    raise
                continue
            if not self._count_accepted(seq_id + 1, 1):
                return False
            self._accept(operation, part, index, sent)
            index += 1
        return True

    def _send_side_by_side(self, operation: Operation) -> bool:
        """Send all requests but the first, and when they are accepted the first; as :meth:`_send` otherwise."""
        seq_id = self._claim(operation)
        if seq_id is None:
            return False
        parts = tuple(operation.parts)
        outcomes: list[Sent | BaseException] = []
        try:
            outcomes = self._uploads.send_all(parts[1:], seq_id + 1)
            sent = all_sent(outcomes)
            if self._claim(operation) is None:
                raise _StoppedError
            sent.insert(0, self._uploads.send(parts[0], seq_id))
        except BaseException as error:
            # Else there are numbers behind a gap: the server waits for the first, and no other operation can have it.
            untouched = bool(outcomes) and all(is_refusal(outcome) for outcome in outcomes)
            with self._lock:
                self._sending = False
                self._failures.uncertain = self._failures.uncertain or not untouched
            if untouched and is_too_large(error):
                return self._send_in_turn(operation)
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

    def _accept(self, operation: Operation, part: Part, index: int, sent: Sent) -> None:
        self._budget.release(part.size)
        operation.charge -= part.size
        operation.promise.accept(sent.request_id)
        self._watch(operation, part, index, sent)

    def _claim(self, operation: Operation) -> int | None:
        """Return the number of the next request, or None if nothing may be sent any more."""
        with self._lock:
            if operation.doomed or self._refusal_locked(new=False) is not None:
                return None
            self._sending = True
            return self._next

    def _watch(self, operation: Operation, part: Part, index: int, sent: Sent) -> None:
        self._poller.watch(
            _Chunk(
                request_id=sent.request_id,
                request_type=part.request_type,
                lane=self,
                decode=part.decode,
                ask=sent.ask,
                submit_s=sent.submit_s,
                patience=self._patience,
                pipeline=self,
                operation=operation,
                index=index,
            )
        )

    def _run_second_half(self, operation: Operation) -> bool:
        """Wait for the first half, call the user's loss and send what it returns."""
        between = operation.between
        if between is None or not self._await_first_half(operation):
            return False
        self._in_loss = True
        try:
            parts = list(between(operation.results))
        except BaseException as error:
            # Nothing is half-sent, and the loss is code of the user.
            self._fail_operation(operation, error, certain=True, own=True)
            if not isinstance(error, Exception):
                raise
            return False
        finally:
            self._in_loss = False
        self._budget.take(sum(part.size for part in parts))
        with self._lock:
            operation.between = None
            operation.load(parts)
        if not parts:
            self._finish(operation)
        return self._send(operation)

    def _await_first_half(self, operation: Operation) -> bool:
        with self._lock:
            while not operation.doomed and self._refusal_locked(new=False) is None:
                if operation.left == 0:
                    return True
                if self._exit.over():
                    return False
                # Woken by results and failures; the timeout is for noticing the end of the program.
                self._changed.wait(_LOOK_UP_S)
            return False

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
        operation = chunk.operation
        # The server has used the number. What became of the model is another matter.
        certain = operation.read_only or isinstance(error, RequestFailedError)
        self._fail_operation(operation, error, certain=certain, settled=1)

    def _finish(self, operation: Operation) -> None:
        try:
            value = operation.combine(operation.results)
        except BaseException as error:
            # The server has done it, so its numbers are certain.
            self._fail_operation(operation, error, certain=True)
            if not isinstance(error, Exception):
                raise
            return
        self._resolve(operation.promise, value)

    # --- failing --------------------------------------------------------------------------------------------

    def _fail_operation(
        self, operation: Operation, error: BaseException, *, certain: bool, own: bool = False, settled: int = 0
    ) -> None:
        """Fail an operation. One that may have changed the model, or left its number uncertain, breaks the pipeline.

        It breaks first, so that no reaction to the failure slips through.

        Args:
            operation: What failed.
            error: Why.
            certain: It is known which numbers the server has used.
            own: The error comes from code of the user.
            settled: Requests in flight whose outcome this is.
        """
        if not own:
            error = UnexpectedError.of(error)
        failure = Failure(error, operation.name, operation.promise.future.request_id)
        with self._lock:
            self._in_flight -= settled
            # Of an operation that has failed before, the program hears the first error only.
            repeated, operation.doomed = operation.doomed, True
            certain = certain and not self._failures.uncertain
            breaks = not certain or not (operation.read_only or repeated)
            queued = self._break_locked(failure, certain=certain) if breaks else []
            self._changed.notify_all()
        if not repeated:
            self._fail(operation.promise, error, own=own, on_read=failure.tell)
        if breaks:
            self._refuse(queued, failure)
            self._wake_callers()

    def _break_locked(self, failure: Failure, *, certain: bool) -> list[tuple[Operation, bool]]:
        """Become BROKEN, and return what was queued; the caller refuses it."""
        self._failures.add(failure, certain=certain)
        self._changed.notify_all()
        return self._take_all_locked()

    def _take_all_locked(self) -> list[tuple[Operation, bool]]:
        """Empty the queue; return each operation, and False for one that was cancelled."""
        queued = [(operation, operation.promise.start()) for operation in self._queue]
        self._queue.clear()
        return queued

    def _refuse(self, queued: list[tuple[Operation, bool]], failure: Failure) -> None:
        for operation, started in queued:
            self._budget.release(operation.charge)
            self._end(operation.promise, failure.broken(self.name) if started else None, on_read=failure.tell)

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
