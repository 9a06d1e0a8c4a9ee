"""Samples: independent operations, submitted by a few threads, in no order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs
from typing_extensions import override

from tinkex.errors import ClientClosedError, FutureExpiredError, RateLimitError
from tinkex.pipeline.flow import SampleGate
from tinkex.pipeline.futures import APIFuture, Promise
from tinkex.pipeline.keeper import Part, Wiring
from tinkex.pipeline.poller import Poller, Watched
from tinkex.pipeline.pool import Job, Pool
from tinkex.pipeline.process import renewed

__all__ = ["SampleDispatcher"]

T = TypeVar("T")


class _Sample(Job):
    __slots__ = ("again", "finish", "numbers", "part")

    def __init__(
        self, promise: Promise[Any], part: Part, numbers: Iterator[int], finish: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(promise)
        self.part = part
        self.again = part.again
        self.numbers = numbers
        self.finish = finish


@attrs.define(kw_only=True, slots=True, eq=False)
class _Drawn(Watched):
    """One accepted sample."""

    dispatcher: SampleDispatcher
    job: _Sample

    @override
    def on_pending(self, queue_state: str, reason: str | None) -> None:
        self.job.promise.queue(queue_state, reason)

    @override
    def on_ready(self, value: Any) -> None:
        job = self.job
        if job.part.herald is not None:
            job.part.herald.fetched(self.request_id)
        try:
            value = value if job.finish is None else job.finish(value)
        except BaseException as error:
            self.on_failed(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.dispatcher._resolve(job.promise, value)

    @override
    def on_failed(self, error: BaseException) -> None:
        herald = self.job.part.herald
        if herald is not None:
            herald.forget(self.request_id)
        if not (isinstance(error, FutureExpiredError) and self.dispatcher._send_again(self.job)):
            self.dispatcher._fail(self.job.promise, error)

    def withdraw(self) -> bool:
        """Give up the sample; False if its outcome is known already."""
        return self.dispatcher._withdraw(self)


class SampleDispatcher(Pool[_Sample]):
    """Submits independent operations. Public methods are thread-safe.

    One dispatcher serves all sampling clients of a session. A thread ``tinkex-sample`` is held while a sample
    is submitted, not while it is in flight, so the number of threads depends on ``max_threads`` alone. A call
    never blocks; what cannot be sent yet waits in a queue, from which it can be cancelled. A failure concerns
    its own future only.
    """

    def __init__(
        self,
        name: str,
        poller: Poller,
        *,
        gate: SampleGate,
        max_threads: int = 16,
        wiring: Wiring | None = None,
    ) -> None:
        """Make a dispatcher; threads start as they are needed.

        Args:
            name: What messages call it, such as ``"the session"``.
            poller: Finds out the results.
            gate: Admits samples to the server.
            max_threads: Samples that may be being submitted at once.
            wiring: Clock, executor and observers.
        """
        super().__init__(name, max_threads=max_threads, thread_name="tinkex-sample", wiring=wiring)
        self._poller = poller
        self._gate = gate

    def submit(
        self, operation: str, part: Part, numbers: Iterator[int], finish: Callable[[Any], T] | None = None
    ) -> APIFuture[T]:
        """Queue a sample.

        Args:
            operation: Name of the method, such as ``sample``.
            part: The request. Its ``send`` must not repeat a 429 itself: a 429 pauses all samples of the
                gate, and then the same request is sent again with the same number.
            numbers: Where the sampling client takes its sequence numbers from, such as ``itertools.count()``;
                the next one is taken just before sending.
            finish: Makes the result of the operation from that of the request; runs on a thread of the
                poller.

        Returns:
            The future of the result.

        Raises:
            ClientClosedError: The dispatcher was closed, or belongs to another process.
        """
        self.check()
        self._poller.start()
        return self._enqueue(_Sample(self._promise(operation), part, numbers, finish))

    @override
    def _run(self, job: _Sample) -> None:
        part, gate = job.part, self._gate
        seq_id: int | None = None
        while True:
            charge = gate.enter(part.size, owner=self, give_up=self._exit.over)
            if charge is None or self._exit.over():
                self._give_up_at_exit()
            if charge is None:
                return
            accepted = False
            try:
                if seq_id is None and not self._begin(job):
                    return
                seq_id = self._number(job) if seq_id is None else seq_id
                self._send(job, seq_id)
                accepted = True
                return
            except RateLimitError as error:
                if not error.retryable:
                    raise
                gate.throttle(part.size, error.retry_after)
            finally:
                gate.leave(charge, accepted=accepted)

    def _number(self, job: _Sample) -> int:
        with self._lock:
            return next(job.numbers)

    def _send(self, job: _Sample, seq_id: int) -> None:
        started = self._clock()
        request_id = job.part.send(seq_id)
        self._watch(job, request_id, self._clock() - started)

    def _watch(self, job: _Sample, request_id: str, submit_s: float) -> None:
        with self._lock:
            if self._dropping:
                return
        part = job.part
        drawn = _Drawn(
            request_id=request_id,
            request_type=part.request_type,
            decode=part.decode,
            submit_s=submit_s,
            patience=part.patience or self._patience,
            dispatcher=self,
            job=job,
        )
        job.promise.accept(request_id, None if part.withdraw is None else drawn.withdraw)
        self._poller.watch(drawn, parked=part.herald is not None)
        if part.herald is not None:
            part.herald.expect(drawn)

    def _send_again(self, job: _Sample) -> bool:
        """Send a sample once more whose result is lost; False if that was done often enough."""
        if job.again == 0:
            return False
        job.again -= 1
        job.promise.resubmit("the server has lost the result, so it is drawn again")
        return self._enqueue_again(job)

    def _withdraw(self, drawn: _Drawn) -> bool:
        if not self._poller.drop(drawn):
            return False
        part = drawn.job.part
        if part.herald is not None:
            part.herald.forget(drawn.request_id)
        drawn.job.promise.withdrawn()
        self._drop(drawn.job.promise)
        if part.withdraw is not None:
            part.withdraw(drawn.request_id)
        return True

    @override
    def _abandon(self, error: ClientClosedError) -> None:
        super()._abandon(error)
        self._gate.send_away(self, renewed(error))

    @override
    def _on_own_thread(self) -> bool:
        return super()._on_own_thread() or self._poller.on_own_thread()
