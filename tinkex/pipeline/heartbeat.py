"""Tells the server now and then that the session is alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tinkex.errors import APIStatusError, TinkexError
from tinkex.pipeline.periodic import Periodic

__all__ = ["Heartbeat"]

logger = logging.getLogger(__name__)

WARN_AFTER_S = 120.0
"""A server forgets a session that it has not heard of for a few minutes."""
_GONE = 410


class Heartbeat:
    """Calls ``beat`` every ``interval_s`` seconds on the thread ``tinkex-heartbeat``.

    Public methods are thread-safe. A failed beat is ignored, with a warning when the last success lies more
    than two minutes back. The answer 410 says that the session has ended: the thread stops, and ``on_gone``
    is called with the error.
    """

    def __init__(
        self,
        beat: Callable[[], object],
        interval_s: float = 10.0,
        on_gone: Callable[[TinkexError], object] | None = None,
        *,
        warn_after_s: float = WARN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it; nothing runs before :meth:`start`.

        Args:
            beat: Sends one heartbeat, without retries.
            interval_s: Seconds between beats.
            on_gone: Told once that the session has ended, on the heartbeat's thread.
            warn_after_s: Seconds without success after which failures are logged.
            clock: Monotonic seconds.
        """
        self._beat = beat
        self._on_gone = on_gone
        self._warn_after_s = warn_after_s
        self._clock = clock
        # used by the thread only
        self._last_success = clock()
        self._thread = Periodic("tinkex-heartbeat", interval_s, self.beat_once)

    def start(self) -> None:
        """Start the thread; the session has just been opened.

        Raises:
            LifecycleError: It was started before.
        """
        self._last_success = self._clock()
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> bool:
        """End the thread; True if it has ended within ``timeout`` seconds."""
        return self._thread.stop(timeout)

    def beat_once(self) -> None:
        """Send one heartbeat and deal with its answer."""
        try:
            self._beat()
        except TinkexError as error:
            if isinstance(error, APIStatusError) and error.status_code == _GONE:
                self._thread.stop()
                if self._on_gone is not None:
                    self._on_gone(error)
            else:
                self._missed(error)
        else:
            self._last_success = self._clock()

    def _missed(self, error: TinkexError) -> None:
        silent = self._clock() - self._last_success
        if silent > self._warn_after_s:
            logger.warning(
                "no heartbeat has reached the server for %.0f s; it may end the session soon: %s",
                silent,
                error,
            )
