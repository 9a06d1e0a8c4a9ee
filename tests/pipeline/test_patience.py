"""Operations that make no progress are given up, all of one client together; nothing else is."""

from __future__ import annotations

import itertools
import math
import threading

import pytest

from tinkex.errors import APIConnectionError, PipelineBrokenError, ProgressTimeoutError
from tinkex.pipeline import Herald, News, Part, Patience, Pending, Ready, Wiring

LIMIT = 100.0


@pytest.fixture
def clock(h):
    """Seconds that pass when the test says so."""
    return h.Clock()


@pytest.fixture
def world(new_world, clock):
    """A world on that clock."""
    return new_world(clock=clock)


@pytest.fixture
def later(world, clock):
    """Lets time pass, and the poller notice."""

    def pass_time(seconds):
        with world.poller._lock:
            clock.now += seconds
            world.poller._timer.notify()

    return pass_time


def until(condition):
    """Wait until something is so."""
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never was so")


def rings(poller):
    """When the poller will look next."""
    with poller._lock:
        return sorted(due for due, _, _ in poller._alarms)


def rests(world):
    """Tell whether nobody asks: a pause that begins after a step of time would not end before the next one."""
    with world.poller._lock:
        return len(world.poller._later) == len(world.poller._watched)


def is_watched(world, future):
    """Tell whether the poller knows of an operation, or is done with it."""
    with world.poller._lock:
        names = [watched.request_id for watched in world.poller._watched]
    return future.done() or future.request_id in names


def sample(world, dispatcher, patience, *answers):
    """Draw a sample that is answered like this for ever; return its future once the poller waits for it."""
    part = world.part("x", answers=answers or [Pending("active", "it is queued")])
    future = dispatcher.submit(
        "sample",
        Part(send=part.send, decode=part.decode, request_type="Test", patience=patience),
        itertools.count(),
    )
    until(lambda: is_watched(world, future))
    return future


def test_samples_of_which_none_ends_are_given_up_together(world, h, later):
    """The error is a TimeoutError that says what waited, for how long, the last word of the server and what to do."""
    patience, other = Patience(LIMIT), Patience(LIMIT * 10)
    dispatcher = world.dispatcher()
    futures = [sample(world, dispatcher, patience) for _ in range(3)]
    untouched = sample(world, dispatcher, other)
    until(lambda: all(future.queue_state == "active" for future in futures))
    later(LIMIT + 1)
    errors = [future.exception(h.BOUND) for future in futures]
    assert all(isinstance(error, ProgressTimeoutError) and isinstance(error, TimeoutError) for error in errors)
    assert ("sample", futures[0].request_id, 101.0, "active") == (
        errors[0].operation,
        errors[0].request_id,
        errors[0].silent_s,
        errors[0].queue_state,
    )
    for text in ("101 s", "active (it is queued)", "Sample again", "progress_timeout_s", futures[0].request_id):
        assert text in str(errors[0])
    assert not untouched.done()
    assert 1 == len(world.poller)


def test_the_end_of_one_is_progress_of_all(world, h, clock, later):
    """As long as anything of the client ends, or fails, the others are waited for."""
    patience, dispatcher = Patience(LIMIT), world.dispatcher()
    slow = sample(world, dispatcher, patience)
    for hold, answer in ((threading.Event(), Ready(1)), (threading.Event(), h.refused(422))):
        later(LIMIT - 1)

        def ends(hold=hold, answer=answer):
            hold.wait(h.BOUND)
            if isinstance(answer, Exception):
                raise answer
            return answer

        quick = sample(world, dispatcher, patience, ends)
        later(LIMIT - 1)
        hold.set()
        quick.exception(h.BOUND)
        assert clock.now == patience.last
    later(LIMIT - 1)
    until(lambda: rings(world.poller) == [patience.last + LIMIT])
    assert not slow.done()
    later(2)
    assert isinstance(slow.exception(h.BOUND), ProgressTimeoutError)


