"""The transition table of polls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    BillingError,
    FutureExpiredError,
    NotFoundError,
    error_from_status,
)
from tinkex.pipeline.step import Failed, Large, Pending, PollAgain, PollPolicy, Progress, Ready, step

POLICY = PollPolicy()
STATUSES = [400, 401, 402, 403, 404, 408, 409, 410, 418, 422, 429, 500, 502, 503, 504]


def answer(status, **headers):
    """Return the error of an answer."""
    return error_from_status("x", status_code=status, headers=headers)


answers = st.one_of(
    st.builds(Pending, st.sampled_from(["active", "paused_capacity"]), st.none(), st.none() | st.floats(0, 60)),
    st.builds(Ready, st.integers()),
    st.builds(Failed, st.just(ValueError())),
    st.builds(Large, st.integers(-1, 10**9)),
    st.sampled_from(STATUSES).map(answer),
    st.sampled_from([APIConnectionError("x"), APITimeoutError("x"), ValueError("x"), KeyError("x")]),
    st.sampled_from([None, 3, "pending"]),
)
progresses = st.builds(
    Progress,
    quick=st.integers(0, 10_000),
    known=st.booleans(),
    bad_requests=st.integers(0, 5),
    missing=st.integers(0, 5),
    size=st.none() | st.integers(0, 10**9),
)


@given(progresses, answers, st.floats(0, 100), st.floats(0, 1, exclude_max=True))
def test_it_is_total(progress, outcome, elapsed, noise):
    """Every answer in every state gives one of three verdicts, and a wait is never negative nor long."""
    verdict = step(progress, outcome, elapsed=elapsed, noise=noise)
    assert isinstance(verdict, (PollAgain, Ready, Failed))
    if isinstance(verdict, PollAgain):
        assert 0 <= verdict.delay <= 60


@given(st.lists(answers, max_size=60), st.floats(0, 0.99))
def test_a_poll_answered_at_once_is_never_repeated_at_once(outcomes, elapsed):
    """No sequence of quick answers makes a hot loop; only the first word of a large result is followed up at once."""
    progress = Progress()
    for outcome in outcomes:
        verdict = step(progress, outcome, elapsed=elapsed)
        if not isinstance(verdict, PollAgain):
            return
        first_word = isinstance(outcome, Large) and progress.size is None
        assert first_word or verdict.delay >= POLICY.initial_wait_s * (1 - POLICY.jitter)
        progress = verdict.progress


def test_a_large_result_is_asked_for_at_once_and_a_server_that_does_not_send_it_is_given_time():
    """The size is kept; told again instead of the result, it is polled like what is not done."""
    progress, delays = Progress(), []
    for _ in range(3):
        verdict = step(progress, Large(7))
        progress = verdict.progress
        delays.append(verdict.delay)
    assert (7, [0.0, 0.02, 0.03]) == (progress.size, [pytest.approx(delay) for delay in delays])
    assert "7 bytes" in verdict.reason
    assert 7 == step(progress, Pending()).progress.size


def test_waits_grow_from_20_ms_to_the_limit_and_start_again_after_a_long_poll():
    """Quick answers in a row wait longer and longer; an answer that took its time starts over, at once."""
    progress, delays = Progress(), []
    for _ in range(40):
        verdict = step(progress, Pending())
        progress = verdict.progress
        delays.append(verdict.delay)
    assert (0.02, POLICY.max_wait_s) == (delays[0], delays[-1])
    assert delays == sorted(delays)
    held = step(progress, Pending(), elapsed=1.0)
    assert (0.0, 0) == (held.delay, held.progress.quick)


def test_jitter_only_lowers_a_wait():
    """Noise spreads the waits by at most the share that the policy names."""
    delays = [step(Progress(), Pending(), noise=noise).delay for noise in (0.0, 0.5, 0.999)]
    assert delays == sorted(delays, reverse=True)
    assert delays[-1] >= 0.02 * (1 - POLICY.jitter)


@pytest.mark.parametrize(
    "outcome", [Pending(retry_after=7.0), answer(429, **{"retry-after": "7"}), answer(503, **{"retry-after": "7"})]
)
def test_the_pause_that_the_server_asks_for_is_obeyed(outcome):
    """``retry_after`` wins over the table, however long the poll took."""
    assert 7.0 == step(Progress(), outcome, elapsed=0.0).delay
    assert 7.0 == step(Progress(), outcome, elapsed=30.0).delay


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_trouble_that_passes_is_polled_through_for_ever(status):
    """Retryable answers never fail the operation, and the future says that the queue is unknown."""
    progress = Progress()
    for _ in range(200):
        verdict = step(progress, answer(status))
        assert isinstance(verdict, PollAgain)
        progress = verdict.progress
    assert ("unknown", True) == (verdict.queue_state, verdict.reason is not None)


@pytest.mark.parametrize("status", [401, 403, 422, 418])
def test_other_refusals_fail_typed_at_once(status):
    """An answer that will not change is the outcome, as the error that it is."""
    error = answer(status)
    assert Failed(error) == step(Progress(known=True), error)


def test_a_missing_payment_fails_and_does_not_pause():
    """402 is a BillingError for the user to see."""
    verdict = step(Progress(known=True), answer(402))
    assert isinstance(verdict.error, BillingError)


def test_400_is_asked_again_three_times_and_the_budget_is_renewed_by_a_useful_answer():
    """Four 400 in a row fail; a pending answer in between starts the count again."""
    progress = _after(Progress(), [answer(400)] * 3)
    assert isinstance(step(progress, answer(400)).error, BadRequestError)
    renewed = _after(progress, [Pending()])
    assert isinstance(step(renewed, answer(400)), PollAgain)


def test_404_fails_at_once_if_the_server_never_knew_the_operation():
    """An id that was never seen pending is a NotFoundError."""
    assert isinstance(step(Progress(), answer(404)).error, NotFoundError)


@pytest.mark.parametrize("earlier", [Pending(), answer(408), APITimeoutError("cut")])
def test_404_after_the_operation_was_known_is_asked_again_and_then_expired(earlier):
    """A result that was delivered to a poll that was cut is reported as gone, not as unknown."""
    progress = _after(Progress(), [earlier] + [answer(404)] * 3)
    verdict = step(progress, answer(404))
    assert isinstance(verdict.error, FutureExpiredError)
    assert isinstance(verdict.error.__cause__, NotFoundError)


def test_410_is_expired():
    """410 is a FutureExpiredError with the answer as its cause."""
    verdict = step(Progress(), answer(410))
    assert isinstance(verdict.error, FutureExpiredError)
    assert 410 == verdict.error.__cause__.status_code


def test_an_exception_that_is_not_ours_fails_the_operation_with_itself():
    """A programming error is neither retried nor renamed."""
    error = ZeroDivisionError()
    assert error is step(Progress(), error).error


def _after(progress, outcomes):
    for outcome in outcomes:
        verdict = step(progress, outcome)
        assert isinstance(verdict, PollAgain)
        progress = verdict.progress
    return progress
