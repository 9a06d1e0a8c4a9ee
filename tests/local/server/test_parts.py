"""The parts by themselves: the queue's turns, the table of promises, the scratch folder."""

from __future__ import annotations

import fcntl
import inspect
import os
import threading

import pytest

from tinkex.errors import LifecycleError
from tinkex.local.futures import FutureTable, result_of
from tinkex.local.limits import Limits
from tinkex.local.problems import Problem
from tinkex.local.queue import Job, JobQueue
from tinkex.local.scratch import Scratch
from tinkex.types import OptimStepResponse


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def log():
    """Where jobs leave their names."""
    return []


def job(log, lane, name, seq=None):
    """A job that writes its name into a log."""
    return Job(lane=lane, run=lambda: log.append(name), finish=lambda _: None, seq=seq)


def drain(queue):
    """Run everything that is queued and stop."""
    done = threading.Event()
    queue.put(Job(lane="~last", run=lambda: None, finish=lambda _: done.set()))
    queue.start()
    assert done.wait(10)
    # Lanes take turns, so others may not be at their end.
    while queue._turns or queue._running:
        threading.Event().wait(0.001)
    assert queue.close(10)


def make_queue(**settings):
    """A queue with the usual settings."""
    return JobQueue(**{"batch_rows": 64, "gap_s": 60.0, "clock": Clock(), **settings})


def test_lanes_take_turns(log):
    """A model with many operations cannot starve another."""
    queue = make_queue()
    for number in range(4):
        queue.put(job(log, "a", f"a{number}"))
    for number in range(2):
        queue.put(job(log, "b", f"b{number}"))
    drain(queue)
    assert log[:4] == ["a0", "b0", "a1", "b1"]


def steps(log, name, number, error=None):
    """Make what a job in steps runs: it writes each step into a log, and its value is the name."""

    def run():
        for step in range(number):
            if step:
                yield
            log.append(f"{name}.{step}")
        if error is not None:
            raise error
        return name

    return run


@pytest.mark.parametrize("seq", [None, 0])
def test_other_lanes_have_their_turns_between_the_steps_of_a_job(log, seq):
    """And the next job of its own lane does not: it begins when the long one has ended."""
    queue, outcomes = make_queue(), []
    queue.put(Job(lane="a", run=steps(log, "long", 3), finish=outcomes.append, seq=seq))
    queue.put(job(log, "a", "next", seq=seq if seq is None else 1))
    queue.put(job(log, "b", "b0"))
    queue.put(Job(lane="c", run=steps(log, "other", 2), finish=outcomes.append))
    drain(queue)
    assert log == ["long.0", "b0", "other.0", "long.1", "other.1", "long.2", "next"]
    assert outcomes == ["other", "long"]


def test_a_lane_that_gets_ready_meanwhile_comes_before_the_next_step(log):
    """The lane of a long job goes to the end of the turns after each step, whatever it has queued behind it."""
    queue = make_queue()

    def run():
        queue.put(job(log, "b", "b0"))
        yield
        log.append("end")

    queue.put(Job(lane="a", run=run, finish=lambda _: None))
    queue.put(job(log, "a", "next"))
    drain(queue)
    assert log == ["b0", "end", "next"]


def test_a_step_that_raises_ends_its_job(log):
    """The exception is the outcome, and the lane goes on."""
    queue, outcomes, error = make_queue(), [], ValueError("broken")
    queue.put(Job(lane="a", run=steps(log, "long", 2, error), finish=outcomes.append))
    queue.put(job(log, "a", "next"))
    drain(queue)
    assert outcomes == [error]
    assert log == ["long.0", "long.1", "next"]


