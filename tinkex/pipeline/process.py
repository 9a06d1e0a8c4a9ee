"""What a process may do under the pipeline: fork, and end.

**Fork.** Threads do not survive a fork, so nothing made before it can work in the child. Each owner of
promises registers with :func:`survive_fork`; in the child its ``after_fork`` is called, which fails what is
pending and closes it, so that every call raises :class:`~tinkex.errors.ClientClosedError` instead of waiting
for a thread that is not there.

**End.** When the main thread ends, ``concurrent.futures`` lets its workers finish their queues before
anything else, and the interpreter waits for them. :class:`ExitDeadline` bounds that time.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from tinkex.errors import ClientClosedError

__all__ = ["ExitDeadline", "Forked", "forked_error", "interpreter_exiting", "renewed", "survive_fork"]

logger = logging.getLogger(__name__)

_OWN_THREADS = "tinkex-"
EXIT_TIMEOUT_S = 60.0
"""How long work that was submitted goes on being sent after the main thread has ended."""


class Forked(Protocol):
    """Something that a fork leaves without its threads."""

    def after_fork(self) -> None:
        """Runs in the child; there are no other threads, and the locks they held are held for ever."""


_owners: weakref.WeakSet[Forked] = weakref.WeakSet()


def survive_fork(owner: Forked) -> None:
    """Call ``owner.after_fork()`` in every child process that is forked from now on; held weakly."""
    _owners.add(owner)


def forked_error(parent_pid: int) -> ClientClosedError:
    """Return what every call in a child process raises."""
    return ClientClosedError(
        f"this client was created in process {parent_pid} and cannot be used in process {os.getpid()}, "
        "forked from it; create a new client here, or start workers with multiprocessing's 'spawn' method",
        reason="forked",
    )


def renewed(error: ClientClosedError) -> ClientClosedError:
    """Return an equal error: one that fails many futures would collect all their tracebacks and ids."""
    fresh = ClientClosedError(error.message, reason=error.reason)
    fresh.__cause__ = error.__cause__
    return fresh


def _tell_owners() -> None:
    for owner in list(_owners):
        try:
            owner.after_fork()
        except Exception:
            logger.exception("could not close %r after a fork", owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_tell_owners)


def interpreter_exiting() -> bool:
    """Return True once the main thread has ended."""
    return not threading.main_thread().is_alive()


def program_has_threads() -> bool:
    """Return True while a thread of the program itself runs that the interpreter waits for at its end."""
    return any(
        not thread.daemon and thread is not threading.main_thread() and not thread.name.startswith(_OWN_THREADS)
        for thread in threading.enumerate()
    )


class ExitDeadline:
    """Says when work must stop because the interpreter has been waiting for it long enough, or for nobody."""

    def __init__(
        self,
        clock: Callable[[], float],
        budget_s: float = EXIT_TIMEOUT_S,
        exiting: Callable[[], bool] = interpreter_exiting,
        has_readers: Callable[[], bool] = program_has_threads,
    ) -> None:
        """Start counting ``budget_s`` seconds when ``exiting`` is first seen to be true.

        Args:
            clock: Monotonic seconds.
            budget_s: How long work is still sent.
            exiting: Tells whether the main thread has ended.
            has_readers: Tells whether another thread may still read results.
        """
        self._clock = clock
        self._budget_s = budget_s
        self._exiting = exiting
        self._has_readers = has_readers
        self._deadline: float | None = None

    def over(self) -> bool:
        """Return True if the interpreter is ending and the budget is spent."""
        if not self._exiting():
            return False
        if self._deadline is None:
            self._deadline = self._clock() + self._budget_s
        return self._clock() >= self._deadline

    def unread(self) -> bool:
        """Return True if the interpreter is ending and no thread is left that could wait for a result."""
        return self._exiting() and not self._has_readers()

    @staticmethod
    def error() -> ClientClosedError:
        """Return what an operation fails with that was not sent in time."""
        return ClientClosedError(
            "the program ended before this operation was sent; wait for its result before the end",
            reason="exit",
        )
