"""The poller: order, bounds, and no promise lost when a thread dies."""

from __future__ import annotations

import threading

import attrs
import pytest

from tinkex.errors import ClientClosedError
from tinkex.pipeline import Pending, Poller, PollPolicy, Ready, Watched

FAST = PollPolicy(initial_wait_s=0.0005, max_wait_s=0.002)


class Log:
    """What a poller told, in order."""

    def __init__(self):
        self.told = []
        self.changed = threading.Condition()

    def tell(self, *what):
        """Add an entry."""
        with self.changed:
            self.told.append(what)
            self.changed.notify_all()

    def wait(self, count, bound):
        """Wait for a number of entries, and return all."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, bound), self.told
            return list(self.told)


@attrs.define(kw_only=True, eq=False)
class Note(Watched):
    """Writes its outcome into a log."""

    log: Log

    def on_pending(self, queue_state, reason):
        """Write it down."""
        self.log.tell(self.request_id, "pending", queue_state)

    def on_ready(self, value):
        """Write it down."""
        self.log.tell(self.request_id, "ready", value)

    def on_failed(self, error):
        """Write it down."""
        self.log.tell(self.request_id, "failed", type(error).__name__)


@pytest.fixture
def log():
    """What pollers told."""
    return Log()


@pytest.fixture
def new_poller():
    """Make pollers that are closed at the end."""
    pollers = []

    def make(retrieve, **options):
        options.setdefault("policy", FAST)
        pollers.append(Poller(retrieve, **options))
        return pollers[-1]

    yield make
    for poller in pollers:
        poller.close()


def note(log, name, lane=None):
    """Make something to watch."""
    return Note(request_id=name, lane=lane, log=log)


def test_no_thread_before_there_is_something_to_watch(h, new_poller):
    """Making and closing a poller starts nothing."""
    new_poller(lambda watched: Ready(1))
    assert [] == h.threads()


def test_a_lane_finishes_in_order_and_only_its_first_is_asked_for(h, new_poller, log):
    """However long the first takes, the second is not polled before it, nor told before it."""
    hold = threading.Event()
    asked = []

    def retrieve(watched):
        asked.append(watched.request_id)
        if watched.request_id == "a" and not hold.wait(h.BOUND):
            return Pending()
        return Ready(watched.request_id)

    poller = new_poller(retrieve)
    for name in "abc":
        poller.watch(note(log, name, lane="m"))
    poller.watch(note(log, "x"))
    log.wait(1, h.BOUND)
    assert ["x"] == [told[0] for told in log.told]
    assert {"a", "x"} == set(asked)
    hold.set()
    assert ["x", "a", "b", "c"] == [told[0] for told in log.wait(4, h.BOUND)]


def test_pending_answers_are_passed_on_and_polled_again(h, new_poller, log):
    """The queue state reaches the operation, the iteration count grows, and the result comes."""
    seen = []
    answers = [Pending("active"), Pending("paused_capacity", "full"), Ready(5)]

    def retrieve(watched):
        seen.append(watched.polls)
        return answers[watched.polls]

    new_poller(retrieve).watch(note(log, "a"))
    told = log.wait(3, h.BOUND)
    assert [("a", "pending", "active"), ("a", "pending", "paused_capacity"), ("a", "ready", 5)] == told
    assert [0, 1, 2] == seen


def test_threads_do_not_grow_with_what_is_watched(h, new_poller, log):
    """A thousand open operations are asked for by a bounded number of threads."""
    hold = threading.Event()

    def retrieve(watched):
        hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve, max_threads=6, lane_threads=2)
    for index in range(1000):
        poller.watch(note(log, f"s{index}"))
    poller.watch(note(log, "head", lane="m"))
    assert len(h.threads()) <= 7
    hold.set()
    assert 1001 == len({told[0] for told in log.wait(1001, h.BOUND)})
    assert len(h.threads()) <= 7


def test_samples_leave_threads_for_training(h, new_poller, log):
    """With all samples being held by the server, the first of a lane is still asked for."""
    hold = threading.Event()

    def retrieve(watched):
        if watched.lane is None:
            hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve, max_threads=3, lane_threads=1)
    for index in range(10):
        poller.watch(note(log, f"s{index}"))
    for count in range(1, 11):  # the thread that served one must not be given to a sample
        poller.watch(note(log, "head", lane="m"))
        assert [("head", "ready", 1)] * count == log.wait(count, h.BOUND)
    hold.set()
    log.wait(20, h.BOUND)


def test_with_one_thread_everything_still_finishes(h, new_poller, log):
    """The smallest pool serves samples and lanes."""
    poller = new_poller(lambda watched: Ready(1), max_threads=1)
    for index in range(20):
        poller.watch(note(log, f"s{index}", lane="m" if index % 2 else None))
    assert 20 == len(log.wait(20, h.BOUND))


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_retrieval_thread_that_dies_fails_what_it_holds_and_is_replaced(h, new_poller, log, death, caplog):
    """Rule 3: the operation fails with a typed error, the next of the lane and all others go on."""

    def retrieve(watched):
        if watched.request_id == "a":
            raise death
        return Ready(1)

    poller = new_poller(retrieve, max_threads=1)
    for name in "abx":
        poller.watch(note(log, name, lane=None if name == "x" else "m"))
    told = {told[0]: told[1:] for told in log.wait(3, h.BOUND)}
    assert {"a": ("failed", "ClientClosedError"), "b": ("ready", 1), "x": ("ready", 1)} == told


def test_when_the_poller_thread_dies_everything_fails_and_nothing_new_is_taken(h, new_poller, log, caplog):
    """Rule 3 again: no waiter hangs on a poller that is gone, and new ones hear of it at once."""
    hold = threading.Event()
    asked = threading.Event()

    def retrieve(watched):
        asked.set()
        hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve, max_threads=1)
    for name in "abc":
        poller.watch(note(log, name, lane="m"))
    assert asked.wait(h.BOUND)

    def broken():
        raise SystemExit

    with poller._lock:
        poller._promote_locked = broken
        poller._timer.notify()
    assert [(name, "failed", "ClientClosedError") for name in "abc"] == log.wait(3, h.BOUND)
    with pytest.raises(ClientClosedError, match="SystemExit") as caught:
        poller.watch(note(log, "d"))
    assert "poller died" == caught.value.reason
    hold.set()


def test_close_fails_what_is_watched_and_abandons_a_read_in_progress(h, new_poller, log):
    """Close does not wait for the server, and nothing is told twice when the read ends later."""
    hold, reading = threading.Event(), threading.Event()

    def retrieve(watched):
        reading.set()
        hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve)
    poller.watch(note(log, "a", lane="m"))
    poller.watch(note(log, "b", lane="m"))
    assert reading.wait(h.BOUND)
    poller.close()
    poller.close()
    assert [("a", "failed", "ClientClosedError"), ("b", "failed", "ClientClosedError")] == log.told
    hold.set()
    for thread in threading.enumerate():
        if thread.name.startswith("tinkex-"):
            thread.join(h.BOUND)
    assert 2 == len(log.told)
    with pytest.raises(ClientClosedError):
        poller.watch(note(log, "c"))


def test_a_lane_that_is_forgotten_is_told_nothing(h, new_poller, log):
    """The read in progress and what waits behind it are dropped; others are served."""
    hold, reading = threading.Event(), threading.Event()

    def retrieve(watched):
        if watched.request_id == "a":
            reading.set()
            hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve, max_threads=1)
    poller.watch(note(log, "a", lane="m"))
    poller.watch(note(log, "b", lane="m"))
    poller.watch(note(log, "c", lane="n"))
    assert reading.wait(h.BOUND)
    poller.forget("m")
    hold.set()
    assert [("c", "ready", 1)] == log.wait(1, h.BOUND)
    assert 0 == len(poller)


def test_when_no_thread_can_be_started_the_poller_thread_asks_itself(h, new_poller, log, monkeypatch):
    """At the end of the interpreter ``Thread.start`` raises; results are still fetched."""
    poller = new_poller(lambda watched: Ready(watched.request_id))
    poller.start()

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for name in "abc":
        poller.watch(note(log, name, lane="m"))
    assert list("abc") == [told[0] for told in log.wait(3, h.BOUND)]
    monkeypatch.undo()
    assert ["tinkex-poller"] == h.threads()


def test_systemexit_on_the_poller_thread_itself_fails_everything(h, new_poller, log, monkeypatch, caplog):
    """Without retrieval threads, a retrieve that kills its thread kills the poller: all are failed."""

    def retrieve(watched):
        raise SystemExit

    poller = new_poller(retrieve)
    poller.start()

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with poller._lock:
        pass
    for name in "abc":
        try:
            poller.watch(note(log, name, lane="m"))
        except ClientClosedError:
            log.tell(name, "refused")
    assert set("abc") == {told[0] for told in log.wait(3, h.BOUND)}


def test_after_a_long_poll_the_next_follows_at_once(h, new_poller, log):
    """An answer that took its time is no reason to wait: the timer is not asked."""
    answers = [Pending(), Pending(), Ready(1)]
    policy = PollPolicy(quick_s=0.0, initial_wait_s=1000.0, max_wait_s=1000.0)
    new_poller(lambda watched: answers[watched.polls], policy=policy).watch(note(log, "a"))
    assert ("a", "ready", 1) == log.wait(3, h.BOUND)[-1]


def test_the_pause_of_one_does_not_hold_up_another(h, new_poller, log):
    """While one operation waits for its next poll, the same thread serves others."""
    answers = {"slow": [Pending(retry_after=0.2), Ready(1)], "quick": [Ready(1)]}
    poller = new_poller(lambda watched: answers[watched.request_id][watched.polls], max_threads=1)
    poller.watch(note(log, "slow"))
    poller.watch(note(log, "quick"))
    told = [told[:2] for told in log.wait(3, h.BOUND)]
    assert [("slow", "pending"), ("quick", "ready"), ("slow", "ready")] == told


def test_an_operation_that_raises_while_it_is_told_does_not_stop_its_lane(h, new_poller, log, caplog):
    """A bug in a receiver costs that receiver only."""

    class Broken(Note):
        def on_ready(self, value):
            """Fail."""
            raise ValueError("bug")

    poller = new_poller(lambda watched: Ready(1))
    poller.watch(Broken(request_id="a", lane="m", log=log))
    poller.watch(note(log, "b", lane="m"))
    assert ("b", "ready", 1) in log.wait(1, h.BOUND)


def test_a_poller_that_cannot_start_says_why(new_poller, log, monkeypatch):
    """At the end of the program the first watch fails at once."""

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ClientClosedError) as caught:
        new_poller(lambda watched: Ready(1)).watch(note(log, "a"))
    assert "exit" == caught.value.reason


def test_what_is_forgotten_before_its_turn_is_not_asked_for(h, new_poller, log):
    """A lane that was forgotten while its first was due is skipped."""
    hold, asked = threading.Event(), []

    def retrieve(watched):
        asked.append(watched.request_id)
        hold.wait(h.BOUND)
        return Ready(1)

    poller = new_poller(retrieve, max_threads=1)
    poller.watch(note(log, "a", lane="m"))
    while not asked:
        threading.Event().wait(0.001)
    poller.watch(note(log, "b", lane="n"))
    poller.watch(note(log, "c", lane="o"))
    poller.forget("n")
    hold.set()
    assert ["a", "c"] == [told[0] for told in log.wait(2, h.BOUND)]
    assert ["a", "c"] == asked


def test_a_receiver_that_cannot_be_failed_does_not_keep_others_from_it(h, new_poller, log, caplog):
    """At close, a bug in one receiver costs that receiver only; each gets an error of its own."""
    hold = threading.Event()
    errors = []

    class Broken(Note):
        def on_failed(self, error):
            errors.append(error)
            raise ValueError("bug")

    poller = new_poller(lambda watched: Ready(1) if hold.wait(h.BOUND) else Pending())
    for name in "ab":
        poller.watch(Broken(request_id=name, log=log))
    poller.watch(note(log, "c"))
    poller.close()
    hold.set()
    assert [("c", "failed", "ClientClosedError")] == log.told
    assert (2, "could not fail a" in caplog.text) == (len({id(error) for error in errors}), True)
