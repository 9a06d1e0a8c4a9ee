"""The retry loop on a clock that only moves when somebody waits."""

from __future__ import annotations

import logging
import threading

import pytest

from tinkex.config import RetryPolicy
from tinkex.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    CircuitOpenError,
    ClientClosedError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from tinkex.http import RetryDetails, retry


class Waits:
    """A clock and a sleep that belong together."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """Tell the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        self.now += seconds


class Failing:
    """An attempt that fails some times, then succeeds."""

    def __init__(self, *failures: BaseException, forever: bool = False) -> None:
        self.failures = list(failures)
        self.forever = forever
        self.numbers: list[int] = []

    def __call__(self, number: int) -> str:
        """Fail while there is something to fail with."""
        self.numbers.append(number)
        if self.forever:
            raise self.failures[0]
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.fixture
def waits() -> Waits:
    """Make time stand still."""
    return Waits()


@pytest.fixture
def run(waits):
    """Run a policy without jitter on the fake clock."""

    def start(attempt, stop=None, on_retry=None, **policy):
        return retry.call(
            RetryPolicy(**{"jitter": 0.0, **policy}),
            attempt,
            stop=stop or threading.Event(),
            operation="POST /x",
            on_retry=on_retry,
            clock=waits.clock,
            sleep=waits.sleep,
        )

    return start


def _lost() -> APIConnectionError:
    return APIConnectionError("lost", method="POST", path="/x")


def test_a_success_is_returned_at_once(run, waits):
    """Nothing waits when nothing fails, and the attempt is told that it is the first."""
    attempt = Failing()
    assert run(attempt) == "done"
    assert (attempt.numbers, waits.slept) == ([1], [])


def test_waits_double_up_to_the_largest(run, waits):
    """Back-off starts small, doubles, and stays at its limit."""
    attempt = Failing(*[_lost() for _ in range(6)])
    assert run(attempt, initial_wait_s=0.02, max_wait_s=0.2) == "done"
    assert waits.slept == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.2, 0.2])
    assert attempt.numbers == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 1.0), (0.999, 0.75025)])
def test_jitter_only_shortens(run, waits, monkeypatch, drawn, share):
    """A wait is lowered by a random share of at most the jitter."""
    monkeypatch.setattr("random.random", lambda: drawn)
    run(Failing(_lost()), jitter=0.25, initial_wait_s=1.0)
    assert waits.slept == pytest.approx([share])


def test_what_the_server_asks_for_goes_before_the_policy(run, waits):
    """Retry-After is obeyed to the letter, longer or shorter than the policy's wait."""
    error = RateLimitError("slow down", status_code=429, headers={"Retry-After": "7"})
    run(Failing(error), max_wait_s=0.1)
    assert waits.slept == [7.0]


def test_attempts_are_limited(run, waits):
    """After the last attempt its error is raised and knows how many there were."""
    error = _lost()
    with pytest.raises(APIConnectionError) as caught:
        run(Failing(error, forever=True), max_attempts=4)
    assert caught.value is error
    assert error.attempts == 4
    assert "4 attempts" in str(error)
    assert len(waits.slept) == 3


def test_a_single_attempt_never_waits(waits):
    """The policy "none" is one attempt."""
    attempt = Failing(_lost())
    with pytest.raises(APIConnectionError):
        retry.call(RetryPolicy.none(), attempt, stop=threading.Event(), sleep=waits.sleep)
    assert (attempt.numbers, waits.slept) == ([1], [])


def test_time_is_limited_and_never_waited_in_vain(run, waits):
    """It gives up when the next attempt would come too late, not after having waited for it."""
    with pytest.raises(APIConnectionError):
        run(Failing(_lost(), forever=True), max_elapsed_s=10.0, initial_wait_s=3.0, max_wait_s=3.0)
    assert waits.slept == [3.0, 3.0, 3.0]


def test_a_very_long_series_of_failures_does_not_overflow(run, waits):
    """Doubling stops mattering long before numbers end."""
    with pytest.raises(APIConnectionError):
        run(Failing(_lost(), forever=True), max_attempts=1500, max_elapsed_s=1e9, max_wait_s=1.0)
    assert waits.slept[-1] == 1.0


def test_what_cannot_be_retried_is_raised_at_once(run, waits):
    """An error that is not retryable ends it, with the number of attempts so far."""
    attempt = Failing(_lost(), NotFoundError("no", status_code=404))
    with pytest.raises(NotFoundError) as caught:
        run(attempt)
    assert caught.value.attempts == 2
    assert len(waits.slept) == 1


