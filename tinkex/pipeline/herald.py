"""Hearing in bulk which of many samples have ended, so that only these are asked for.

Without it every sample in flight needs polls of its own. A herald keeps one long poll open for all samples of a
sampler, on a thread ``tinkex-herald`` that ends when there is nothing to wait for. What it hears of is released to the
:class:`~tinkex.pipeline.poller.Poller`, which fetches the result as always. So a herald only ever makes things faster:
whenever it cannot go on, because the server has no such endpoint for instance, it releases everything, and the poller
asks for each sample by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import attrs

from tinkex.errors import APIStatusError, TinkexError
from tinkex.pipeline.poller import Watched

__all__ = ["Herald", "News"]

logger = logging.getLogger(__name__)

_LINGER_S = 1.0
"""How long the thread waits for more samples before it says what was fetched, and then ends."""
_RETRY_S = 1.0
_QUICK_S = 0.5
"""An empty answer that came sooner than this is no long poll; the next one waits."""
_MOST_BAD_REQUESTS = 3
_MOST_EARLY = 10_000


@attrs.frozen(kw_only=True, slots=True)
class News:
    """What has ended since the cursor that was sent, with the bytes of its result if told; the cursor to send next."""

    ended: Mapping[str, int | None]
    cursor: int


class Herald:
    """Learns from the server which samples of one sampler have ended. Public methods are thread-safe."""

    def __init__(
        self,
        ask: Callable[[int, Sequence[str], bool], News],
        release: Callable[[Watched, int | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a herald; its thread starts with the first sample.

        Args:
            ask: Called with the cursor, the requests whose results were fetched, and whether the server may hold the
                request until there is news. May raise ``TinkexError``.
            release: Lets the poller fetch the result of a sample, of so many bytes if that is known.
            clock: Monotonic seconds.
        """
        self._ask = ask
        self._release = release
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # guarded by _lock
        self._expected: dict[str, Watched] = {}
        self._early: OrderedDict[str, int | None] = OrderedDict()  # ended before the answer to their submit was read
        self._fetched: dict[str, None] = {}
        self._useless = False  # the server cannot be asked, or the client is closed
        self._thread: threading.Thread | None = None
        # used by the thread only
        self._cursor = 0
        self._bad_requests = 0

    def expect(self, watched: Watched) -> None:
        """Release ``watched`` once it has ended, or at once if that cannot be heard of."""
        with self._lock:
            ended = watched.request_id in self._early
            size = self._early.pop(watched.request_id, None)
            waits = not (self._useless or ended) and self._awake_locked()
            if waits:
                self._expected[watched.request_id] = watched
                self._changed.notify()
        if not waits:
            self._release(watched, size)

    def forget(self, request_id: str) -> None:
        """Do not wait for a sample any more."""
        with self._lock:
            self._expected.pop(request_id, None)

    def fetched(self, request_id: str) -> None:
        """Tell the server, with the next question, that it need not keep this result."""
        with self._lock:
            if not self._useless:
                self._fetched[request_id] = None
                self._awake_locked()
                self._changed.notify()

    def _awake_locked(self) -> bool:
        """See to it that the thread runs; False if it cannot, because the program is ending."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="tinkex-herald", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._ask_once():
                pass
        except BaseException as error:  # no thread dies while others wait for it
            logger.exception("the thread that hears of samples died")
            self._give_up()
            if not isinstance(error, Exception):
                raise

    def _ask_once(self) -> bool:
        """Put one question and release what it tells of; False if there is nothing to ask."""
        with self._lock:
            self._changed.wait_for(lambda: self._expected or self._useless, _LINGER_S)
            holds, fetched = bool(self._expected), list(self._fetched)
            if self._useless or not (holds or fetched):
                self._thread = None
                return False
        started = self._clock()
        try:
            news = self._ask(self._cursor, fetched, holds)
        except TinkexError as error:
            if not self._may_repeat(error):
                logger.info("samples are asked for one by one: %s", error)
                self._give_up()
            else:
                self._pause(_RETRY_S)
            return True
        self._hear(news, fetched)
        if holds and not news.ended and self._clock() - started < _QUICK_S:
            self._pause(_QUICK_S)
        return True

    def _may_repeat(self, error: TinkexError) -> bool:
        if isinstance(error, APIStatusError) and error.status_code == 400:
            self._bad_requests += 1
            return self._bad_requests < _MOST_BAD_REQUESTS
        return error.retryable

    def _hear(self, news: News, fetched: Sequence[str]) -> None:
        self._cursor, self._bad_requests = news.cursor, 0
        released = []
        with self._lock:
            for request_id in fetched:
                self._fetched.pop(request_id, None)
            for request_id, size in news.ended.items():
                watched = self._expected.pop(request_id, None)
                if watched is None:
                    self._early[request_id] = size
                else:
                    released.append((watched, size))
            while len(self._early) > _MOST_EARLY:
                self._early.popitem(last=False)
        for watched, size in released:
            self._release(watched, size)

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._changed.wait_for(lambda: self._useless, seconds)

    def _give_up(self) -> None:
        with self._lock:
            self._useless = True
            released = list(self._expected.values())
            self._expected.clear()
            self._fetched.clear()
            self._early.clear()
            self._changed.notify_all()
        for watched in released:
            self._release(watched, None)
