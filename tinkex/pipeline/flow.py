"""Budgets: how much may be on its way to the server at once.

A budget is bounded, first come first served among blocked threads, refuses at once what could never fit, and
on close wakes and fails whoever waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from tinkex.errors import FlowControlError, TinkexError

__all__ = ["ByteBudget", "SampleGate", "SamplePolicy"]

_LOOK_UP_S = 1.0


class _Ticket:
    """One blocked thread."""

    __slots__ = ("charge", "error", "owner", "size", "turn")

    def __init__(self, size: int, owner: object, lock: threading.Lock) -> None:
        self.size = size
        self.owner = owner
        self.turn = threading.Condition(lock)
        self.charge: int | None = None
        self.error: TinkexError | None = None


class _Turnstile:
    """First come, first served; the subclass says what may pass now and what it costs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._waiting: deque[_Ticket] = deque()
        self._closed: TinkexError | None = None

    def _admit_locked(self, size: int) -> int | None:
        """Take what ``size`` costs now and return it, or return None if it must wait."""
        raise NotImplementedError

    def _recheck_locked(self) -> float | None:
        """Return the seconds until time alone may admit the first in line; None if only a release can."""
        return None

    def _enter(
        self, size: int, owner: object, timeout: float | None, give_up: Callable[[], bool] | None = None
    ) -> int | None:
        """Pass, waiting if need be; return the charge, or None after ``timeout`` or if ``give_up()``.

        Raises:
            TinkexError: The turnstile was closed, or the waiters of ``owner`` were sent away.
        """
        with self._lock:
            if self._closed is not None:
                raise self._closed
            charge = None if self._waiting else self._admit_locked(size)
            if charge is not None or timeout == 0:
                return charge
            ticket = _Ticket(size, owner, self._lock)
            self._waiting.append(ticket)
            try:
                self._wait_locked(ticket, None if timeout is None else time.monotonic() + timeout, give_up)
            except BaseException:  # Ctrl-C: give back what may have been granted meanwhile
                self._give_up_locked(ticket)
                raise
            if ticket.error is not None:
                raise ticket.error
            if ticket.charge is None:
                self._give_up_locked(ticket)
            return ticket.charge

    def _wait_locked(self, ticket: _Ticket, deadline: float | None, give_up: Callable[[], bool] | None) -> None:
        while ticket.charge is None and ticket.error is None:
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or (give_up is not None and give_up()):
                return
            recheck = self._recheck_locked() if self._waiting[0] is ticket else None
            look_up = None if give_up is None else _LOOK_UP_S
            ticket.turn.wait(min((t for t in (left, recheck, look_up) if t is not None), default=None))
            self._grant_locked()

    def _give_up_locked(self, ticket: _Ticket) -> None:
        if ticket.charge is not None:
            self._refund_locked(ticket.charge)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        self._grant_locked()

    def _refund_locked(self, charge: int) -> None:
        raise NotImplementedError

    def _grant_locked(self) -> None:
        """Admit from the front of the line while the rule allows it."""
        while self._waiting:
            ticket = self._waiting[0]
            ticket.charge = self._admit_locked(ticket.size)
            ticket.turn.notify()  # passes, or is first in line now and must watch the clock
            if ticket.charge is None:
                break
            self._waiting.popleft()

    def send_away(self, owner: object, error: TinkexError) -> None:
        """Fail those who wait on behalf of ``owner``."""
        with self._lock:
            for ticket in [ticket for ticket in self._waiting if ticket.owner is owner]:
                self._waiting.remove(ticket)
                ticket.error = error
                ticket.turn.notify()
            self._grant_locked()

    def close(self, error: TinkexError) -> None:
        """Fail everyone who waits and everyone who comes; the first error given is the one raised."""
        with self._lock:
            self._closed = self._closed or error
            for ticket in self._waiting:
                ticket.error = self._closed
                ticket.turn.notify()
            self._waiting.clear()