@pytest.mark.parametrize("bug", [KeyError("x"), AttributeError("y"), ConnectionResetError("z"), KeyboardInterrupt()])
def test_bugs_are_neither_repeated_nor_renamed(run, waits, bug):
    """Whatever is not an error of ours comes out as it is, after one attempt."""
    attempt = Failing(bug, forever=True)
    with pytest.raises(type(bug)) as caught:
        run(attempt)
    assert caught.value is bug
    assert (attempt.numbers, waits.slept) == ([1], [])


def test_a_closed_client_makes_no_attempt(run):
    """An event that is already set means not to begin."""
    stop = threading.Event()
    stop.set()
    attempt = Failing()
    with pytest.raises(ClientClosedError, match="POST /x was given up"):
        run(attempt, stop=stop)
    assert attempt.numbers == []


def test_closing_during_an_attempt_makes_it_the_last(run, waits):
    """The attempt's own error is raised; no wait, no hot loop."""
    stop = threading.Event()
    numbers = []

    def attempt(number):
        numbers.append(number)
        stop.set()
        raise _lost()

    with pytest.raises(APIConnectionError):
        run(attempt, stop=stop)
    assert (numbers, waits.slept) == ([1], [])


def test_closing_during_a_wait_ends_it_without_another_attempt():
    """A wait of many seconds ends with close, and the error says what was being tried and why it had failed."""
    stop = threading.Event()
    attempt = Failing(_lost(), forever=True)
    policy = RetryPolicy(initial_wait_s=60.0, max_wait_s=60.0, jitter=0.0)
    with pytest.raises(ClientClosedError) as caught:
        retry.call(policy, attempt, stop=stop, on_retry=lambda details: stop.set())
    assert attempt.numbers == [1]
    assert isinstance(caught.value.__cause__, APIConnectionError)


def test_each_wait_is_reported_as_a_record_before_it_begins(run, waits):
    """Observers learn what is tried, how often, how long the wait is and why."""
    first, second = _lost(), RateLimitError("slow", status_code=429)
    seen: list[tuple[RetryDetails, int]] = []
    run(
        Failing(first, second),
        on_retry=lambda details: seen.append((details, len(waits.slept))),
        initial_wait_s=1.0,
    )
    assert seen == [
        (RetryDetails(operation="POST /x", attempt=1, wait_s=1.0, elapsed_s=0.0, cause=first), 0),
        (RetryDetails(operation="POST /x", attempt=2, wait_s=2.0, elapsed_s=1.0, cause=second), 1),
    ]


@pytest.mark.parametrize(("wait", "level"), [(0.1, logging.INFO), (2.0, logging.WARNING)])
def test_waits_that_a_user_notices_are_warnings(run, caplog, wait, level):
    """Hiccups stay below the level that Python prints by itself."""
    caplog.set_level(logging.DEBUG, "tinkex")
    run(Failing(_lost()), initial_wait_s=wait)
    assert [(record.levelno, record.name) for record in caplog.records] == [(level, "tinkex.http.retry")]
    assert "lost" in caplog.text


def test_the_caller_may_rule_errors_out(waits):
    """A predicate can leave retryable errors to the caller."""
    attempt = Failing(_lost(), forever=True)
    with pytest.raises(APIError):
        retry.call(RetryPolicy(), attempt, stop=threading.Event(), retryable=lambda error: False, sleep=waits.sleep)
    assert attempt.numbers == [1]


@pytest.mark.parametrize(
    ("first", "repeated"),
    [
        (APIConnectionError("broke"), True),
        (APIConnectionError("refused", maybe_sent=False), False),
        (APITimeoutError("no answer"), True),
        (CircuitOpenError("open"), False),
        (InternalServerError("x", status_code=502), True),
        (APIStatusError("x", status_code=408), True),
        (RateLimitError("x", status_code=429), False),
        (ConflictError("x", status_code=409), False),
    ],
)
def test_an_error_says_whether_an_earlier_attempt_may_have_been_received(run, first, repeated):
    """Then what the server says now may be about that one. The first error of a call never says so."""
    last = NotFoundError("gone", status_code=404)
    with pytest.raises(NotFoundError) as caught:
        run(Failing(first, RateLimitError("x", status_code=429), last))
    assert (repeated, False) == (caught.value.repeated, first.repeated)
