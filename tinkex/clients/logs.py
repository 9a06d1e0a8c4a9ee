"""What the clients put into the log by themselves, under the logger ``tinkex``."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping

from tinkex.pipeline import PhaseChange

__all__ = ["PauseLog", "follow_environment"]

logger = logging.getLogger("tinkex")

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}
_FORMAT = "[%(asctime)s %(name)s %(levelname)s] %(message)s"
_QUIET_S = 60.0


def follow_environment(environ: Mapping[str, str] | None = None) -> None:
    """Show what tinkex logs on stderr, from the level that ``TINKER_LOG`` names: ``debug`` or ``info``.

    Without the variable nothing is changed. A program that has set up its logging keeps it: then only the level is set.
    """
    given = (os.environ if environ is None else environ).get("TINKER_LOG", "")
    level = _LEVELS.get(given.strip().lower())
    if level is None:
        return
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)


class PauseLog:
    """An observer that tells when the server has paused an operation, at most once a minute. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell the next pause."""
        self._clock = clock
        self._lock = threading.Lock()
        # guarded by _lock
        self._told = -math.inf

    def __call__(self, change: PhaseChange) -> None:
        """Hear of a change."""
        if change.phase != "queue_state" or not change.queue_state.startswith("paused"):
            return
        with self._lock:
            now = self._clock()
            if now - self._told < _QUIET_S:
                return
            self._told = now
        why = f": {change.queue_state_reason}" if change.queue_state_reason else ""
        logger.warning("%s waits, because the server says %s%s", change.operation, change.queue_state, why)
