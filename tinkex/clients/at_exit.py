"""The end of a program that did not close its clients.

By then ``concurrent.futures`` has let its workers send what was queued, and all threads that are no daemons have ended.
What remains is to wait, for a bounded time, for what the server is still working on, and to say so; whoever does not
want to wait presses Ctrl-C. Samples are not waited for unless a callback wants them: nobody else is left to read them.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinkex.clients.session import Session

__all__ = ["close_all", "forget", "remember"]

_open: weakref.WeakSet[Session] = weakref.WeakSet()


def remember(session: Session) -> None:
    """Close ``session`` at the end of the program, unless it was closed or collected before."""
    if not _open:
        # Last in, first out: whatever the session uses has registered before, and is ended after it.
        atexit.unregister(close_all)
        atexit.register(close_all)
    _open.add(session)


def forget(session: Session) -> None:
    """The session is closed."""
    _open.discard(session)


def close_all() -> None:
    """Wait for what the open sessions have under way, and close them."""
    for session in list(_open):
        unread = session.give_up_unread()
        if unread:
            _say(f"gave up {unread} samples that nobody can read any more")
        pending, seconds = len(session.pending()), session.config.exit_timeout_s
        if pending:
            _say(f"waiting up to {seconds:g} s for {pending} submitted operations (Ctrl-C to give up)")
        try:
            session.close(drain=True, timeout=seconds if pending else 0.0)
        except KeyboardInterrupt:
            _say(f"gave up {len(session.pending())} operations")


def _say(message: str) -> None:
    sys.stderr.write(f"tinkex: {message}\n")
    sys.stderr.flush()
