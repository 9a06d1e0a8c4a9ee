"""Budgets and the sample gate."""

from __future__ import annotations

import threading

import pytest

from tinkex.errors import ClientClosedError, FlowControlError
from tinkex.pipeline.flow import ByteBudget, SampleGate, SamplePolicy


def in_thread(action):
    """Run ``action`` in a thread; return the thread and where its outcome will be."""
    outcome = []

    def run():
        try:
            outcome.append(action())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def queue_up(turnstile, count):
    """Wait until ``count`` threads are blocked."""
    for _ in range(10_000):
        with turnstile._lock:
            if len(turnstile._waiting) == count:
                return
        threading.Event().wait(0.001)
    raise AssertionError("nobody waits")


def test_a_budget_gives_what_it_has_and_takes_it_back():
    """Bytes are free again after release, and never more than the limit is out."""
    budget = ByteBudget(10)
    assert (True, False) == (budget.acquire(7, timeout=0), budget.acquire(4, timeout=0))
    budget.release(7)
    assert budget.acquire(10, timeout=0)


def test_what_can_never_fit_is_refused_at_once():
    """A request larger than the whole budget would wait for ever."""
    with pytest.raises(FlowControlError, match="11 bytes"):
        ByteBudget(10).acquire(11)


def test_waiting_threads_are_served_in_order(h):
    """A small request does not overtake a large one that came first."""
    budget = ByteBudget(10)
    budget.acquire(10)
    order = []
    threads = []
    for count, size in enumerate((8, 1, 1), start=1):
        threads.append(in_thread(lambda size=size: (budget.acquire(size), order.append(size)))[0])
        queue_up(budget, count)
    budget.release(5)
    assert ([], False) == (order, budget.acquire(1, timeout=0))
    budget.release(5)
    for thread in threads:
        thread.join(h.BOUND)
    assert [1, 1, 8] == sorted(order)
    assert not budget.acquire(1, timeout=0)


def test_a_wait_that_ends_leaves_the_line(h):
    """After a timeout the next in line is served."""
    budget = ByteBudget(10)
    budget.acquire(9)
    assert not budget.acquire(5, timeout=0.01)
    assert budget.acquire(1, timeout=0)


def test_the_next_in_line_is_served_when_the_first_gives_up(h):
    """A large request that timed out does not hold up a small one that fits."""
    budget = ByteBudget(10)
    budget.acquire(9)
    first, _ = in_thread(lambda: budget.acquire(5, timeout=0.05))
    while first.is_alive() and not budget._waiting:
        threading.Event().wait(0.001)
    second, outcome = in_thread(lambda: budget.acquire(1))
    first.join(h.BOUND)
    second.join(h.BOUND)
    assert [True] == outcome


def test_the_waiters_of_one_owner_can_be_sent_away(h):
    """Its threads fail, others go on waiting and are served."""
    budget, mine, other = ByteBudget(10), object(), object()
    budget.acquire(10)
    sent, failed = in_thread(lambda: budget.acquire(5, owner=mine))
    queue_up(budget, 1)
    stays, served = in_thread(lambda: budget.acquire(5, owner=other))
    queue_up(budget, 2)
    error = ClientClosedError("closed")
    budget.send_away(mine, error)
    sent.join(h.BOUND)
    budget.release(10)
    stays.join(h.BOUND)
    assert ([error], [True]) == (failed, served)


def test_closing_fails_those_who_wait_and_those_who_come(h):
    """Nobody waits for a budget that is closed."""
    budget = ByteBudget(10)
    budget.acquire(10)
    thread, outcome = in_thread(lambda: budget.acquire(1))
    queue_up(budget, 1)
    error = ClientClosedError("closed")
    budget.close(error)
    thread.join(h.BOUND)
    assert [error] == outcome
    with pytest.raises(ClientClosedError):
        budget.acquire(1)


def test_a_thread_that_must_not_wait_may_overdraw():
    """``take`` never blocks; the debt is paid before others are admitted."""
    budget = ByteBudget(10)
    budget.take(15)
    budget.release(10)
    assert (True, False) == (budget.acquire(5, timeout=0), budget.acquire(1, timeout=0))


def gate(h, **changes):
    """Make a gate and its clock."""
    clock = h.Clock()
    return SampleGate(SamplePolicy(**changes), clock=clock), clock