def test_a_job_between_two_steps_is_running(log):
    """It says so, it cannot be taken back, what is behind it counts it, and it began with its first step."""
    clock = Clock()
    queue, seen = make_queue(clock=clock), []
    long = Job(lane="a", run=steps(log, "long", 2), finish=lambda _: None)
    behind = job(log, "a", "next")

    def look():
        clock.now = 5.0
        seen.extend([queue.explain(long), queue.withdraw(long), queue.explain(behind)])

    for one in (long, behind, Job(lane="b", run=look, finish=lambda _: None)):
        queue.put(one)
    drain(queue)
    assert seen == ["running", False, "2 operations ahead"]
    assert (long.began_at, behind.began_at) == (0.0, 5.0)


def test_closing_between_two_steps_fails_the_job(log):
    """Its generator is closed, and what else there is fails as well."""
    queue, outcomes, long = make_queue(), [], steps(log, "long", 2)()
    started, release = threading.Event(), threading.Event()

    def hold():
        started.set()
        release.wait()

    queue.put(Job(lane="a", run=lambda: long, finish=outcomes.append))
    queue.put(Job(lane="b", run=hold, finish=lambda _: None))
    queue.start()
    assert started.wait(10)
    assert not queue.close(0)
    assert [type(outcome) for outcome in outcomes] == [LifecycleError]
    assert inspect.getgeneratorstate(long) == inspect.GEN_CLOSED
    release.set()
    assert queue.close(10)
    assert log == ["long.0"]


def test_unnumbered_jobs_keep_their_order(log):
    """They run as they arrive."""
    queue = make_queue()
    for name in "xyz":
        queue.put(job(log, "a", name))
    drain(queue)
    assert log == ["x", "y", "z"]


def test_a_gap_ends_when_the_clock_says_so(log):
    """Only the lane with the gap gives up, and not before its time."""
    clock, outcomes = Clock(), []
    queue = make_queue(clock=clock, gap_s=60.0)
    queue.put(Job(lane="a", run=lambda: log.append("a1"), finish=outcomes.append, seq=1))
    clock.now = 59.0
    assert queue._overdue_locked() is None
    clock.now = 60.0
    queue.put(job(log, "b", "b0", seq=0))
    drain(queue)
    assert log == ["b0"]
    assert "seq_id 0" in str(outcomes[0])


def test_a_number_that_arrives_in_time_closes_the_gap(log):
    """The patience of the lane begins anew with each number it gets on with."""
    clock = Clock()
    queue = make_queue(clock=clock, gap_s=60.0)
    for seq, when in ((3, 0.0), (0, 50.0), (1, 100.0)):
        clock.now = when
        queue.put(job(log, "a", seq, seq=seq))
    clock.now = 120.0
    queue.put(job(log, "a", 2, seq=2))
    drain(queue)
    assert log == [0, 1, 2, 3]


def test_closing_fails_everything_that_has_not_run(log):
    """Ready or waiting for a number, and whatever is put later."""
    outcomes = []
    queue = make_queue()
    for seq in (0, 5):
        queue.put(Job(lane="a", run=lambda: None, finish=outcomes.append, seq=seq))
    assert queue.close(0)
    queue.put(Job(lane="a", run=lambda: None, finish=outcomes.append))
    assert [type(outcome) for outcome in outcomes] == [LifecycleError] * 3


def test_a_job_that_will_not_end_is_not_waited_for_for_ever():
    """``close`` says that it still runs, and its future fails."""
    started, release, outcomes = threading.Event(), threading.Event(), []

    def run() -> None:
        started.set()
        release.wait()

    queue = make_queue()
    queue.put(Job(lane="a", run=run, finish=outcomes.append))
    queue.start()
    assert started.wait(10)
    assert not queue.close(0.01)
    assert isinstance(outcomes[0], LifecycleError)
    release.set()
    assert queue.close(10)


def test_empty_lanes_of_samplers_are_forgotten(log):
    """They come by the thousand."""
    queue = make_queue()
    for number in range(100):
        queue.put(job(log, f"s{number}", number))
    drain(queue)
    assert queue._lanes == {}


