"""Samples and plain calls: independent, bounded, cancellable while queued."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import threading
import weakref

import attrs
import pytest

from tinkex.errors import ClientClosedError, RateLimitError, UnprocessableEntityError
from tinkex.pipeline import CallPool, ExitDeadline, Failed, Pending, Ready, SampleGate, SamplePolicy, Wiring


@pytest.fixture(params=["threads", "inline"])
def wiring(request, h):
    """The real executor, and one that runs everything in the calling thread."""
    return None if request.param == "threads" else h.inline()


def test_samples_are_independent(world, h, wiring):
    """Each future gets its own result or failure, and a failure touches no other."""
    dispatcher = world.dispatcher(wiring=wiring)
    numbers = itertools.count()
    futures = [
        dispatcher.submit("sample", world.part(0, answers=[Pending(), Ready("a")]), numbers),
        dispatcher.submit("sample", world.part(1, refuse=h.refused()), numbers),
        dispatcher.submit("sample", world.part(2, answers=[Failed(h.failed())]), numbers),
        dispatcher.submit("sample", world.part(3), numbers, lambda value: value * 10),
    ]
    concurrent.futures.wait(futures, timeout=h.BOUND)
    assert ["a", UnprocessableEntityError, type(h.failed()), 30] == [
        future.result() if future.exception() is None else type(future.exception()) for future in futures
    ]


def test_a_429_pauses_and_sends_the_same_call_again_with_the_same_number(world, h, wiring):
    """Neither the sample nor its number is lost, however often the server throttles."""
    gate = SampleGate(SamplePolicy(pause_s=0.01))
    dispatcher = world.dispatcher(gate=gate, wiring=wiring)
    used = []
    part = world.part("a", refuse=[h.refused(429), h.refused(429, headers={"retry-after-ms": "5"})])

    class Numbers:
        def __next__(self):
            used.append(len(used))
            return used[-1]

    assert "a" == dispatcher.submit("sample", part, Numbers()).result(h.BOUND)
    assert ([0], [0]) == (used, world.server.seqs)


def test_a_429_that_the_server_calls_final_fails_the_sample(world, h):
    """``x-should-retry: false`` is obeyed."""
    dispatcher = world.dispatcher()
    part = world.part("a", refuse=h.refused(429, headers={"x-should-retry": "false"}))
    assert isinstance(dispatcher.submit("sample", part, itertools.count()).exception(h.BOUND), RateLimitError)


def test_threads_do_not_grow_with_samples_in_flight(new_world, h):
    """A thousand samples on the server hold no submitting thread."""
    world = new_world(max_threads=4)
    dispatcher = world.dispatcher(max_threads=3)
    hold = threading.Event()
    numbers = itertools.count()
    parts = [world.part(i, answers=[h.held(hold, Ready(i))]) for i in range(1000)]
    futures = [dispatcher.submit("sample", part, numbers) for part in parts]
    while len(world.server.labels) < 1000:
        threading.Event().wait(0.001)
    assert len(h.threads()) <= 3 + 4 + 1
    hold.set()
    assert list(range(1000)) == [future.result(h.BOUND) for future in futures]
    assert list(range(1000)) == sorted(world.server.seqs)


@pytest.mark.parametrize("where", ["queue", "gate"])
def test_a_queued_sample_that_is_cancelled_is_never_sent(world, h, where):
    """In the queue or at the gate: cancel is honest, and takes no number."""
    gate = SampleGate(SamplePolicy(max_submits=1))
    dispatcher = world.dispatcher(gate=gate, max_threads=1)
    hold = threading.Event()
    numbers = itertools.count()
    if where == "gate":
        charge = gate.enter(1)
        queued = dispatcher.submit("sample", world.part("queued"), numbers)
        while not gate._waiting:
            threading.Event().wait(0.001)
    else:
        first = dispatcher.submit("sample", world.part("a", before=lambda: hold.wait(h.BOUND)), numbers)
        while not first.running():
            threading.Event().wait(0.001)
        queued = dispatcher.submit("sample", world.part("queued"), numbers)
    assert queued.cancel()
    hold.set()
    if where == "gate":
        gate.leave(charge)
    last = dispatcher.submit("sample", world.part("last"), numbers)
    assert "last" == last.result(h.BOUND)
    assert ("queued" in world.server.labels, world.server.seqs[-1]) == (False, len(world.server.seqs) - 1)
    assert 1 == len(concurrent.futures.wait([queued], timeout=h.BOUND).done)


def withdrawable(world, label, told, **options):
    """Make a request that can be taken back; those that the server is told of are put into ``told``."""
    return attrs.evolve(world.part(label, **options), withdraw=told.append)


def test_a_sample_that_is_cancelled_while_it_is_sent_is_taken_back_when_it_is_accepted(world, h):
    """Nobody waits for the answer of the server, which is asked not to draw it as soon as it has a name."""
    told, phases = [], []
    dispatcher = world.dispatcher(wiring=Wiring(observers=[lambda change: phases.append(change.phase)]))
    begun, hold = threading.Event(), threading.Event()
    part = withdrawable(world, "x", told, before=lambda: begun.set() or hold.wait(h.BOUND))
    future = dispatcher.submit("sample", part, itertools.count())
    assert begun.wait(h.BOUND)
    assert future.cancel()
    assert (True, [], []) == (future.cancelled(), dispatcher.pending(), told)
    hold.set()
    dispatcher.close(timeout=h.BOUND)
    assert (["x"], ["r1"], []) == (world.server.labels, told, world.server.polled)
    assert ["submitted", "cancelled"] == phases
    assert 1 == len(concurrent.futures.wait([future], timeout=h.BOUND).done)


@pytest.mark.parametrize("status", [422, 429])
def test_a_sample_that_is_cancelled_while_it_is_refused_is_not_sent_again(world, h, status, caplog):
    """There is nothing to take back, and nobody to tell."""
    told, sends = [], []
    dispatcher = world.dispatcher(gate=SampleGate(SamplePolicy(pause_s=0.01)))
    begun, hold = threading.Event(), threading.Event()

    def before():
        sends.append("x")
        begun.set()
        hold.wait(h.BOUND)

    part = withdrawable(world, "x", told, before=before, refuse=h.refused(status))
    future = dispatcher.submit("sample", part, itertools.count())
    assert begun.wait(h.BOUND)
    assert future.cancel()
    hold.set()
    dispatcher.close(timeout=h.BOUND)
    assert (True, ["x"], []) == (future.cancelled(), sends, told)
    assert [] == caplog.records


@pytest.mark.parametrize("when", ["queued", "being sent", "drawn", "done"])
def test_nothing_is_kept_of_a_sample_that_nobody_waits_for(world, h, when):
    """Neither its prompt nor its result, and without the garbage collector."""
    gate = SampleGate(SamplePolicy(max_submits=1))
    dispatcher = world.dispatcher(gate=gate)
    begun, hold, drawn = threading.Event(), threading.Event(), threading.Event()
    charge = gate.enter(1) if when == "queued" else None
    answer = Ready("x") if when == "done" else h.held(drawn)
    before = {"being sent": lambda: begun.set() or hold.wait(h.BOUND)}.get(when, begun.set)
    part = withdrawable(world, "x", [], before=before, answers=[answer])
    kept = weakref.ref(part)
    gc.disable()
    try:
        future = dispatcher.submit("sample", part, itertools.count())
        del part
        if when == "queued":
            while not gate._waiting:
                threading.Event().wait(0.001)
        else:
            assert begun.wait(h.BOUND)
        if when == "drawn":
            while not world.server.polling:
                threading.Event().wait(0.001)
        assert future.result(h.BOUND) if when == "done" else future.cancel()
        hold.set()
        drawn.set()
        if charge is not None:
            gate.leave(charge)
        for _ in range(2000):
            if kept() is None:
                break
            threading.Event().wait(0.005)
        assert kept() is None
    finally:
        gc.enable()


class Herald:
    """Hears at once of the one sample that it waits for, and does with it what it is told to."""

    def __init__(self, act):
        self.act = act
        self.told = []

    def expect(self, drawn):
        self.cancelled = self.act(drawn)

    def forget(self, request_id):
        self.told.append(("forget", request_id))

    def fetched(self, request_id):
        self.told.append(("fetched", request_id))


@pytest.mark.parametrize("ended", [False, True])
def test_a_sample_can_be_cancelled_from_when_it_is_accepted_until_it_has_ended(world, h, ended):
    """Also between the moment that the server names it and the one that it is asked for."""
    told, phases = [], []

    def act(drawn):
        if ended:
            world.poller.release(drawn)
            assert "x" == drawn.job.promise.future.result(h.BOUND)
        # Or, of a thread that had begun to cancel it before it ended:
        return drawn.job.promise.future.cancel() or drawn.withdraw()

    herald = Herald(act)
    dispatcher = world.dispatcher(wiring=Wiring(observers=[lambda change: phases.append(change.phase)]))
    part = attrs.evolve(withdrawable(world, "x", told), herald=herald)
    future = dispatcher.submit("sample", part, itertools.count())
    dispatcher.close(timeout=h.BOUND)
    assert (not ended, not ended, [] if ended else ["r1"]) == (herald.cancelled, future.cancelled(), told)
    assert [("fetched" if ended else "forget", "r1")] == herald.told
    assert ["submitted", "accepted", "ready" if ended else "cancelled"] == phases
    assert 0 == len(world.poller)


def test_a_cancelled_sample_whose_result_is_lost_is_not_drawn_again(world, h):
    """The server lost it just then."""
    told, cancelled = [], threading.Event()

    def act(drawn):
        world.poller.release(drawn)
        taken_back = drawn.job.promise.future.cancel()
        cancelled.set()
        while len(world.poller) or world.poller._idle < world.poller._count:
            threading.Event().wait(0.001)
        return taken_back

    def lose():
        cancelled.wait(h.BOUND)
        raise h.refused(410)

    herald, dispatcher, numbers = Herald(act), world.dispatcher(max_threads=1), itertools.count()
    part = attrs.evolve(withdrawable(world, "x", told, answers=[lose]), herald=herald, again=1)
    future = dispatcher.submit("sample", part, numbers)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(h.BOUND)
    assert cancelled.wait(h.BOUND)
    while dispatcher._runs:
        threading.Event().wait(0.001)
    assert "y" == dispatcher.submit("sample", world.part("y"), numbers).result(h.BOUND)
    assert (True, ["x", "y"], []) == (herald.cancelled, world.server.labels, told)


def test_close_drains_or_fails(new_world, h):
    """Draining waits for every sample; closing at once fails queued, waiting and accepted ones."""
    world = new_world()
    numbers = itertools.count()
    dispatcher = world.dispatcher()
    futures = [dispatcher.submit("sample", world.part(i), numbers) for i in range(50)]
    dispatcher.close(timeout=h.BOUND)
    assert list(range(50)) == [future.result(0) for future in futures]
    with pytest.raises(ClientClosedError):
        dispatcher.submit("sample", world.part(0), numbers)

    gate = SampleGate(SamplePolicy(max_submits=1))
    dispatcher = world.dispatcher(gate=gate, max_threads=1)
    accepted = dispatcher.submit("sample", world.part("x", answers=[Pending()]), numbers)
    while accepted.request_id is None:
        threading.Event().wait(0.001)
    while gate.enter(1, timeout=0) is None:
        threading.Event().wait(0.001)
    stuck = [dispatcher.submit("sample", world.part("never"), numbers) for _ in range(5)]
    stuck[3].cancel()
    dispatcher.close(drain=False, timeout=h.BOUND)
    for future in (accepted, *stuck[:3], stuck[4]):
        assert isinstance(future.exception(0), ClientClosedError)
    assert 1 == len(concurrent.futures.wait([stuck[3]], timeout=h.BOUND).done)
    assert "never" not in world.server.labels


def test_a_server_that_throttles_for_ever_does_not_keep_an_ending_program(world, h):
    """After the main thread has ended, samples are given up when the time for them is over."""
    clock = h.Clock()
    deadline = ExitDeadline(clock, budget_s=5.0, exiting=lambda: True)
    assert not deadline.over()
    clock.now += 5.0
    gate = SampleGate(SamplePolicy(first_pause_s=1000.0, pause_s=1000.0))
    gate.throttle(1)
    dispatcher = world.dispatcher(gate=gate, wiring=Wiring(exit_deadline=deadline))
    future = dispatcher.submit("sample", world.part("a"), itertools.count())
    assert "exit" == future.exception(h.BOUND).reason


def test_at_the_end_only_what_somebody_can_read_is_still_sent(world, h):
    """What can be taken back is not sent unless it has a callback or a thread is left; all else is done for itself."""
    readers = [True]
    deadline = ExitDeadline(h.Clock(), exiting=lambda: True, has_readers=lambda: bool(readers))
    dispatcher = world.dispatcher(max_threads=1, wiring=Wiring(exit_deadline=deadline))
    begun, go_on, numbers = threading.Event(), threading.Event(), itertools.count()

    def block():
        begun.set()
        go_on.wait(h.BOUND)

    def sample(label, **hooks):
        return attrs.evolve(world.part(label, **hooks), withdraw=lambda _: None)

    first = dispatcher.submit("sample", sample("read by a thread", before=block), numbers)
    assert begun.wait(h.BOUND)
    unread = dispatcher.submit("sample", sample("unread"), numbers)
    wanted = dispatcher.submit("sample", sample("wanted"), numbers)
    wanted.add_done_callback(lambda _: None)
    made = dispatcher.submit("create_model", world.part("made"), numbers)
    readers.clear()
    go_on.set()
    results = [future.result(h.BOUND) for future in (first, wanted, made)]
    assert ["read by a thread", "wanted", "made"] == results == world.server.labels
    assert ("exit", 1) == (unread.exception(h.BOUND).reason, dispatcher.give_up_unread())


def test_what_is_in_flight_is_given_up_at_the_end_unless_somebody_can_read_it(world, h):
    """The others go on, and are waited for when the dispatcher closes."""
    dispatcher, released = world.dispatcher(), threading.Event()

    def submit(label, **what):
        part = world.part(label, answers=[lambda: released.wait(h.BOUND) and Ready(label)])
        return dispatcher.submit("s", attrs.evolve(part, **what), itertools.count())

    sample = {"withdraw": lambda _: None}
    unread, wanted, made = submit("unread", **sample), submit("wanted", **sample), submit("made")
    wanted.add_done_callback(lambda _: None)
    while len(world.poller) < 3:
        threading.Event().wait(0.001)
    assert 1 == dispatcher.give_up_unread()
    assert "exit" == unread.exception(0).reason
    released.set()
    assert ["wanted", "made"] == [future.result(h.BOUND) for future in (wanted, made)]


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt])
def test_a_send_that_kills_its_thread_fails_its_sample_only(world, h, death):
    """Rule 3 for samples."""
    dispatcher = world.dispatcher(max_threads=1)
    numbers = itertools.count()
    bad = dispatcher.submit("sample", world.part(0, refuse=death()), numbers)
    good = dispatcher.submit("sample", world.part(1), numbers)
    assert isinstance(bad.exception(h.BOUND).__cause__, death)
    assert 1 == good.result(h.BOUND)


def test_a_finish_that_raises_fails_its_sample_only(world, h):
    """The error of the conversion is the outcome."""
    dispatcher = world.dispatcher()

    def finish(value):
        raise ZeroDivisionError

    bad = dispatcher.submit("sample", world.part(0), itertools.count(), finish)
    assert isinstance(bad.exception(h.BOUND).__cause__, ZeroDivisionError)


def test_when_the_poller_is_gone_a_sample_fails(world, h):
    """An accepted sample that nobody can poll does not hang."""
    dispatcher = world.dispatcher()
    world.poller.start()
    hold = threading.Event()
    future = dispatcher.submit("sample", world.part(0, before=lambda: hold.wait(h.BOUND)), itertools.count())
    world.poller.close()
    hold.set()
    assert isinstance(future.exception(h.BOUND), ClientClosedError)


@pytest.fixture
def calls(h):
    """A pool of two threads."""
    pool = CallPool("the session", max_threads=2)
    yield pool
    pool.close(drain=False, timeout=h.BOUND)


def test_a_call_gives_a_future_of_its_result_or_error(calls, h):
    """Plain blocking calls run on a few threads."""
    futures = [calls.submit("list", lambda i=i: 10 // i) for i in (5, 0)]
    assert 2 == futures[0].result(h.BOUND)
    assert isinstance(futures[1].exception(h.BOUND).__cause__, ZeroDivisionError)
    assert all(name.startswith("tinkex-call") for name in h.threads())


def test_calls_can_be_cancelled_while_queued_and_are_closed_with_the_pool(calls, h):
    """What was not begun is not run."""
    hold = threading.Event()
    ran = []
    busy = [calls.submit("wait", lambda: hold.wait(h.BOUND)) for _ in range(2)]
    cancelled, closed = (calls.submit("late", lambda: ran.append(1)) for _ in range(2))
    while not all(future.running() for future in busy):
        threading.Event().wait(0.001)
    assert cancelled.cancel()
    closer = threading.Thread(target=lambda: calls.close(drain=False, timeout=h.BOUND))
    closer.start()
    assert isinstance(closed.exception(h.BOUND), ClientClosedError)
    hold.set()
    closer.join(h.BOUND)
    assert [] == ran
    with pytest.raises(ClientClosedError):
        calls.submit("late", list)


def test_a_call_that_is_given_up_just_before_it_begins_is_not_run(h):
    """``close`` fails what a thread has taken but not begun, and then it must not be done."""
    holder, ran = [], []
    deadline = ExitDeadline(h.Clock(), exiting=lambda: bool(holder[0].close(drain=False, timeout=0)))
    holder.append(CallPool("the session", wiring=Wiring(exit_deadline=deadline)))
    future = holder[0].submit("late", lambda: ran.append(1))
    assert isinstance(future.exception(h.BOUND), ClientClosedError)
    holder[0].close(timeout=h.BOUND)
    assert [] == ran


def test_a_call_may_close_the_pool_it_runs_on(calls, h):
    """``close`` on a thread of the pool does not wait for that thread."""
    future = calls.submit("close", lambda: calls.close(timeout=60))
    assert future.result(h.BOUND) is None


def test_an_executor_that_takes_no_more_work_fails_the_call(h):
    """At the end of the interpreter executors refuse; nobody is left waiting."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        pool = CallPool("the session", wiring=Wiring(executor=executor))
    with pytest.raises(ClientClosedError) as caught:
        pool.submit("late", list)
    assert ("exit", []) == (caught.value.reason, pool.pending())


