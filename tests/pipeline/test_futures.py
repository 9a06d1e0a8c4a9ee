"""What a user may expect of an APIFuture."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import signal
import threading
import time

import pytest

from tinkex.errors import (
    APITimeoutError,
    ConfigurationError,
    PipelineBrokenError,
    RequestFailedError,
    ResultTimeoutError,
)
from tinkex.pipeline.futures import APIFuture, Promise, report_unread


def test_it_is_a_future_of_the_standard_library(h):
    """``wait``, ``as_completed`` and callbacks of concurrent.futures work."""
    promises = [Promise("sample") for _ in range(3)]
    futures = [promise.future for promise in promises]
    seen = []
    for future in futures:
        future.add_done_callback(seen.append)
    for index, promise in enumerate(promises):
        promise.start()
        assert promise.resolve(index)
    assert set(futures) == concurrent.futures.wait(futures, timeout=h.BOUND).done
    assert {0, 1, 2} == {future.result() for future in concurrent.futures.as_completed(futures, h.BOUND)}
    assert futures == seen


def test_phases_are_recorded_and_elapsed_stands_still_at_the_end(h):
    """Each phase has its time, and the age of a done operation does not grow."""
    clock = h.Clock()
    promise = Promise("optim_step", clock=clock)
    clock.now += 1
    promise.start()
    promise.accept("r1")
    clock.now += 2
    promise.resolve("x")
    clock.now += 4
    assert (1000.0, 1001.0, 1003.0, None) == _times(promise.future)
    promise.future.result()
    assert (1000.0, 1001.0, 1003.0, 1007.0) == _times(promise.future)
    assert 3.0 == promise.future.elapsed


def _times(future):
    phases = future.phases
    return phases.submitted, phases.accepted, phases.ready, phases.fetched


@pytest.mark.parametrize(
    ("steps", "waits_for"),
    [
        ([], "its turn to be sent"),
        ([lambda p: p.start()], "the server to accept it"),
        ([lambda p: p.start(), lambda p: p.accept("r7")], "the server to finish it"),
    ],
)
def test_a_timeout_says_what_it_waits_for_and_what_to_do(steps, waits_for):
    """The text has the operation, the queue state and its reason, what is waited for and the next step."""
    promise = Promise("forward_backward")
    for act in steps:
        act(promise)
    promise.queue("paused_capacity", "no free trainer")
    with pytest.raises(ResultTimeoutError) as caught:
        promise.future.result(timeout=0.001)
    text = str(caught.value)
    for part in ("forward_backward", waits_for, "paused_capacity (no free trainer)", "call result() again"):
        assert part in text
    assert (("r7" in text), isinstance(caught.value, TimeoutError)) == (bool(steps[1:]), True)
    promise.resolve(5)
    assert 5 == promise.future.result(timeout=0)


def test_an_operation_that_failed_with_a_timeout_is_not_mistaken_for_a_wait_that_ended():
    """An error that is a TimeoutError itself is raised as it is."""
    promise = Promise("sample")
    error = APITimeoutError("the server gave up")
    promise.fail(error)
    with pytest.raises(APITimeoutError) as caught:
        promise.future.result(timeout=1)
    assert error is caught.value


def test_cancel_is_true_only_while_it_is_queued():
    """What was sent cannot be cancelled; what was not sent is cancelled for good."""
    queued, sent = Promise("a"), Promise("b")
    sent.start()
    assert (True, False) == (queued.future.cancel(), sent.future.cancel())
    assert not queued.start()
    with pytest.raises(concurrent.futures.CancelledError):
        queued.future.result(timeout=0)
    with pytest.raises(concurrent.futures.CancelledError):
        queued.future.exception(timeout=0)
    assert not queued.resolve(1)


def test_only_the_first_outcome_counts():
    """A second result or failure changes nothing."""
    promise = Promise("a")
    assert (True, False, False) == (promise.resolve(1), promise.resolve(2), promise.fail(ValueError()))
    assert 1 == promise.future.result()


def test_it_can_be_awaited():
    """``await``, ``result_async``, ``coroutine`` and ``asyncio.wrap_future`` give the result."""
    promise = Promise("sample")

    async def main():
        threading.Timer(0.01, promise.resolve, [7]).start()
        future = promise.future
        return [
            await future,
            await future.result_async(),
            await future.coroutine(),
            await asyncio.wrap_future(future),
        ]

    assert [7, 7, 7, 7] == asyncio.run(main())
    assert promise.future is promise.future.future()


def test_a_wait_in_a_coroutine_can_end_without_ending_the_operation():
    """``result_async(timeout)`` raises ResultTimeoutError, and a cancelled task cancels nothing else."""
    promise = Promise("sample")

    async def main():
        with pytest.raises(ResultTimeoutError):
            await promise.future.result_async(timeout=0.001)
        task = asyncio.ensure_future(promise.future.coroutine())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not promise.future.done()
    promise.resolve(1)


def test_a_future_completed_after_its_event_loop_was_closed_harms_nobody(caplog):
    """A waiter whose loop is gone is forgotten."""
    promise = Promise("sample")

    async def main():
        waiter = asyncio.ensure_future(promise.future.coroutine())
        await asyncio.sleep(0)
        assert not waiter.done()

    asyncio.run(main())
    assert promise.resolve(1)
    assert [] == caplog.records


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_breaks_a_blocked_wait():
    """A signal handler that raises ends ``result()`` at once."""
    promise = Promise("sample")

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    def wait():
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        promise.future.result(timeout=30)

    before = signal.signal(signal.SIGALRM, interrupt)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 15
    promise.resolve(None)


def test_repr_is_short_and_shows_the_state():
    """One bounded line for each state, without the value."""
    promise = Promise("forward_backward")
    assert "its turn" in repr(promise.future)
    promise.start()
    promise.accept("r" * 500)
    assert len(repr(promise.future)) <= 300
    promise.resolve("v" * 1000)
    assert ("done" in repr(promise.future), "vvv" in repr(promise.future)) == (True, False)
    cancelled, broken = Promise("x"), Promise("y")
    cancelled.future.cancel()
    broken.fail(ConfigurationError("boom"))
    assert "cancelled" in repr(cancelled.future)
    assert "ConfigurationError" in repr(broken.future)
    assert broken.future.exception()


def test_a_failure_that_nobody_read_is_logged_once(caplog):
    """The log has the operation and the error, when the future is collected or reported."""
    promise = Promise("optim_step")
    promise.fail(RequestFailedError("out of memory"))
    report_unread([promise.future])
    del promise
    assert ["ERROR"] == [record.levelname for record in caplog.records]
    assert "optim_step" in caplog.text
    assert "out of memory" in caplog.text


@pytest.mark.parametrize("how", ["read", "broken", "cancelled", "resolved"])
def test_no_alarm_without_need(caplog, how):
    """What was read, what only repeats another failure, and what did not fail is not logged."""
    promise = Promise("optim_step")
    if how == "read":
        promise.fail(ValueError())
        assert promise.future.exception() is not None
    elif how == "broken":
        promise.fail(PipelineBrokenError("an earlier one failed"))
    elif how == "cancelled":
        promise.future.cancel()
    else:
        promise.resolve(1)
    del promise
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_failure_is_told_which_operation_it_belongs_to():
    """An error of the server gets the operation and the request id if it lacks them."""
    promise = Promise("optim_step")
    promise.accept("r3")
    promise.fail(RequestFailedError("no"))
    error = promise.future.exception()
    assert ("optim_step", "r3") == (error.operation, error.request_id)


def test_observers_hear_every_phase_and_cannot_do_harm(caplog):
    """Each change is told once, in order; an observer that raises is logged and the others are told."""
    told = []

    def broken(change):
        raise ValueError("observer")

    promise = Promise("sample", observers=[broken, lambda change: told.append(change.phase)])
    promise.start()
    promise.accept("r1")
    promise.accept("r2")
    promise.queue("active", None)
    promise.queue("active", None)
    promise.queue("paused_capacity", "full")
    promise.resolve(1)
    assert ["submitted", "accepted", "queue_state", "queue_state", "ready"] == told
    assert ("r1", "paused_capacity", "full") == (
        promise.future.request_id,
        promise.future.queue_state,
        promise.future.queue_state_reason,
    )
    assert "an observer failed" in caplog.text


def test_a_callback_that_raises_systemexit_does_not_reach_the_pipeline(caplog):
    """Whatever a callback raises, the promise is kept and the thread lives."""
    promise = Promise("sample")

    def leave(future):
        raise SystemExit

    promise.future.add_done_callback(leave)
    assert promise.resolve(1)
    assert 1 == promise.future.result()
    assert "a callback of sample failed" in caplog.text


def test_futures_are_written_by_the_promise_only():
    """``set_result`` and its kind occur in one module of the pipeline: futures.py."""
    import pathlib

    import tinkex.pipeline

    for path in pathlib.Path(tinkex.pipeline.__file__).parent.glob("*.py"):
        if path.name != "futures.py":
            text = path.read_text()
            for name in ("set_result", "set_exception", "set_running_or_notify_cancel"):
                assert name not in text, f"{path.name} writes to a future"
    assert issubclass(APIFuture, concurrent.futures.Future)
