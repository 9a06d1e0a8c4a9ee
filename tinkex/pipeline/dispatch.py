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
    """One attempt to draw a sample, from before it is sent.

    Attributes:
        dispatcher: Whose it is.
        job: What is drawn.
        seq_id: The number it is sent with; -1 as long as it waits in the queue.
        taken_back: Nobody wants it any more; guarded by the dispatcher.
        asked_for: The poller knows it, or knows its outcome already; guarded by the dispatcher.
    """

    request_id: str = ""
    dispatcher: SampleDispatcher
    job: _Sample
    seq_id: int = attrs.field(default=-1, init=False)
    taken_back: bool = attrs.field(default=False, init=False)
    asked_for: bool = attrs.field(default=False, init=False)

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
        self._unread = 0  # given up because nobody could read them any more; guarded by _lock

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
        return self._enqueue(_Sample(self._promise(operation, part.observer), part, numbers, finish))

    @override
    def _run(self, job: _Sample) -> None:
        gate, size = self._gate, job.part.size
        drawn = self._attempt(job)
        while True:
            charge = gate.enter(size, owner=self, give_up=lambda: self._exit.over() or self._is_unread(job))
            unread = self._is_unread(job)
            if unread:
                self._give_up_unread([job.promise])
            elif charge is None or self._exit.over():
                self._give_up_at_exit()
            if charge is None:
                return
            accepted = False
            try:
                if not unread and self._starts(drawn):
                    self._send(drawn)
                    accepted = True
                return
            except RateLimitError as error:
                if not error.retryable:
                    raise
                gate.throttle(size, error.retry_after)
            finally:
                gate.leave(charge, accepted=accepted)

    def give_up_unread(self) -> int:
        """Give up the samples under way that nobody can read any more, at the end of the program.

        Returns:
            How many have been given up, those included that were not sent for that reason.
        """
        with self._lock:
            kept = [promise for promise in self._kept if promise.future._withdraw is not None]
        self._give_up_unread([promise for promise in kept if not promise.future._has_callbacks])
        return self._unread

    def _is_unread(self, job: _Sample) -> bool:
        """Tell whether nobody can read a sample any more; what cannot be taken back is of use by being done."""
        return job.part.withdraw is not None and not job.promise.future._has_callbacks and self._exit.unread()

    def _give_up_unread(self, promises: list[Promise[Any]]) -> None:
        with self._lock:
            given_up = [(promise, promise.start()) for promise in promises if promise in self._kept]
            self._unread += sum(started for _, started in given_up)
        for promise, started in given_up:
            error = ClientClosedError("the program ended before anybody waited for this sample", reason="exit")
            self._end(promise, error if started else None)

    def _attempt(self, job: _Sample) -> _Drawn:
        """Get ready; from here on the future can be cancelled although it has begun, if the server can be told so."""
        part = job.part
        drawn = _Drawn(
            request_type=part.request_type,
            decode=part.decode,
            patience=part.patience or self._patience,
            dispatcher=self,
            job=job,
        )
        if part.withdraw is not None:
            job.promise.withdrawable(drawn.withdraw)
        return drawn

    def _starts(self, drawn: _Drawn) -> bool:
        """Take the job from the queue and a number, unless that was done before; False if nobody wants it any more."""
        waits = drawn.seq_id < 0
        if waits and not self._begin(drawn.job):
            return False
        with self._lock:
            if waits:
                drawn.seq_id = next(drawn.job.numbers)
            return not drawn.taken_back

    def _send(self, drawn: _Drawn) -> None:
        started = self._clock()
        drawn.request_id = drawn.job.part.send(drawn.seq_id)
        drawn.submit_s = self._clock() - started
        with self._lock:
            taken_back, dropping = drawn.taken_back, self._dropping
        if taken_back or (not dropping and self._watch(drawn)):
            self._tell_server(drawn)

    def _watch(self, drawn: _Drawn) -> bool:
        """Find out what becomes of it; True if it was taken back meanwhile, before that was known."""
        herald = drawn.job.part.herald
        drawn.job.promise.accept(drawn.request_id)
        self._poller.watch(drawn, parked=herald is not None)
        if herald is not None:
            herald.expect(drawn)
        with self._lock:
            drawn.asked_for = True
            taken_back = drawn.taken_back
        return taken_back and self._poller.drop(drawn)

    def _send_again(self, job: _Sample) -> bool:
        """Send a sample once more whose result is lost; False if that was done often enough, or nobody wants it."""
        if job.again == 0 or job.promise.future.done():
            return False
        job.again -= 1
        job.promise.resubmit("the server has lost the result, so it is drawn again")
        return self._enqueue_again(job)

    def _withdraw(self, drawn: _Drawn) -> bool:
        with self._lock:
            # Else whoever sends it finds this when it is accepted.
            asked_for, drawn.taken_back = drawn.asked_for, True
        if asked_for and not self._poller.drop(drawn):
            return False
        promise = drawn.job.promise
        withdrawn = promise.withdraw()
        if withdrawn:  # else whoever completes it drops it
            self._drop(promise)
        if asked_for:
            self._tell_server(drawn)
        return withdrawn

    def _tell_server(self, drawn: _Drawn) -> None:
        part, request_id = drawn.job.part, drawn.request_id
        if part.herald is not None:
            part.herald.forget(request_id)
        if part.withdraw is not None:
            part.withdraw(request_id)

    @override
    def _abandon(self, error: ClientClosedError) -> None:
        super()._abandon(error)
        self._gate.send_away(self, renewed(error))

    @override
    def _on_own_thread(self) -> bool:
        return super()._on_own_thread() or self._poller.on_own_thread()
