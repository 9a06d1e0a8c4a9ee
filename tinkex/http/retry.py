"""The only retry layer: a :class:`~tinkex.config.RetryPolicy` carried out by tenacity."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from tinkex.config import RetryPolicy
from tinkex.errors import APIConnectionError, APIError, APIStatusError, ClientClosedError, TinkexError

if TYPE_CHECKING:
    import tenacity

__all__ = ["RetryDetails", "call"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

# A wait that a user would notice is a warning, a shorter one is information.
_NOTICEABLE_S = 0.5
# 2.0**60 waits are far above any max_wait_s; a larger power would overflow in the end.
_MAX_DOUBLINGS = 60


@attrs.frozen(kw_only=True, slots=True)
class RetryDetails:
    """One wait between two attempts.

    Attributes:
        operation: What is being tried.
        attempt: Number of the attempt that failed, 1 for the first.
        wait_s: Seconds until the next one.
        elapsed_s: Seconds since the start of the first one.
        cause: Why it failed.
    """

    operation: str
    attempt: int
    wait_s: float
    elapsed_s: float
    cause: TinkexError


def is_retryable(error: TinkexError) -> bool:
    """Ask the error itself."""
    return error.retryable


def _maybe_done(error: APIError) -> bool:
    """Tell whether the server may have done what it was asked for, although it did not say so."""
    if isinstance(error, APIConnectionError):
        return error.maybe_sent
    # A proxy may answer these in place of a server that goes on.
    return isinstance(error, APIStatusError) and (error.status_code == 408 or error.status_code >= 500)


@attrs.define(kw_only=True, slots=True)
class _Run(Generic[T]):
    """One logical call: its attempts, counted, and the questions that tenacity asks between them."""

    policy: RetryPolicy
    attempt: Callable[[int], T]
    stop: threading.Event
    operation: str
    retryable: Callable[[TinkexError], bool]
    on_retry: Callable[[RetryDetails], None] | None
    clock: Callable[[], float]
    started: float
    made: int = 0
    maybe_done: bool = False
    last: APIError | None = None
    failed: TinkexError | None = None  # the first attempt's error, until tenacity has taken note of it

    def __call__(self) -> T:
        """Make the next attempt, unless the client was closed."""
        if self.failed is not None:
            error, self.failed = self.failed, None
            raise error
        if self.stop.is_set():
            raise ClientClosedError(f"{self.operation} was given up: the client is closed") from self.last
        self.made += 1
        try:
            return self.attempt(self.made)
        except APIError as error:
            error.attempts, error.repeated = self.made, self.maybe_done
            self.maybe_done = self.maybe_done or _maybe_done(error)
            self.last = error
            raise

    def may_retry(self, state: tenacity.RetryCallState) -> bool:
        error = _failure(state)
        return isinstance(error, TinkexError) and self.retryable(error)

    def wait(self, state: tenacity.RetryCallState) -> float:
        error = _failure(state)
        asked = error.retry_after if isinstance(error, TinkexError) else None
        if asked is not None:
            return asked
        doubled = self.policy.initial_wait_s * 2.0 ** min(self.made - 1, _MAX_DOUBLINGS)
        share = self.policy.jitter * random.random()  # noqa: S311 - spreads load, guards nothing
        return max(0.0, min(doubled, self.policy.max_wait_s) * (1.0 - share))

    def give_up(self, state: tenacity.RetryCallState) -> bool:
        """Stop after the last attempt, or when the next one would come too late: never wait in vain."""
        # Waiting on an event that is set returns at once: without this, closing would mean trying in a hot
        # loop.
        if self.stop.is_set():
            return True
        due = self.clock() - self.started + state.upcoming_sleep
        return self.made >= self.policy.max_attempts or due > self.policy.max_elapsed_s

    def report(self, state: tenacity.RetryCallState) -> None:
        error = _failure(state)
        assert isinstance(error, TinkexError)  # noqa: S101 - may_retry saw to it
        details = RetryDetails(
            operation=self.operation,
            attempt=self.made,
            wait_s=state.upcoming_sleep,
            elapsed_s=self.clock() - self.started,
            cause=error,
        )
        level = logging.WARNING if details.wait_s >= _NOTICEABLE_S else logging.INFO
        _log.log(level, "%s: trying again in %.2f s: %s", self.operation, details.wait_s, error)
        if self.on_retry is not None:
            self.on_retry(details)


def call(
    policy: RetryPolicy,
    attempt: Callable[[int], T],
    *,
    stop: threading.Event,
    operation: str = "request",
    retryable: Callable[[TinkexError], bool] = is_retryable,
    on_retry: Callable[[RetryDetails], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Make attempts until one succeeds, fails for good, or the policy is used up.

    Args:
        policy: How often, how long, and how far apart.
        attempt: Makes one attempt; it is given the attempt's number, 1 for the first.
        stop: Ends a wait at once, and after it is set no further attempt is made.
        operation: Name for logs and errors.
        retryable: Which errors of ours to try again; by default those whose ``retryable`` is true. Errors
            that are not ours (bugs) are never tried again and never renamed.
        on_retry: Told of each wait before it begins.
        clock: Monotonic seconds.
        sleep: Waits some seconds; by default it waits on ``stop``.

    Returns:
        What the attempt returned.

    Raises:
        TinkexError: The last attempt's error, with ``attempts`` and ``repeated`` set if it is an :class:`APIError`.
        ClientClosedError: ``stop`` was set before the first attempt or during a wait; the last attempt's
            error is its ``__cause__``.
    """
    run = _Run(
        policy=policy,
        attempt=attempt,
        stop=stop,
        operation=operation,
        retryable=retryable,
        on_retry=on_retry,
        clock=clock,
        started=clock(),
    )
    # Nearly all calls need no more than one attempt, and tenacity's loop would cost each of them CPU.
    try:
        return run()
    except TinkexError as error:
        if not retryable(error):
            raise
        run.failed = error
    import tenacity  # a program that meets no failure has no use for it

    retrying = tenacity.Retrying(
        sleep=sleep or tenacity.sleep_using_event(stop),
        wait=run.wait,
        retry=run.may_retry,
        stop=run.give_up,
        before_sleep=run.report,
        reraise=True,
    )
    return retrying(run)


def _failure(state: tenacity.RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
