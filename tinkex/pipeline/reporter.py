"""Sends telemetry in the background, and must never hurt the program that it reports on."""

from __future__ import annotations

import collections
import itertools
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tinkex.config import Secret
from tinkex.errors import APIStatusError
from tinkex.pipeline.periodic import Periodic
from tinkex.types import GenericEvent

__all__ = ["Reporter"]

logger = logging.getLogger(__name__)

_CREDENTIAL = re.compile(r"key|token$|secret|password|authorization|cookie|header|credential|jwt", re.IGNORECASE)


def without_credentials(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``data`` without entries whose name or value may be a credential, at any depth."""
    kept = {name: value for name, value in data.items() if not _CREDENTIAL.search(name)}
    return {name: _inside(value) for name, value in kept.items() if not isinstance(value, Secret)}


def _inside(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_credentials(value)
    if isinstance(value, (list, tuple)):
        return [_inside(item) for item in value if not isinstance(item, Secret)]
    return value


class Reporter:
    """Queues events and sends them every ``interval_s`` seconds on the thread ``tinkex-telemetry``.

    Public methods are thread-safe and never raise. A full queue drops its oldest event. A batch that the
    server refuses (4xx) is dropped; one that fails otherwise is tried once more at the next interval, then
    dropped.

    Attributes:
        dropped: Events that were not delivered, by reason: ``queue full``, ``refused``, ``failed``, ``closed``.
    """

    def __init__(
        self,
        send: Callable[[list[Any]], object],
        interval_s: float = 10.0,
        *,
        max_queue: int = 10_000,
        max_batch: int = 100,
    ) -> None:
        """Make it; nothing runs before :meth:`start`.

        Args:
            send: Sends one batch of events.
            interval_s: Seconds between flushes.
            max_queue: Events kept at most.
            max_batch: Events in one batch at most.
        """
        self._send = send
        self._max_queue = max_queue
        self._max_batch = max_batch
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        # guarded by _lock
        self._closed = False
        self._open = 0  # events that were neither delivered nor dropped
        self._queue: collections.deque[Any] = collections.deque()
        self.dropped: collections.Counter[str] = collections.Counter()
        # used by the thread only
        self._second_try: list[Any] = []
        self._thread = Periodic("tinkex-telemetry", interval_s, self.flush_once, at_stop=self.flush_once)

    def start(self) -> None:
        """Start the thread.

        Raises:
            LifecycleError: It was started before.
        """
        self._thread.start()

    def report(self, event: Any) -> bool:
        """Queue an event of :mod:`tinkex.types`; entries of its data that may be credentials are left out.

        Returns:
            True if it was queued.
        """
        if os.getpid() != self._pid:
            return False
        try:
            if isinstance(event, GenericEvent):
                event = attrs.evolve(event, event_data=without_credentials(event.event_data))
            with self._lock:
                return self._queue_locked(event)
        except Exception:
            logger.debug("an event could not be queued", exc_info=True)
            return False

    def _queue_locked(self, event: Any) -> bool:
        if self._closed:
            self.dropped["closed"] += 1
            return False
        if len(self._queue) >= self._max_queue:
            self._queue.popleft()
            self._settle_locked("queue full", 1)
        self._queue.append(event)
        self._open += 1
        return True

    def flush(self) -> None:
        """Send what is queued soon, on the thread."""
        self._thread.trigger()

    def drain(self, timeout: float = 2.0) -> bool:
        """Send what is queued now, and wait; True if all of it was delivered or dropped within ``timeout`` seconds."""
        if os.getpid() != self._pid:
            return False
        self.flush()
        with self._settled:
            return self._settled.wait_for(lambda: not self._open, timeout)

    def stop(self, timeout: float = 2.0) -> bool:
        """Send what is queued once, and end the thread; True if that took at most ``timeout`` seconds."""
        with self._lock:
            self._closed = True
        return self._thread.stop(timeout)

    def flush_once(self) -> None:
        """Send what is queued, batch by batch, until the server cannot be reached."""
        second_try, self._second_try = self._second_try, []
        if second_try and not self._deliver(second_try):
            self._drop("failed", second_try)
            return
        while batch := self._take():
            if not self._deliver(batch):
                self._second_try = batch
                return

    def _take(self) -> list[Any]:
        with self._lock:
            size = min(self._max_batch, len(self._queue))
            return [self._queue.popleft() for _ in itertools.repeat(None, size)]

    def _deliver(self, batch: list[Any]) -> bool:
        """Send a batch; False if it may be tried again."""
        try:
            self._send(batch)
        except Exception as error:
            if not isinstance(error, APIStatusError) or error.status_code >= 500:
                return False
            self._drop("refused", batch)
            return True
        with self._lock:
            self._settle_locked(None, len(batch))
        return True

    def _drop(self, reason: str, batch: list[Any]) -> None:
        logger.debug("%d events of telemetry were dropped: %s", len(batch), reason)
        with self._lock:
            self._settle_locked(reason, len(batch))

    def _settle_locked(self, dropped: str | None, size: int) -> None:
        if dropped is not None:
            self.dropped[dropped] += size
        self._open -= size
        if not self._open:
            self._settled.notify_all()