def test_a_pause_is_no_hang(world, h, clock, later):
    """While the server says that it is paused, nothing is given up, however long that is."""
    patience, dispatcher = Patience(LIMIT), world.dispatcher()
    states = {"now": Pending("paused_capacity", "full")}
    future = sample(world, dispatcher, patience, lambda: states["now"])
    for _ in range(5):
        until(lambda: rests(world))
        later(LIMIT - 1)
        until(lambda: patience.last == clock.now)
    assert not future.done()
    until(lambda: rests(world))
    states["now"] = Pending("active")
    later(1)
    until(lambda: future.queue_state == "active")
    later(LIMIT + 1)
    assert isinstance(future.exception(h.BOUND), ProgressTimeoutError)


def test_the_last_error_of_polling_is_named(world, h, later):
    """A server that cannot be reached any more is waited for as long, and then the reason is told."""
    future = sample(world, world.dispatcher(), Patience(LIMIT), APIConnectionError("connection refused"))
    until(lambda: future.queue_state_reason)
    later(LIMIT + 1)
    error = future.exception(h.BOUND)
    assert ("unknown", True) == (error.queue_state, "connection refused" in str(error))


def test_a_model_whose_operation_is_given_up_is_broken(world, h, later):
    """All that is in flight fails, what comes after is refused, and it cannot be reopened: the server may go on."""
    pipeline = world.submission(wiring=Wiring(patience_s=LIMIT))
    hold = threading.Event()
    first, second = (pipeline.submit("optim_step", [world.part(answers=[h.held(hold)])], h.first) for _ in range(2))
    until(lambda: is_watched(world, second))
    later(LIMIT + 1)
    assert isinstance(first.exception(h.BOUND), ProgressTimeoutError)
    assert isinstance(second.exception(h.BOUND), ProgressTimeoutError)
    with pytest.raises(PipelineBrokenError):
        pipeline.submit("optim_step", [world.part()], h.first)
    with pytest.raises(PipelineBrokenError):
        pipeline.reopen()
    hold.set()
    assert (0, {}) == (len(world.poller), world.poller._lanes)


def test_nothing_is_given_up_without_a_limit(world, later):
    """An infinite patience costs the poller nothing."""
    future = sample(world, world.dispatcher(), Patience(math.inf))
    later(1e9)
    assert [] == rings(world.poller)
    assert not future.done()


def test_a_client_is_looked_at_once_in_its_time_and_not_when_it_is_at_rest(world, h, later):
    """However many samples it has in flight there is one alarm; none once they have ended."""
    patience, dispatcher = Patience(LIMIT), world.dispatcher()
    hold = threading.Event()
    futures = [sample(world, dispatcher, patience, h.held(hold, Ready(1))) for _ in range(20)]
    assert 1 == len(rings(world.poller))
    hold.set()
    assert [1] * 20 == [future.result(h.BOUND) for future in futures]
    later(LIMIT + 1)
    until(lambda: not patience.armed)
    assert [] == rings(world.poller)
    again = sample(world, dispatcher, patience)
    later(LIMIT + 1)
    assert isinstance(again.exception(h.BOUND), ProgressTimeoutError)


def test_a_receiver_that_fails_does_not_keep_others_from_it(world, h, later, caplog):
    """A callback that raises costs itself only, and the poller goes on."""
    patience, dispatcher = Patience(LIMIT), world.dispatcher()
    futures = [sample(world, dispatcher, patience) for _ in range(2)]
    futures[0].add_done_callback(lambda _: 1 / 0)
    later(LIMIT + 1)
    assert all(isinstance(future.exception(h.BOUND), ProgressTimeoutError) for future in futures)
    assert 1 == sample(world, dispatcher, patience, Ready(1)).result(h.BOUND)


def test_the_herald_does_not_wait_for_what_is_given_up(world, h, later):
    """A sample that is heard of in bulk is given up like others, and forgotten where news are awaited."""
    asked, closing = threading.Event(), threading.Event()

    def ask(cursor, fetched, may_hold):
        asked.set()
        closing.wait(h.BOUND)
        return News(ended={}, cursor=cursor)

    herald = Herald(ask, world.poller.release)
    part = world.part("x", answers=[Pending()])
    part = Part(send=part.send, request_type="Test", patience=Patience(LIMIT), herald=herald)
    future = world.dispatcher().submit("sample", part, itertools.count())
    assert asked.wait(h.BOUND)
    later(LIMIT + 1)
    error = future.exception(h.BOUND)
    assert (ProgressTimeoutError, "unknown") == (type(error), error.queue_state)
    until(lambda: not herald._expected)
    herald._give_up()
    closing.set()