def test_a_call_that_meets_the_close_is_refused(h):
    """Closed between the check and the queue: the caller hears of it."""
    pool = CallPool("the session", wiring=Wiring(observers=[lambda change: pool.close(drain=False)]))
    with pytest.raises(ClientClosedError):
        pool.submit("late", list)
    assert [] == pool.pending()


def test_a_sample_accepted_while_the_dispatcher_closes_is_not_watched(world, h):
    """Nobody would take its result."""
    dispatcher = world.dispatcher()
    hold, sending = threading.Event(), threading.Event()
    part = world.part("a", before=lambda: sending.set() or hold.wait(h.BOUND), answers=[Pending()])
    future = dispatcher.submit("sample", part, itertools.count())
    assert sending.wait(h.BOUND)
    closer = threading.Thread(target=lambda: dispatcher.close(drain=False, timeout=h.BOUND))
    closer.start()
    assert isinstance(future.exception(h.BOUND), ClientClosedError)
    hold.set()
    closer.join(h.BOUND)
    assert (["a"], 0) == (world.server.labels, len(world.poller))


def test_a_finish_that_ends_its_thread_fails_its_sample(world, h):
    """``sys.exit()`` in a conversion is a failure of that sample, not a future that hangs."""
    dispatcher = world.dispatcher()

    def finish(value):
        raise SystemExit

    bad = dispatcher.submit("sample", world.part(0), itertools.count(), finish)
    assert isinstance(bad.exception(h.BOUND).__cause__, SystemExit)
    assert 1 == dispatcher.submit("sample", world.part(1), itertools.count()).result(h.BOUND)
