"""One poller for a session: asks the server for the outcome of every accepted operation until it is known.

Threads::

    tinkex-poller        starts the others when there is more to ask than threads, and wakes them when a
                         pause ends
    tinkex-retrieve-<i>  each holds one long poll; the one that got the answer completes the future and takes
                         the next poll itself, so an answer costs no hand-off between threads

Operations of one model (a *lane*) finish in the order in which they were sent, so only the first of each lane
is asked for. Operations without a lane (samples) are asked for first come first served; they never take all
threads, so that a training step does not wait behind ten thousand samples. The number of threads depends on
``max_threads`` alone.

A result whose size the server has told is *large*: it is fetched when its bytes fit under ``max_result_bytes``
together with those being fetched, first come first served; one larger than that is fetched alone. No thread waits
for bytes: what does not fit yet waits in a queue, bytes are taken with the thread that fetches and given back when
it has the decoded result. So whoever holds bytes can go on, and everybody comes to his turn.

Operations share a :class:`~tinkex.pipeline.patience.Patience`. When it is at its end, the poller thread gives all of
them up.

What an answer means is decided by :func:`~tinkex.pipeline.step.step`, a pure function.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import attrs

from tinkex.errors import ClientClosedError, ProgressTimeoutError
from tinkex.pipeline.patience import Patience
from tinkex.pipeline.process import forked_error, renewed, survive_fork
from tinkex.pipeline.step import Failed, Outcome, PollAgain, PollPolicy, Progress, Ready, step

__all__ = ["Poller", "Watched"]

logger = logging.getLogger(__name__)

_FORGOTTEN = object()


@attrs.define(kw_only=True, slots=True, eq=False)
class Watched:
    """One accepted request whose outcome the poller finds out; subclasses say what becomes of it.

    The ``on_`` methods are called on a thread of the poller, never with a lock held, and for one lane one
    after the other (unless the poller dies). Of ``on_ready`` and ``on_failed`` at most one is called, once:
    exactly one, unless the lane is forgotten first.

    Attributes:
        request_id: The server's name for it.
        request_type: What the server calls its type, such as ``ForwardBackward``.
        lane: The model whose order it keeps; None if it is independent.
        decode: Whatever ``retrieve`` needs to decode the result.
        ask: Asks once for the outcome in place of ``retrieve``; None for what the server has named.
        submit_s: How long the submit took, in seconds.
        patience: How long it and others may make no progress; None for any time.
        polls: How often it has been asked for before.
        heard: What followed from the last of these polls.
    """

    request_id: str
    request_type: str = ""
    lane: Hashable = None
    decode: Any = None
    ask: Callable[[], Outcome] | None = None
    submit_s: float = 0.0
    patience: Patience | None = None
    polls: int = attrs.field(default=0, init=False)
    heard: PollAgain | None = attrs.field(default=None, init=False)
    held: int = attrs.field(default=0, init=False)  # bytes that its fetch has taken; guarded by the poller
    progress: Progress = attrs.field(factory=Progress, init=False)

    def on_pending(self, queue_state: str, reason: str | None) -> None:
        """It is not done; the server said why, or could not be asked for this reason."""

    def on_ready(self, value: Any) -> None:
        """It is done."""
        raise NotImplementedError

    def on_failed(self, error: BaseException) -> None:
        """It failed, or its outcome cannot be known."""
        raise NotImplementedError


class Poller:
    """Finds out the outcome of everything it is given to watch. Public methods are thread-safe."""

    def __init__(
        self,
        retrieve: Callable[[Watched], Outcome],
        *,
        max_threads: int = 32,
        lane_threads: int = 4,
        max_result_bytes: int = 52_428_800,
        policy: PollPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        noise: Callable[[], float] = random.random,
    ) -> None:
        """Make a poller; no thread starts before there is something to watch.

        Args:
            retrieve: Asks once for the outcome, blocking as long as the server holds the request. May raise
                ``TinkexError``; any other exception fails the operation with itself.
            max_threads: Polls that may be open at once, at least 1.
            lane_threads: How many of these only operations of a lane, and results that are ready, may use (as far
                as that leaves one).
            max_result_bytes: Bytes of large results that may be being fetched at once.
            policy: How polls are repeated.
            clock: Monotonic seconds.
            noise: Random numbers in [0, 1).
        """
        self._retrieve = retrieve
        self._max_threads = max_threads
        self._max_free = max(1, max_threads - lane_threads)
        self._max_result_bytes = max_result_bytes
        self._policy = policy or PollPolicy()
        self._clock = clock
        self._noise = noise
        self._pid = os.getpid()
        self._ticks = itertools.count()  # keeps equal times in the heap in order
        self._make_locks()
        # guarded by _lock
        self._error: ClientClosedError | None = None
        self._poller: threading.Thread | None = None
        self._watched: dict[Watched, object] = {}  # everything whose outcome is not known
        self._lanes: dict[Hashable, deque[Watched]] = {}
        self._heads: deque[Watched] = deque()  # first of their lane, due now
        self._free: deque[Watched] = deque()  # without a lane, due now
        self._large: deque[Watched] = deque()  # of known size, due as soon as it fits
        self._held = 0  # bytes of the results being fetched now
        self._later: list[tuple[float, int, Watched]] = []  # a heap of those whose pause has not ended
        self._alarms: list[tuple[float, int, Patience]] = []  # a heap: when to look whether there was progress
        self._free_open = 0  # polls of those without a lane that are open now
        self._threads: set[int] = set()  # idents of the retrieval threads
        self._count = 0  # retrieval threads, started or about to
        self._idle = 0  # of these, waiting to be called
        self._called = 0  # of these, called and not yet arrived
        # used by the poller thread only
        self._hired = 0
        survive_fork(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # retrieval threads wait here to be called
        self._timer = threading.Condition(self._lock)  # the poller thread waits here

    # --- public ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the poller thread, so that it is there even if the first watch comes while the program ends.

        Raises:
            ClientClosedError: The poller is closed, or a thread can no longer be started.
        """
        if self._poller is not None and self._error is None:
            return
        with self._lock:
            self._raise_if_ended_locked()
            if self._poller is None:
                thread = threading.Thread(target=self._run, name="tinkex-poller", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise ClientClosedError("the program is ending", reason="exit") from error
                self._poller = thread

    def watch(self, watched: Watched, *, parked: bool = False) -> None:
        """Find out the outcome of ``watched``; those of one lane finish in the order of these calls.

        Args:
            watched: What was accepted.
            parked: Do not ask before :meth:`release` says so; for those without a lane.

        Raises:
            ClientClosedError: The poller is closed or has died; ``watched`` is told nothing.
        """
        self.start()
        with self._lock:
            self._raise_if_ended_locked()
            self._watched[watched] = None
            if watched.patience is not None:
                watched.patience.last = self._clock()
                self._arm_locked(watched.patience)
            lane = self._lanes.setdefault(watched.lane, deque()) if watched.lane is not None else None
            if lane is not None:
                lane.append(watched)
            if not parked and (lane is None or lane[0] is watched):
                self._due_locked(watched)
                self._call_locked()

    def release(self, watched: Watched, size: int | None = None) -> None:
        """Ask for what was parked, unless it was dropped meanwhile; ``size`` is the bytes of its result, if known."""
        with self._lock:
            if watched in self._watched:
                if size is not None:
                    watched.progress = Progress(known=True, size=max(0, size))
                self._due_locked(watched)
                self._call_locked()

    def drop(self, watched: Watched) -> bool:
        """Stop asking for something without a lane and say nothing of it; False if its outcome is known already."""
        with self._lock:
            dropped = self._watched.pop(watched, _FORGOTTEN) is not _FORGOTTEN
            self._go_on_locked()
            return dropped

    def lower_result_bytes(self, limit: int) -> None:
        """Fetch large results only up to ``limit`` bytes at once, if that is less than until now."""
        with self._lock:
            self._max_result_bytes = min(self._max_result_bytes, limit)

    def forget(self, lane: Hashable) -> None:
        """Stop asking for everything in ``lane`` and say nothing of it; an open read is abandoned."""
        with self._lock:
            for watched in self._lanes.pop(lane, ()):
                self._watched.pop(watched, None)
            self._go_on_locked()

    def close(self, error: ClientClosedError | None = None, *, timeout: float = 2.0) -> None:
        """Stop, and fail everything that is watched.

        A read in progress is abandoned: its thread is a daemon and ends with it.

        Args:
            error: What to fail with; a plain "closed" unless given.
            timeout: How long to wait for threads that are not in the middle of a read.
        """
        self._end(error or ClientClosedError("the client was closed before the result came"))
        poller = self._poller
        if poller is not None and poller is not threading.current_thread():
            poller.join(timeout)

    def on_own_thread(self) -> bool:
        """Return True if the caller runs on a thread of this poller, so that waiting would stop it."""
        ident = threading.get_ident()
        return ident in self._threads or (self._poller is not None and self._poller.ident == ident)

    def __len__(self) -> int:
        """Return how many requests are watched."""
        return len(self._watched)

    def after_fork(self) -> None:
        """Close in a child process; the owners of the promises fail them."""
        self._make_locks()
        self._error = self._error or forked_error(self._pid)
        self._watched.clear()
        self._poller = None

    # --- the poller thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._tend():
                pass
        except BaseException as error:  # rule 3: no thread dies holding promises
            self._die(error)

    def _tend(self) -> bool:
        """Give up what is stuck, start a thread if one is missing, else wait; False if the poller has ended."""
        with self._lock:
            if self._error is not None:
                return False
            stuck = self._take_stuck_locked()
            self._promote_locked()
            self._call_locked()
            hires = self._takable_locked() > self._called and self._count < self._max_threads
            if not (hires or stuck):
                self._timer.wait(self._pause_locked())
            self._count += hires
            self._called += hires
        if hires:
            self._hire()
        self._fail_each(stuck)
        return True

    def _hire(self) -> None:
        self._hired += 1
        try:
            threading.Thread(target=self._serve, name=f"tinkex-retrieve-{self._hired}", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending and allows no new threads, so this one asks.
            with self._lock:
                self._count -= 1
                self._called -= 1
                watched = self._take_locked()
            if watched is not None:
                again = self._ask(watched)
                with self._lock:
                    self._leave_locked(watched, again)

    def _pause_locked(self) -> float | None:
        due = min((heap[0][0] for heap in (self._later, self._alarms) if heap), default=None)
        return None if due is None else min(max(0.0, due - self._clock()), threading.TIMEOUT_MAX)

    # --- the retrieval threads ------------------------------------------------------------------------------

    def _serve(self) -> None:
        held: Watched | None = None
        with self._lock:
            self._called -= 1
            self._threads.add(threading.get_ident())
        try:
            while (held := self._next()) is not None:
                again = self._ask(held)
                with self._lock:
                    self._leave_locked(held, again)
                # A thread that waits for work must not keep a result alive.
                held = again = None
        except BaseException as error:  # rule 3
            logger.exception("a retrieval thread of tinkex died")
            if held is not None:
                self._lose(held, error)
        finally:
            with self._lock:
                self._count -= 1
                self._threads.discard(threading.get_ident())
                self._timer.notify()

    def _next(self) -> Watched | None:
        """Take what is due next, waiting for it; None if the poller has ended."""
        with self._lock:
            while self._error is None:
                watched = self._take_locked()
                if watched is not None:
                    self._call_locked()
                    return watched
                self._idle += 1
                self._work.wait()
                self._called -= 1
            return None

    def _ask(self, watched: Watched) -> PollAgain | None:
        """Poll once. Returns when to poll again, or None if the outcome is known and was delivered."""
        started = self._clock()
        outcome: object
        try:
            outcome = self._retrieve(watched) if watched.ask is None else watched.ask()
        except Exception as error:
            outcome = error
        watched.polls += 1
        now = self._clock()
        verdict = step(
            watched.progress,
            outcome,
            elapsed=now - started,
            policy=self._policy,
            noise=self._noise(),
        )
        if watched.patience is not None and _is_progress(verdict):
            watched.patience.last = now
        if isinstance(verdict, PollAgain):
            watched.progress, watched.heard = verdict.progress, verdict
            watched.on_pending(verdict.queue_state, verdict.reason)
            return verdict
        self._deliver(watched, verdict)
        return None

    def _deliver(self, watched: Watched, verdict: Ready | Failed) -> None:
        """Tell the outcome, unless it was forgotten meanwhile; what follows in its lane is not yet polled."""
        with self._lock:
            # Before the callbacks of the user, who may wait for another result there.
            self._refund_locked(watched)
            if self._watched.pop(watched, _FORGOTTEN) is _FORGOTTEN:
                return
        if isinstance(verdict, Ready):
            watched.on_ready(verdict.value)
        else:
            watched.on_failed(verdict.error)

    def _lose(self, watched: Watched, error: BaseException) -> None:
        try:
            self._deliver(watched, Failed(_death(error)))
        finally:
            with self._lock:
                self._leave_locked(watched, None)

    # --- the schedule ---------------------------------------------------------------------------------------

    def _due_locked(self, watched: Watched) -> None:
        if watched.progress.size is not None:
            self._large.append(watched)
            return
        (self._free if watched.lane is None else self._heads).append(watched)

    def _promote_locked(self) -> None:
        while self._later and self._later[0][0] <= self._clock():
            self._due_locked(heapq.heappop(self._later)[2])

    def _takable_locked(self) -> int:
        polls = len(self._heads) + max(0, min(len(self._free), self._max_free - self._free_open))
        # One at a time: whoever takes it calls the next.
        return polls + (1 if self._large and self._fits_locked() else 0)

    def _fits_locked(self) -> bool:
        """Tell whether the first of the large results can be fetched now."""
        while self._large and self._large[0] not in self._watched:
            self._large.popleft()
        if not self._large or self._held == 0:
            return bool(self._large)
        return self._held + (self._large[0].progress.size or 0) <= self._max_result_bytes

    def _refund_locked(self, watched: Watched) -> None:
        if watched.held:
            self._held -= watched.held
            watched.held = 0
            self._go_on_locked()

    def _go_on_locked(self) -> None:
        """Call for those who waited for bytes, or behind somebody who did."""
        if self._large:
            self._call_locked()

    def _take_locked(self) -> Watched | None:
        """Take what is due, lanes first, then results that are ready; None if nothing is, or may be taken now."""
        if self._later:
            self._promote_locked()
        while self._takable_locked() > 0:
            fetches = not self._heads and self._fits_locked()
            watched = (self._heads or (self._large if fetches else self._free)).popleft()
            if watched in self._watched:
                self._free_open += watched.lane is None
                if fetches:
                    watched.held = watched.progress.size or 0
                    self._held += watched.held
                return watched
        return None

    def _leave_locked(self, watched: Watched, again: PollAgain | None) -> None:
        """Schedule ``watched`` again, or let the next of its lane come."""
        self._refund_locked(watched)
        self._free_open -= watched.lane is None
        if again is not None:
            if watched in self._watched:
                self._again_locked(watched, again.delay)
            return
        lane = self._lanes.get(watched.lane)
        if lane and lane[0] is watched:
            lane.popleft()
            if lane:
                self._due_locked(lane[0])
            else:
                del self._lanes[watched.lane]

    def _again_locked(self, watched: Watched, delay: float) -> None:
        if delay <= 0:
            self._due_locked(watched)
            return
        entry = (self._clock() + delay, next(self._ticks), watched)
        heapq.heappush(self._later, entry)
        if self._later[0] is entry:
            self._timer.notify()

    def _call_locked(self) -> None:
        """Call as many threads as there is work for that nobody is on the way to."""
        missing = self._takable_locked() - self._called
        while missing > 0 and self._idle:
            self._idle -= 1
            self._called += 1
            missing -= 1
            self._work.notify()
        if missing > 0 and self._count < self._max_threads:
            self._timer.notify()

    # --- what is stuck --------------------------------------------------------------------------------------

    def _arm_locked(self, patience: Patience) -> None:
        if patience.armed or patience.limit_s == math.inf:
            return
        patience.armed = True
        entry = (patience.last + patience.limit_s, next(self._ticks), patience)
        heapq.heappush(self._alarms, entry)
        if self._alarms[0] is entry:
            self._timer.notify()

    def _take_stuck_locked(self) -> list[tuple[Watched, BaseException]]:
        """Forget all that has made no progress for too long, and return it with the errors to fail it with."""
        stuck: list[tuple[Watched, BaseException]] = []
        while self._alarms and self._alarms[0][0] <= (now := self._clock()):
            patience = heapq.heappop(self._alarms)[2]
            patience.armed = False
            if patience.last + patience.limit_s > now:
                self._arm_locked(patience)
                continue
            # Rare, so it may look at everything.
            for watched in [each for each in self._watched if each.patience is patience]:
                del self._watched[watched]
                self._lanes.pop(watched.lane, None)
                stuck.append((watched, _stuck(watched, now - patience.last)))
        return stuck

    # --- the end --------------------------------------------------------------------------------------------

    def _raise_if_ended_locked(self) -> None:
        if self._error is not None:
            raise renewed(self._error)

    def _die(self, error: BaseException) -> None:
        logger.error("the poller of tinkex died", exc_info=error)
        self._end(_death(error))

    def _end(self, error: ClientClosedError) -> None:
        with self._lock:
            self._error = self._error or error
            orphans = list(self._watched)
            schedules = (self._lanes, self._heads, self._free, self._large, self._later, self._alarms)
            for schedule in (self._watched, *schedules):
                schedule.clear()
            self._work.notify_all()
            self._timer.notify_all()
        self._fail_each([(watched, renewed(error)) for watched in orphans])

    def _fail_each(self, failures: list[tuple[Watched, BaseException]]) -> None:
        for watched, error in failures:
            try:
                watched.on_failed(error)
            except Exception:
                logger.exception("could not fail %s", watched.request_id)


def _is_progress(verdict: PollAgain | Ready | Failed) -> bool:
    """Tell whether something has ended, or is not worked on for a reason that the server gives."""
    return not isinstance(verdict, PollAgain) or verdict.queue_state.startswith("paused")


def _stuck(watched: Watched, silent_s: float) -> ProgressTimeoutError:
    heard = watched.heard
    state, reason = ("unknown", None) if heard is None else (heard.queue_state, heard.reason)
    return ProgressTimeoutError(
        f"given up: the server has this operation, and none of its client has ended in the last {silent_s:g} s; queue "
        f"state: {state}{f' ({reason})' if reason else ''}. Sample again, or go on training from the last checkpoint; "
        "RetryPolicy.progress_timeout_s says how long to wait, and None waits for ever",
        request_id=watched.request_id,
        silent_s=silent_s,
        queue_state=state,
    )


def _death(cause: BaseException) -> ClientClosedError:
    error = ClientClosedError(
        f"the thread that fetched results died of {type(cause).__name__}: {cause}; create a new client",
        reason="poller died",
    )
    error.__cause__ = cause
    return error
