"""Work that needs no order: a queue, a few threads, and a future for each job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from typing_extensions import override

from tinkex.errors import ClientClosedError
from tinkex.pipeline.futures import APIFuture, Promise
from tinkex.pipeline.keeper import PromiseKeeper, Wiring
from tinkex.pipeline.process import ExitDeadline, renewed

__all__ = ["CallPool", "Job", "Pool"]

T = TypeVar("T")


class Job:
    """One call and its promise."""

    __slots__ = ("promise",)

    def __init__(self, promise: Promise[Any]) -> None:
        """Keep the promise."""
        self.promise = promise


JobT = TypeVar("JobT", bound=Job)


class Pool(PromiseKeeper, Generic[JobT]):
    """Runs jobs first come first served on a bounded number of threads; a subclass says what a job does."""

    def __init__(self, name: str, *, max_threads: int, thread_name: str, wiring: Wiring | None) -> None:
        """Make a pool; threads start as they are needed."""
        super().__init__(name, threads=max_threads, thread_name=thread_name, wiring=wiring)
        # guarded by _lock
        self._queue: deque[JobT] = deque()
        self._runs = 0  # workers that run or are about to
        self._threads: set[int] = set()

    def check(self) -> None:
        """Raise what a new call would raise now, before any work is spent on preparing a request.

        Raises:
            ClientClosedError: The pool was closed, or belongs to another process.
        """
        with self._lock:
            if self._closed is not None:
                raise renewed(self._closed)

    def _run(self, job: JobT) -> None:
        """Do the job: :meth:`_begin` it, and complete its promise or see to it that somebody will."""
        raise NotImplementedError

    def _enqueue(self, job: JobT) -> APIFuture[Any]:
        with self._lock:
            error = None if self._closed is None else renewed(self._closed)
            if error is None:
                self._kept[job.promise] = None
                self._queue.append(job)
                self._runs += 1
        if error is not None:
            job.promise.fail(error)
            raise error
        try:
            self._executor.submit(self._work)
        except RuntimeError as refused:
            with self._lock:
                self._runs -= 1
            self._give_up_at_exit()
            raise ExitDeadline.error() from refused
        return job.promise.future

    def _enqueue_again(self, job: JobT) -> bool:
        """Put a job back that was begun; False if the pool sends nothing any more."""
        with self._lock:
            if self._dropping:
                return False
            self._queue.append(job)
            self._runs += 1
        try:
            self._executor.submit(self._work)
        except RuntimeError:
            with self._lock:
                self._queue.remove(job)
                self._runs -= 1
            return False
        return True

    def _work(self) -> None:
        """Do one job; there is one call of this for each."""
        with self._lock:
            job = self._queue.popleft() if self._queue else None
            self._threads.add(threading.get_ident())
        try:
            if job is not None:
                job.promise.run(self._run, job)
        except BaseException as error:  # rule 3: no thread dies holding promises
            if job is not None:
                self._fail(job.promise, error)
            if not isinstance(error, Exception):
                raise
        finally:
            with self._lock:
                self._threads.discard(threading.get_ident())
                self._runs -= 1
                self._changed.notify_all()

    def _begin(self, job: JobT) -> bool:
        """Take the job from the queue for good; False if it was cancelled, or given up by ``close``."""
        with self._lock:
            if self._dropping:
                return False
            started = job.promise.start()
        if not started:
            self._end(job.promise, None)
        return started

    @override
    def _abandon(self, error: ClientClosedError) -> None:
        with self._lock:
            self._dropping = True
            self._queue.clear()
        super()._abandon(error)

    @override
    def _idle_locked(self) -> bool:
        return self._runs == 0

    @override
    def _on_own_thread(self) -> bool:
        return threading.get_ident() in self._threads


class _Call(Job):
    __slots__ = ("call",)

    def __init__(self, promise: Promise[Any], call: Callable[[], Any]) -> None:
        super().__init__(promise)
        self.call = call


class CallPool(Pool[_Call]):
    """Runs plain blocking calls on threads ``tinkex-call`` and gives a future for each.

    Public methods are thread-safe. A call that was not begun can be cancelled. A failure concerns its own
    future only.
    """

    def __init__(self, name: str, *, max_threads: int = 8, wiring: Wiring | None = None) -> None:
        """Make a pool; threads start as they are needed.

        Args:
            name: What messages call it, such as ``"the session"``.
            max_threads: CallPool that may run at once.
            wiring: Clock, executor and observers.
        """
        super().__init__(name, max_threads=max_threads, thread_name="tinkex-call", wiring=wiring)

    def submit(self, operation: str, call: Callable[[], T]) -> APIFuture[T]:
        """Run ``call`` soon.

        Args:
            operation: Name of the method.
            call: Blocks, and returns the result or raises.

        Returns:
            The future of the result.

        Raises:
            ClientClosedError: The pool was closed, or belongs to another process.
        """
        self.check()
        return self._enqueue(_Call(self._promise(operation), call))

    @override
    def _run(self, job: _Call) -> None:
        if self._exit.over():
            self._give_up_at_exit()
        if self._begin(job):
            self._resolve(job.promise, job.call())
