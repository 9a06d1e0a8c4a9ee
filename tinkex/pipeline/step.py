"""What an answer to a poll means: values, and one pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import attrs

from tinkex.errors import APIStatusError, FutureExpiredError, TinkexError

__all__ = ["Failed", "Large", "Outcome", "Pending", "PollAgain", "PollPolicy", "Progress", "Ready", "step"]


@attrs.frozen(slots=True)
class Pending:
    """The operation is not done; ``retry_after`` is in seconds if the server asked for a pause."""

    queue_state: str = "active"
    reason: str | None = None
    retry_after: float | None = None


@attrs.frozen(slots=True)
class Ready:
    """The operation is done; ``value`` is its decoded result."""

    value: Any


@attrs.frozen(slots=True)
class Failed:
    """The operation failed."""

    error: BaseException


@attrs.frozen(slots=True)
class Large:
    """The operation is done, and its result of ``size`` bytes is sent when it is asked for by itself."""

    size: int


Outcome = Union[Pending, Ready, Failed, Large]


@attrs.frozen(kw_only=True, slots=True)
class PollPolicy:
    """How polls are repeated. Times are seconds."""

    quick_s: float = 1.0
    """An answer that came sooner than this is no long poll; the next poll waits."""
    initial_wait_s: float = 0.02
    growth: float = 1.5
    max_wait_s: float = 3.0
    jitter: float = 0.25
    """A wait is lowered by a random share of up to this."""
    max_bad_requests: int = 3
    """Further polls after a 400, which some servers send for a moment."""
    max_missing: int = 3
    """Further polls after a 404 for an operation that the server knew before."""


@attrs.frozen(kw_only=True, slots=True)
class Progress:
    """What is remembered of the polls of one operation.

    Attributes:
        quick: Answers in a row that came at once.
        known: The server has not denied knowing the operation in an earlier poll.
        bad_requests: Answers 400 since the last useful one.
        missing: Answers 404 since the last useful one.
        size: Bytes of the result, once the server has told them; from then on the result itself is asked for.
    """

    quick: int = 0
    known: bool = False
    bad_requests: int = 0
    missing: int = 0
    size: int | None = None


@attrs.frozen(slots=True)
class PollAgain:
    """Ask again after ``delay`` seconds."""

    progress: Progress
    delay: float
    queue_state: str
    reason: str | None


def step(
    progress: Progress,
    outcome: object,
    *,
    elapsed: float = 0.0,
    policy: PollPolicy | None = None,
    noise: float = 0.0,
) -> PollAgain | Ready | Failed:
    """Decide what follows from the answer to a poll. Pure and total.

    =====================================  ===========================================================
    answer                                 what follows
    =====================================  ===========================================================
    ``Ready``, ``Failed``                  the operation is done
    ``Pending``                            ask again
    ``Large``                              ask for the result at once; the second time, ask again as for ``Pending``
    400                                    ask again ``max_bad_requests`` times, then fail
    404, known before                      ask again ``max_missing`` times, then ``FutureExpiredError``
    410                                    ``FutureExpiredError``
    any other retryable ``TinkexError``    ask again
    (408, 429, 5xx, no connection)
    any other exception                    fail with it
    =====================================  ===========================================================

    Asking again happens after the pause that the server asked for; else at once if the answer took
    ``quick_s`` or longer, as a long poll does; else after a wait that grows with each quick answer in a row.
    After a quick answer the wait is never shorter than about ``initial_wait_s``, whatever the server asks
    for.

    Args:
        progress: What is remembered of earlier polls.
        outcome: What ``retrieve`` returned (an ``Outcome``) or raised.
        elapsed: How long the poll took.
        policy: The numbers.
        noise: A random number in [0, 1) that spreads the waits.

    Returns:
        What to do, and what to remember.
    """
    policy = policy or PollPolicy()
    if isinstance(outcome, (Ready, Failed)):
        return outcome
    if isinstance(outcome, Pending):
        after = attrs.evolve(progress, known=True, bad_requests=0, missing=0)
        return _again(after, outcome.retry_after, elapsed, policy, noise, outcome.queue_state, outcome.reason)
    if isinstance(outcome, Large):
        return _fetch(progress, outcome, elapsed, policy, noise)
    if not isinstance(outcome, Exception):
        return Failed(TinkexError(f"a poll returned {outcome!r:.80}, which is not an outcome"))
    verdict = _after_error(progress, outcome, policy)
    if isinstance(verdict, Failed):
        return verdict
    retry_after = outcome.retry_after if isinstance(outcome, TinkexError) else None
    return _again(verdict, retry_after, elapsed, policy, noise, "unknown", str(outcome))


def _fetch(progress: Progress, large: Large, elapsed: float, policy: PollPolicy, noise: float) -> PollAgain:
    """Ask for the result itself; a server that goes on telling its size instead is not asked in a hurry."""
    size = max(0, large.size)
    after = attrs.evolve(progress, known=True, bad_requests=0, missing=0, size=size)
    reason = f"its result of {size} bytes is to be fetched"
    if progress.size is None:
        return PollAgain(attrs.evolve(after, quick=0), 0.0, "active", reason)
    return _again(after, None, elapsed, policy, noise, "active", reason)


def _after_error(progress: Progress, error: Exception, policy: PollPolicy) -> Progress | Failed:
    """Return what to remember if the poll is to be repeated, else the failure."""
    status = error.status_code if isinstance(error, APIStatusError) else None
    rule = _STATUS_RULES.get(status) if status is not None else None
    if rule is not None:
        return rule(progress, error, policy)
    if isinstance(error, TinkexError) and error.retryable:
        return attrs.evolve(progress, known=True, bad_requests=0, missing=0)
    return Failed(error)


def _bad_request(progress: Progress, error: Exception, policy: PollPolicy) -> Progress | Failed:
    if progress.bad_requests >= policy.max_bad_requests:
        return Failed(error)
    return attrs.evolve(progress, bad_requests=progress.bad_requests + 1)


def _missing(progress: Progress, error: Exception, policy: PollPolicy) -> Progress | Failed:
    if not progress.known:
        return Failed(error)
    if progress.missing >= policy.max_missing:
        return _expired(progress, error, policy)
    return attrs.evolve(progress, missing=progress.missing + 1)


def _expired(_progress: Progress, error: Exception, _policy: PollPolicy) -> Failed:
    gone = FutureExpiredError(
        "the server no longer has the result of this operation, which may have been done; sample again, or "
        "continue training from the last checkpoint",
        request_id=getattr(error, "request_id", None),
    )
    gone.__cause__ = error
    return Failed(gone)


_STATUS_RULES: dict[int, Callable[[Progress, Exception, PollPolicy], Progress | Failed]] = {
    400: _bad_request,
    404: _missing,
    410: _expired,
}


def _again(
    progress: Progress,
    retry_after: float | None,
    elapsed: float,
    policy: PollPolicy,
    noise: float,
    queue_state: str,
    reason: str | None,
) -> PollAgain:
    quick = progress.quick + 1 if elapsed < policy.quick_s else 0
    if retry_after is not None:
        delay = max(retry_after, policy.initial_wait_s if quick else 0.0)
    elif quick:
        # The exponent is bounded because a float power is not.
        grown = policy.initial_wait_s * policy.growth ** min(quick - 1, 64)
        delay = min(grown, policy.max_wait_s) * (1 - policy.jitter * noise)
    else:
        delay = 0.0
    return PollAgain(attrs.evolve(progress, quick=quick), delay, queue_state, reason)