def finished(table, name, size=1):
    """Make a promise and keep it."""
    promise = table.create(name, "optim_step")
    table.finish(promise, result_of(OptimStepResponse(metrics={"x" * size: 1.0}), "optim_step"))
    return promise


def status_of(table, name):
    """What a poll would be answered: 200 or the status of the refusal."""
    try:
        table.mark_read(table.watch(name, lambda: None))
    except Problem as problem:
        return problem.status
    return 200


def test_a_result_that_was_only_announced_was_not_read():
    """Watching for it is not yet reading it: it goes with the unread ones, the oldest first."""
    table = FutureTable(Limits(kept_result_bytes=2500), Clock())
    finished(table, "old")
    table.watch(finished(table, "announced").request_id, lambda: None)
    finished(table, "new")
    assert [status_of(table, name) for name in ("old", "announced", "new")] == [410, 200, 200]


def test_results_that_were_read_go_first():
    """A result that nobody has seen outlives those that were read."""
    table = FutureTable(Limits(kept_result_bytes=2500), Clock())
    finished(table, "old")
    finished(table, "read")
    assert status_of(table, "read") == 200
    finished(table, "new")
    assert [status_of(table, name) for name in ("old", "read", "new", "never")] == [200, 410, 200, 404]


def test_few_results_are_kept_after_they_were_read():
    """They are there for an answer that was lost on its way; those that nobody has read do not count."""
    table = FutureTable(Limits(kept_results=1), Clock())
    for name in "abc":
        finished(table, name)
    assert [status_of(table, name) for name in "ab"] == [200, 200]
    assert [status_of(table, name) for name in "abc"] == [410, 200, 200]


def test_results_are_bounded_by_size():
    """The largest amount kept is a setting; one that is too large alone is kept until the next."""
    table = FutureTable(Limits(kept_result_bytes=1100), Clock())
    finished(table, "a", 200)
    assert status_of(table, "a") == 200
    finished(table, "b", 200)
    assert [status_of(table, name) for name in "ab"] == [410, 200]


def test_results_grow_old():
    """After a day they are gone, and the table still knows that they were there."""
    clock = Clock()
    table = FutureTable(Limits(kept_result_s=10), clock)
    finished(table, "a")
    clock.now = 10.5
    assert status_of(table, "a") == 410
    assert table.operation_of("a") == "optim_step"
    assert table.counts() == (0, 0)


def test_the_first_outcome_counts():
    """A job that ends after the server gave it up changes nothing."""
    table = FutureTable(Limits(), Clock())
    promise = finished(table, "a")
    assert promise.explain() == "finished"
    result = promise.result
    table.finish(promise, result_of(ValueError("late"), "optim_step"))
    assert promise.result is result


def test_a_result_without_a_wire_form_is_a_failure():
    """The future still ends."""
    assert b"no wire form" in result_of(object(), "optim_step").body


def test_the_scratch_of_a_dead_process_is_removed(tmp_path):
    """Whoever still lives holds its lock, and keeps its folder."""
    alive = Scratch(tmp_path)
    dead = tmp_path / "scratch" / "1-dead"
    dead.mkdir()
    (dead / "lock").touch()
    young = tmp_path / "scratch" / "2-young"
    young.mkdir()
    (young / "lock").touch()
    for folder in (alive.folder, dead):
        os.utime(folder / "lock", (0, 0))
    other = Scratch(tmp_path)
    assert alive.folder.exists()
    assert young.exists()
    assert not dead.exists()
    with (alive.folder / "lock").open("rb") as handle, pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for scratch in (alive, other):
        scratch.close()
        assert not scratch.folder.exists()


def test_a_copy_is_made_where_links_are_not_possible(tmp_path, monkeypatch):
    """Not every file system has links."""

    def refuse(*_args: object) -> None:
        raise OSError("no links here")

    source = tmp_path / "a"
    source.write_text("text")
    scratch = Scratch(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    assert (scratch.copy([source], "sampler") / "a").read_text() == "text"
    scratch.close()