class ByteBudget(_Turnstile):
    """A number of bytes that may be on their way at once. Public methods are thread-safe."""

    def __init__(self, limit: int) -> None:
        """Make a budget of ``limit`` bytes."""
        super().__init__()
        self.limit = limit
        # guarded by _lock
        self._free = limit

    def acquire(self, size: int, *, owner: object = None, timeout: float | None = None) -> bool:
        """Take ``size`` bytes, waiting until they are free.

        Args:
            size: Bytes, at least 0.
            owner: Whom :meth:`send_away` may fail this wait for.
            timeout: Seconds to wait; None waits as long as it takes, 0 not at all.

        Returns:
            False if the time was up.

        Raises:
            FlowControlError: ``size`` exceeds the whole budget, so it would wait for ever.
            TinkexError: The budget was closed, or the waiters of ``owner`` were sent away.
        """
        if size > self.limit:
            raise FlowControlError(
                f"this request is estimated at {size} bytes, and at most {self.limit} may be on their way at "
                "once; send less in one call, or raise max_upload_bytes"
            )
        return self._enter(size, owner, timeout) is not None

    def take(self, size: int) -> None:
        """Take ``size`` bytes at once, beyond the limit if need be; for a thread that must not wait."""
        with self._lock:
            self._free -= size

    def release(self, size: int) -> None:
        """Give back ``size`` bytes."""
        with self._lock:
            self._refund_locked(size)
            self._grant_locked()

    def _admit_locked(self, size: int) -> int | None:
        if size > self._free:
            return None
        self._free -= size
        return size

    def _refund_locked(self, charge: int) -> None:
        self._free += charge


@attrs.frozen(kw_only=True, slots=True)
class SamplePolicy:
    """How samples are admitted; the defaults are those of the official client."""

    max_submits: int = 400
    max_bytes: int = 10_485_760
    throttled_submits: int = 10
    throttled_s: float = 10.0
    """How long after the end of a pause the server is treated with care."""
    throttled_charge: int = 20
    """Each byte counts this often meanwhile."""
    first_pause_s: float = 0.02
    """A pause that the server gives no length; it doubles with each one before a sample is accepted again."""
    pause_s: float = 1.0
    """The longest such pause."""
    long_pause_s: float = 5.0
    long_pause_size: int = 131_072
    """The longest such pause after a request of more bytes than this."""


class SampleGate(_Turnstile):
    """Admits samples to the server; shared by all sampling clients of a session.

    Public methods are thread-safe. A sample passes if no 429 pause is on, if fewer than ``max_submits`` are
    being submitted (``throttled_submits`` within ``throttled_s`` after a pause), and if the byte budget is
    not below zero; one sample may take it below.
    """

    def __init__(self, policy: SamplePolicy | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an open gate."""
        super().__init__()
        self._policy = policy or SamplePolicy()
        self._clock = clock
        # guarded by _lock
        self._submitting = 0
        self._free = self._policy.max_bytes
        self._paused_until = float("-inf")
        self._refusals = 0  # pauses since a sample was accepted

    def enter(
        self,
        size: int,
        *,
        owner: object = None,
        timeout: float | None = None,
        give_up: Callable[[], bool] | None = None,
    ) -> int | None:
        """Wait for permission to submit a sample.

        Args:
            size: Estimated bytes.
            owner: Whom :meth:`send_away` may fail this wait for.
            timeout: Seconds to wait; None waits as long as it takes, 0 not at all.
            give_up: Asked about once a second, with the lock held; if true, the wait is over.

        Returns:
            The charge to give to :meth:`leave`, or None if the wait ended without permission.

        Raises:
            TinkexError: The gate was closed, or the waiters of ``owner`` were sent away.
        """
        return self._enter(size, owner, timeout, give_up)

    def leave(self, charge: int, *, accepted: bool = False) -> None:
        """Say that the submit was answered, and whether the server took the sample."""
        with self._lock:
            self._refusals = 0 if accepted else self._refusals
            self._refund_locked(charge)
            self._grant_locked()

    def throttle(self, size: int, retry_after: float | None = None) -> None:
        """Pause everyone after a 429.

        Args:
            size: Estimated bytes of the sample that met it.
            retry_after: Seconds that the server asked for, if it did.
        """
        policy, now = self._policy, self._clock()
        longest = policy.long_pause_s if size > policy.long_pause_size else policy.pause_s
        with self._lock:
            if retry_after is None and now < self._paused_until:
                return  # sent before the pause began, so it says nothing new
            pause = min(longest, policy.first_pause_s * 2.0 ** min(self._refusals, 30))
            self._refusals += 1
            self._paused_until = max(self._paused_until, now + (pause if retry_after is None else retry_after))

    def _admit_locked(self, size: int) -> int | None:
        policy, now = self._policy, self._clock()
        throttled = now < self._paused_until + policy.throttled_s
        submits = policy.throttled_submits if throttled else policy.max_submits
        if now < self._paused_until or self._submitting >= submits or self._free < 0:
            return None
        charge = size * (policy.throttled_charge if throttled else 1)
        self._submitting += 1
        self._free -= charge
        return charge

    def _refund_locked(self, charge: int) -> None:
        self._submitting -= 1
        self._free += charge

    def _recheck_locked(self) -> float | None:
        now = self._clock()
        ends = (self._paused_until, self._paused_until + self._policy.throttled_s)
        return min((end - now for end in ends if end > now), default=None)
