"""Which samples have ended, told in order to those who ask for many at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import attrs

from tinkex.types import FutureCompletion, FuturesRetrieveResponse

__all__ = ["Completions", "Target", "target_of"]

_MOST_KEPT = 10_000

Target = tuple[str, int]
"""A sampler, and the number of one of its clients."""

_CLIENT_RANGE = 1_000_000_000


def target_of(sampler_id: str, seq_id: int) -> Target:
    """Return whose sample it is: client n of a sampler numbers its samples from n thousand million on."""
    return sampler_id, seq_id // _CLIENT_RANGE


@attrs.define(eq=False)
class _Log:
    """What has ended and was not acknowledged; ``start`` is how many were."""

    start: int = 0
    ended: deque[FutureCompletion] = attrs.field(factory=deque)
    wakers: list[Callable[[], None]] = attrs.field(factory=list)


class Completions:
    """One log for each client of each sampler. Methods may be called from any thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._logs: dict[Target, _Log] = {}

    def add(self, target: Target, completion: FutureCompletion) -> None:
        """Note that a sample has ended, and wake those who wait for that."""
        with self._lock:
            log = self._logs.setdefault(target, _Log())
            log.ended.append(completion)
            if len(log.ended) > _MOST_KEPT:
                # Nobody has asked for a long time: this client polls for each of its samples.
                log.ended.popleft()
                log.start += 1
            wakers, log.wakers = log.wakers, []
        for wake in wakers:
            wake()

    def since(self, target: Target, cursor: int, waker: Callable[[], None]) -> FuturesRetrieveResponse:
        """Return what has ended after ``cursor``, and forget what lies before; if it is nothing, wake when there is.

        Args:
            target: Whose samples.
            cursor: What was returned before as the cursor; 0 for everything.
            waker: Called once.
        """
        with self._lock:
            log = self._logs.setdefault(target, _Log())
            while log.ended and log.start < cursor:
                log.ended.popleft()
                log.start += 1
            if not log.ended:
                log.wakers.append(waker)
            return FuturesRetrieveResponse(completions=list(log.ended), cursor=log.start + len(log.ended))

    def unwatch(self, target: Target, waker: Callable[[], None]) -> None:
        """Do not wake any more."""
        with self._lock:
            log = self._logs.get(target)
            if log is not None:
                log.wakers = [other for other in log.wakers if other is not waker]

    def drop(self, sampler_id: str) -> None:
        """Forget the logs of a sampler that has ended."""
        with self._lock:
            self._logs = {target: log for target, log in self._logs.items() if target[0] != sampler_id or log.wakers}
