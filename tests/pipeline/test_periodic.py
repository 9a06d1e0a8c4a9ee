"""The background threads: periodic work, heartbeat, telemetry."""

from __future__ import annotations

import datetime
import logging
import os
import threading

import pytest

from tinkex.config import Secret
from tinkex.errors import APIConnectionError, ClientClosedError, LifecycleError, error_from_status
from tinkex.pipeline import Heartbeat, Periodic, Reporter
from tinkex.pipeline.reporter import without_credentials
from tinkex.types import GenericEvent


def status(code):
    """Return the error of an answer."""
    return error_from_status("x", status_code=code)


@pytest.fixture
def new_periodic(h):
    """Make threads that are stopped at the end."""
    made = []

    def make(action, interval=0.001, **options):
        made.append(Periodic("tinkex-test", interval, action, **options))
        return made[-1]

    yield make
    for thread in made:
        assert thread.stop(h.BOUND)


def test_it_runs_again_and_again_after_the_first_interval(new_periodic, h):
    """The action is called on a named daemon thread, and goes on after it failed."""
    calls, enough = [], threading.Event()

    def action():
        calls.append((threading.current_thread().name, threading.current_thread().daemon))
        if len(calls) >= 3:
            enough.set()
        raise SystemExit

    new_periodic(action).start()
    assert enough.wait(h.BOUND)
    assert ("tinkex-test", True) == calls[0]


def test_nothing_runs_before_the_first_interval_unless_triggered(new_periodic, h):
    """With a long interval only a trigger or the stop makes it act."""
    acted, stopped = threading.Event(), []
    thread = new_periodic(acted.set, interval=1000, at_stop=lambda: stopped.append(1))
    thread.start()
    assert not acted.is_set()
    thread.trigger()
    assert acted.wait(h.BOUND)
    assert (thread.stop(h.BOUND), [1]) == (True, stopped)


def test_it_starts_once_and_stops_from_anywhere(new_periodic, h):
    """A second start is refused; stop is idempotent, and works without a start and on its own thread."""
    done = threading.Event()
    holder = []
    thread = new_periodic(lambda: (holder[0].stop(), done.set()))
    holder.append(thread)
    thread.start()
    with pytest.raises(LifecycleError):
        thread.start()
    assert done.wait(h.BOUND)
    assert (True, True) == (thread.stop(h.BOUND), thread.stop(h.BOUND))
    assert new_periodic(list).stop(h.BOUND)


def test_a_thread_that_cannot_be_started_says_why(new_periodic, h, monkeypatch):
    """At the end of the program, and in a child process, ``start`` explains itself."""

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ClientClosedError) as ending:
        new_periodic(list).start()
    thread = new_periodic(list)
    thread.after_fork()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ClientClosedError) as forked:
        thread.start()
    assert ("exit", "forked") == (ending.value.reason, forked.value.reason)