def test_a_gate_admits_a_bounded_number(h):
    """At most ``max_submits`` are being submitted at once."""
    samples, _ = gate(h, max_submits=2)
    charges = [samples.enter(1, timeout=0) for _ in range(3)]
    assert [1, 1, None] == charges
    samples.leave(1)
    assert 1 == samples.enter(1, timeout=0)


def test_one_sample_may_take_the_bytes_below_zero(h):
    """A sample of any size passes while the budget is not negative; the next one waits."""
    samples, _ = gate(h, max_bytes=100)
    assert (500, None) == (samples.enter(500, timeout=0), samples.enter(1, timeout=0))
    samples.leave(500)
    assert 1 == samples.enter(1, timeout=0)


@pytest.mark.parametrize(
    ("size", "retry_after", "pause"), [(131_072, None, 1.0), (131_073, None, 5.0), (131_073, 2.5, 2.5)]
)
def test_a_429_pauses_everyone(h, size, retry_after, pause):
    """At most one second, five after a large sample, or what the server asked for."""
    samples, clock = gate(h, first_pause_s=100.0)
    samples.throttle(size, retry_after)
    clock.now += pause - 0.01
    assert samples.enter(1, timeout=0) is None
    clock.now += 0.01
    assert samples.enter(1, timeout=0) is not None


def test_pauses_begin_short_and_double_until_a_sample_is_accepted(h):
    """A stray 429 costs next to nothing; what was sent before a pause began does not lengthen it."""
    samples, clock = gate(h, first_pause_s=0.02)
    waits = []
    for accepted in (False, False, True, False):
        samples.throttle(1)
        samples.throttle(1)
        waits.append(samples._paused_until - clock.now)
        clock.now = samples._paused_until
        samples.leave(samples.enter(1, timeout=0), accepted=accepted)
    assert [0.02, 0.04, 0.08, 0.02] == [round(wait, 6) for wait in waits]


def test_after_a_pause_few_are_admitted_and_bytes_count_twenty_times(h):
    """For ten seconds the server is treated with care, then everything is as before."""
    samples, clock = gate(h)
    samples.throttle(1)
    clock.now += 1.0
    charges = [samples.enter(3, timeout=0) for _ in range(11)]
    assert [60] * 10 + [None] == charges
    clock.now += 10.0
    assert 3 == samples.enter(3, timeout=0)


def test_a_pause_ends_by_itself_for_those_who_wait(h):
    """A blocked sample passes when the time has come, without anybody leaving."""
    samples = SampleGate(SamplePolicy(pause_s=0.05, throttled_submits=5))
    samples.throttle(1)
    threads = [in_thread(lambda: samples.enter(1)) for _ in range(3)]
    for thread, outcome in threads:
        thread.join(h.BOUND)
        assert [20] == outcome


def test_a_pause_that_begins_while_somebody_waits_ends_for_them_too(h):
    """The first in line watches the clock even if the pause came after it."""
    samples = SampleGate(SamplePolicy(max_submits=1, pause_s=0.05))
    charge = samples.enter(1)
    thread, outcome = in_thread(lambda: samples.enter(1))
    queue_up(samples, 1)
    samples.throttle(1)
    samples.leave(charge)
    thread.join(h.BOUND)
    assert [20] == outcome


def test_a_wait_can_be_given_up(h):
    """Who must not wait for ever says so by a callable, and leaves the line."""
    samples = SampleGate(SamplePolicy(max_submits=1))
    samples.enter(1)
    assert samples.enter(1, give_up=lambda: True) is None
    samples.leave(1)
    assert samples.enter(1, timeout=0) == 1


@pytest.mark.parametrize("granted", [False, True])
def test_an_interrupted_wait_gives_back_its_place_and_what_it_was_granted(h, granted):
    """Ctrl-C in a blocked call leaves nothing behind."""
    samples = SampleGate(SamplePolicy(max_submits=1))
    charge = samples.enter(7)

    def interrupt():
        if granted:  # as if the other one left just before the interrupt
            samples._refund_locked(charge)
            samples._grant_locked()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        samples.enter(1, give_up=interrupt)
    if not granted:
        samples.leave(charge)
    assert (1, None) == (samples.enter(1, timeout=0), samples.enter(1, timeout=0))
