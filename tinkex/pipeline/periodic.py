"""A named daemon thread that does something now and then."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from tinkex.errors import ClientClosedError, LifecycleError
from tinkex.pipeline.process import forked_error, survive_fork

__all__ = ["Periodic"]

logger = logging.getLogger(__name__)


class Periodic:
    """Calls ``action`` every ``interval_s`` seconds, first after one interval.

    Public methods are thread-safe. An exception of the action is logged, and the thread goes on. It can be
    started once.
    """

    def __init__(
        self,
        name: str,
        interval_s: float,
        action: Callable[[], object],
        *,
        at_stop: Callable[[], object] | None = None,
    ) -> None:
        """Make it; nothing runs before :meth:`start`.

        Args:
            name: Name of the thread, ``tinkex-<role>``.
            interval_s: Seconds between the end of one call and the next.
            action: What to do.
            at_stop: What to do last, on the same thread.
        """
        self._interval_s = interval_s
        self._action = action
        self._at_stop = at_stop
        self._pid = os.getpid()
        self._make_locks()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # guarded by _lock
        self._started = False
        survive_fork(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the thread.

        Raises:
            LifecycleError: It was started before.
            ClientClosedError: It belongs to another process, or the program is ending.
        """
        if os.getpid() != self._pid:
            raise forked_error(self._pid)
        with self._lock:
            if self._started:
                raise LifecycleError(f"{self._thread.name} was started before")
            try:
                self._thread.start()
            except RuntimeError as error:
                raise ClientClosedError("the program is ending", reason="exit") from error
            self._started = True

    def trigger(self) -> None:
        """Do it now instead of at the end of the interval."""
        self._wake.set()

    def stop(self, timeout: float = 2.0) -> bool:
        """End the thread after what it is doing now, and wait for that.

        Idempotent, and callable from any thread.

        Args:
            timeout: Seconds to wait; a thread that takes longer is left behind, it is a daemon.

        Returns:
            True if the thread has ended.
        """
        self._stopping.set()
        self._wake.set()
        if self._thread is threading.current_thread():
            return False
        with self._lock:
            if self._started:
                self._thread.join(timeout)
            return not self._thread.is_alive()

    def after_fork(self) -> None:
        """There is no thread in a child process."""
        self._make_locks()
        self._started = False

    def _run(self) -> None:
        while self._wait():
            self._do(self._action)
        if self._at_stop is not None:
            self._do(self._at_stop)

    def _wait(self) -> bool:
        self._wake.wait(self._interval_s)
        self._wake.clear()
        return not self._stopping.is_set()

    def _do(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException:
            logger.exception("%s failed; it goes on", self._thread.name)