def test_telemetry_in_a_child_process_is_dropped(monkeypatch):
    """A child has no thread that would send it, and its session is the parent's."""
    sent = []
    reporter = Reporter(sent.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        reporter.report(1)
    reporter.flush_once()
    assert [] == sent


def test_a_session_that_is_gone_needs_no_listener():
    """Without ``on_gone`` a 410 only ends the beats."""

    def beat():
        raise status(410)

    Heartbeat(beat).beat_once()


def test_stop_keeps_its_time(new_periodic, h):
    """An action that hangs is left behind."""
    hold, inside = threading.Event(), threading.Event()
    thread = new_periodic(lambda: (inside.set(), hold.wait(h.BOUND)))
    thread.start()
    assert inside.wait(h.BOUND)
    assert not thread.stop(0.01)
    hold.set()


def test_missed_heartbeats_are_ignored_until_two_minutes_have_passed(h, caplog):
    """A short loss of the network is nobody's business; a long one is a warning."""
    clock = h.Clock()
    answers = [None, APIConnectionError("down"), status(500), APIConnectionError("down"), None, status(503)]

    def beat():
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    heartbeat = Heartbeat(beat, clock=clock)
    heartbeat.beat_once()
    clock.now += 100
    heartbeat.beat_once()
    clock.now += 20
    heartbeat.beat_once()
    assert [] == caplog.records
    clock.now += 1
    heartbeat.beat_once()
    assert [logging.WARNING] == [record.levelno for record in caplog.records]
    assert "121 s" in caplog.text
    heartbeat.beat_once()
    clock.now += 100
    heartbeat.beat_once()
    assert 1 == len(caplog.records)


def test_410_stops_the_heartbeat_and_tells_once(h):
    """The session is gone: no further beat, and the owner hears of it on the heartbeat's thread."""
    beats, told = [], []
    gone = threading.Event()

    def beat():
        beats.append(1)
        raise status(410)

    def on_gone(error):
        told.append((error.status_code, threading.current_thread().name))
        gone.set()

    heartbeat = Heartbeat(beat, 0.001, on_gone)
    heartbeat.start()
    assert gone.wait(h.BOUND)
    for thread in threading.enumerate():
        if thread.name == "tinkex-heartbeat":
            thread.join(h.BOUND)
    assert [] == h.threads()
    assert heartbeat.stop(h.BOUND)
    assert ([1], [(410, "tinkex-heartbeat")]) == (beats, told)


def test_heartbeats_are_sent_until_it_is_stopped(h):
    """A start and a stop bracket the beats."""
    enough = threading.Semaphore(0)
    heartbeat = Heartbeat(enough.release, 0.001)
    heartbeat.start()
    for _ in range(3):
        assert enough.acquire(timeout=h.BOUND)
    assert heartbeat.stop(h.BOUND)


def test_events_are_sent_in_batches_in_order():
    """At most a hundred events travel together."""
    sent = []
    reporter = Reporter(sent.append)
    for number in range(250):
        reporter.report(number)
    reporter.flush_once()
    assert [100, 100, 50] == [len(batch) for batch in sent]
    assert list(range(250)) == [event for batch in sent for event in batch]


def test_a_full_queue_drops_the_oldest_and_counts():
    """Memory is bounded, and the newest events survive."""
    sent = []
    reporter = Reporter(sent.append, max_queue=5)
    for number in range(8):
        reporter.report(number)
    reporter.flush_once()
    assert ([[3, 4, 5, 6, 7]], {"queue full": 3}) == (sent, dict(reporter.dropped))


def test_a_refused_batch_is_dropped_and_others_are_sent():
    """A 4xx will not get better; it must not be repeated for ever."""
    attempts = []

    def send(batch):
        attempts.append(list(batch))
        if 0 in batch:
            raise status(401)

    reporter = Reporter(send, max_batch=2)
    for number in range(4):
        reporter.report(number)
    reporter.flush_once()
    reporter.flush_once()
    assert ([[0, 1], [2, 3]], {"refused": 2}) == (attempts, dict(reporter.dropped))


@pytest.mark.parametrize("error", [APIConnectionError("down"), status(503), ValueError("bug")])
def test_a_batch_that_fails_otherwise_is_tried_once_more_and_then_dropped(error):
    """Two tries, at different flushes; what is queued behind it is kept."""
    attempts = []

    def send(batch):
        attempts.append(list(batch))
        if 0 in batch:
            raise error

    reporter = Reporter(send, max_batch=2)
    for number in range(4):
        reporter.report(number)
    for _ in range(3):
        reporter.flush_once()
    assert ([[0, 1], [0, 1], [2, 3]], {"failed": 2}) == (attempts, dict(reporter.dropped))


def test_stop_sends_what_is_queued_once_and_keeps_its_time(h):
    """The last events are delivered if the server answers, and left behind if it does not."""
    sent = []
    reporter = Reporter(sent.append, 1000)
    reporter.start()
    reporter.report(1)
    reporter.flush()
    assert reporter.stop(h.BOUND)
    reporter.report(2)
    assert [[1]] == sent

    hold = threading.Event()
    slow = Reporter(lambda batch: hold.wait(h.BOUND), 1000)
    slow.start()
    slow.report(1)
    assert not slow.stop(0.01)
    hold.set()
    assert slow.stop(h.BOUND)


def test_no_credential_leaves_by_telemetry(caplog):
    """Entries whose name or value may be a credential are left out at any depth; nothing raises."""
    sent = []
    reporter = Reporter(sent.append)
    data = {
        "status": 403,
        "tokens": 12,
        "x-api-key": "tml-SECRET",
        "headers": {"Authorization": "tml-SECRET"},
        "nested": {"api_key": "tml-SECRET", "path": "/x"},
        "config": Secret("tml-SECRET"),
    }
    now = datetime.datetime.now(datetime.timezone.utc)
    event = GenericEvent(event_id="1", event_session_index=0, timestamp=now, event_name="x", event_data=data)
    reporter.report(event)
    reporter.flush_once()
    assert {"status": 403, "tokens": 12, "nested": {"path": "/x"}} == sent[0][0].event_data
    assert "SECRET" not in repr(sent) + caplog.text
    reporter.report(GenericEvent(event_id="1", event_session_index=0, timestamp=now, event_name="x", event_data={1: 2}))
    reporter.flush_once()
    assert 1 == len(sent)


def test_draining_waits_until_all_is_delivered_or_dropped(h):
    """Whoever wants to be sure that the events have left can be."""
    sent, hold = [], threading.Event()

    def send(batch):
        assert hold.wait(h.BOUND)
        sent.append(batch)
        if "bad" in batch:
            raise status(400)

    reporter = Reporter(send, 1000, max_batch=1, max_queue=2)
    reporter.start()
    assert reporter.drain(0)
    assert reporter.report("good")
    assert not reporter.drain(0.01)
    hold.set()
    assert reporter.drain(h.BOUND)
    assert reporter.report("bad")
    assert reporter.drain(h.BOUND)
    assert [["good"], ["bad"]] == sent
    assert reporter.stop(h.BOUND)
    assert reporter.report("late") is False
    assert {"refused": 1, "closed": 1} == dict(reporter.dropped)


def test_draining_gives_up_where_the_server_cannot_be_reached(h):
    """What is kept for a second try has not left; after that it is dropped, and nothing is left to wait for."""
    tried = threading.Semaphore(0)

    def send(batch):
        tried.release()
        raise APIConnectionError("down")

    reporter = Reporter(send, 1000, max_queue=1)
    reporter.start()
    for number in range(3):
        reporter.report(number)
    assert not reporter.drain(0.05)
    assert tried.acquire(timeout=h.BOUND)
    assert reporter.drain(h.BOUND)
    assert {"queue full": 2, "failed": 1} == dict(reporter.dropped)
    assert reporter.stop(h.BOUND)


def test_in_another_process_nothing_is_taken_or_waited_for(h, monkeypatch):
    """The thread that would send it is the parent's."""
    reporter = Reporter(print, 1000)
    reporter.report("the parent's")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert reporter.report("x") is False
    assert reporter.drain(h.BOUND) is False


def test_credentials_are_left_out_of_lists_too():
    """At any depth of dicts and lists."""
    data = {"list": [{"api_key": "x", "a": 1}, Secret("tml-SECRET"), [{"cookie": "x"}]]}
    assert {"list": [{"a": 1}, [{}]]} == without_credentials(data)
