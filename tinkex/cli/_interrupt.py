"""Ctrl-C in two stages: the first asks to stop, the second stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["two_stage_interrupt"]

_TELL_S = 1.0


@contextmanager
def two_stage_interrupt(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """While the block runs, let the first Ctrl-C only leave a wish, and the second interrupt as usual.

    Args:
        tell: Called at the first one, to say what happens now; on a thread of its own, because the program may
            be in the middle of writing when the signal comes, and a stream cannot be entered twice.

    Yields:
        A function that tells whether there was one.
    """
    asked = threading.Event()
    teller = threading.Thread(target=tell, name="tinkex-interrupt", daemon=True)

    def first(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)
        teller.start()

    if threading.current_thread() is not threading.main_thread():
        # Signals go to the main thread; elsewhere there is nothing to arrange.
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
        if asked.is_set():
            teller.join(_TELL_S)
