"""A circuit breaker: while a server is unwell, requests fail at once instead of adding to its load.

==========  ===============================================================  =====================================
state       what happens                                                     what follows
==========  ===============================================================  =====================================
closed      an answer                                                        closed; failures are counted anew
closed      a failure, fewer than ``failures`` in a row                      closed
closed      a failure, the last of ``failures`` in a row                     open, for ``open_s``
open        a request within ``open_s``                                      refused: :class:`CircuitOpenError`
open        a request after that                                             half-open; sent, as a trial
half-open   a request while ``half_open`` trials are under way               refused
half-open   any other request                                                half-open; sent, as a trial
half-open   a trial fails                                                    open, for ``open_s``
half-open   a trial ends without a verdict                                   half-open; its place is free again
not closed  an answer, also to a request sent before the breaker opened      closed
not closed  a failure of a request sent before the breaker opened            no change: it is old news
==========  ===============================================================  =====================================

A failure is what says that the server is unwell: no answer, or a status of 500 and above except 501. Everything else
that the server says is an answer, 4xx and 429 too. An error that no waiting would mend (a certificate that is not
trusted, a client that was closed) is neither.

All requests of a client go through one breaker, polls and heartbeats among them: there is one server. Nothing waits
here. A refused request fails with an error that is ``retryable`` and has the time that is left as its ``retry_after``,
so waiting is up to the one retry layer, and ends at once when the client is closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from tinkex.config import CircuitBreaker
from tinkex.errors import APIConnectionError, CircuitOpenError
from tinkex.http.body import Body
from tinkex.http.transport import Response, Sender

__all__ = ["Breaker", "GuardedSender"]

_log = logging.getLogger(__name__)

# When a refused request asks again while trials are under way; nobody knows how long those will take.
_LOOK_AGAIN_S = 1.0


class Breaker:
    """The state of one server. Public methods are thread-safe; none blocks."""

    def __init__(self, policy: CircuitBreaker, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed.

        Args:
            policy: The numbers.
            name: What messages call the server.
            clock: Monotonic seconds.
        """
        self._policy = policy
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._failed = 0  # in a row, while closed
        self._open_until: float | None = None  # None while closed
        self._opened = 0  # how often; a trial belongs to the opening before it
        self._trials = 0  # under way
        self._cause = ""

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "open" if self._clock() < self._open_until else "half-open"

    def enter(self) -> int | None:
        """Ask to send a request, and tell afterwards how it went, with what this returns.

        Returns:
            None for an ordinary request, else a number that marks a trial.

        Raises:
            CircuitOpenError: It is not to be sent now.
        """
        if self._open_until is None:  # the lock is not needed for one look, and this is the way of nearly all requests
            return None
        with self._lock:
            return self._enter_locked()

    def succeeded(self) -> None:
        """Take note of an answer."""
        if self._open_until is None and not self._failed:
            return
        with self._lock:
            closed = self._open_until is not None
            self._failed = self._trials = 0
            self._open_until = None
        if closed:
            _log.info("%s answers again", self._name)

    def failed(self, trial: int | None, cause: str) -> None:
        """Take note of a failure of a request for which :meth:`enter` returned ``trial``."""
        with self._lock:
            if trial is None and self._open_until is None:
                self._failed += 1
                opens = self._failed >= self._policy.failures
            else:
                opens = self._open_until is not None and trial == self._opened
            if opens:
                self._open_until = self._clock() + self._policy.open_s
                self._opened += 1
                self._failed = self._trials = 0
                self._cause = cause
        if opens:
            text = "%s is unwell (%s): nothing is sent to it for %g s"
            _log.warning(text, self._name, cause, self._policy.open_s)

    def gave_up(self, trial: int | None) -> None:
        """Take note of the end of a request that says nothing about the server."""
        with self._lock:
            if self._open_until is not None and trial == self._opened:
                self._trials -= 1

    def _enter_locked(self) -> int | None:
        if self._open_until is None:
            return None
        left = self._open_until - self._clock()
        if left > 0 or self._trials >= self._policy.half_open:
            raise self._refusal_locked(left)
        self._trials += 1
        return self._opened

    def _refusal_locked(self, left: float) -> CircuitOpenError:
        if left > 0:
            what, wait = f"it is tried again in {left:.1f} s", left
        else:
            what, wait = "one request is under way to try it", min(_LOOK_AGAIN_S, self._policy.open_s)
        return CircuitOpenError(
            f"not sent: {self._name} has failed too often in a row (last: {self._cause}); {what}", retry_after=wait
        )


class GuardedSender:
    """Sends through a breaker; safe for any number of threads."""

    def __init__(self, sender: Sender, breaker: Breaker) -> None:
        """Guard ``sender``; whoever shares this object shares the breaker."""
        self._sender = sender
        self._breaker = breaker

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> Response:
        """Send one request once, if the breaker lets it through.

        Raises:
            CircuitOpenError: It does not; nothing was sent.
            TinkexError: What the sender raises.
        """
        breaker = self._breaker
        try:
            trial = breaker.enter()
        except CircuitOpenError as error:
            error.method, error.path = method, path
            raise
        try:
            response = self._sender.send(method, path, body=body, headers=headers, timeout=timeout, redirects=redirects)
        except BaseException as error:
            if isinstance(error, APIConnectionError) and error.retryable:
                breaker.failed(trial, error.message)
            else:
                breaker.gave_up(trial)
            raise
        if response.status >= 500 and response.status != 501:
            breaker.failed(trial, f"HTTP {response.status}")
        else:
            breaker.succeeded()
        return response

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()
