"""Fork and the end of the program."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from tinkex.errors import ClientClosedError
from tinkex.pipeline import CallPool, ExitDeadline, Pending, PipelineState, Wiring, process

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def in_child(check):
    """Run ``check`` in a forked process; return its exit code and what it wrote."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(write, str(check()).encode())
            code = 0
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(code)
    os.close(write)
    text = b"".join(iter(lambda: os.read(read, 4096), b"")).decode()
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


@needs_fork
def test_in_a_child_process_every_call_says_so_and_nothing_hangs(world, h):
    """Pending futures fail, calls raise and name the parent, and closing is harmless; the parent goes on."""
    pipeline, dispatcher = world.submission(), world.dispatcher()
    hold = threading.Event()
    training = pipeline.submit("a", [world.part("a", answers=[h.held(hold), h.held(hold)])], h.first)
    sample = dispatcher.submit("s", world.part("s", answers=[Pending()]), itertools.count())
    queued = pipeline.submit("b", [world.part("b", before=lambda: hold.wait(h.BOUND))], h.first)
    while training.request_id is None or sample.request_id is None:
        threading.Event().wait(0.001)
    called = []
    for future in (training, sample, queued):
        future.add_done_callback(called.append)

    def check():
        problems = []
        for future in (training, sample, queued):
            concurrent.futures.wait([future], timeout=h.BOUND)
            error = future.exception(timeout=h.BOUND)
            if error.reason != "forked" or str(os.getppid()) not in str(error):
                problems.append(error)
        calls = [
            lambda: pipeline.submit("c", [world.part("c")], h.first),
            lambda: dispatcher.submit("c", world.part("c"), itertools.count()),
            lambda: pipeline.reopen(),
            lambda: world.poller.start(),
        ]
        for call in calls:
            try:
                call()
                problems.append(call)
            except ClientClosedError as error:
                problems += [] if error.reason == "forked" else [error]
        pipeline.close()
        dispatcher.close()
        return [*problems, *called, pipeline.state is PipelineState.CLOSED]

    assert (0, "[True]") == in_child(check)
    assert not training.done()
    hold.set()
    pipeline.close(drain=False, timeout=h.BOUND)


@needs_fork
def test_locks_that_were_held_at_the_fork_do_not_stop_the_child(world, h):
    """A thread of the parent may hold any lock of the pipeline at the moment of the fork."""
    pipeline, calls = world.submission(), CallPool("calls")
    future = pipeline.submit("a", [world.part("a", answers=[Pending()])], h.first)
    held = [pipeline._lock, world.poller._lock, calls._lock, future._condition]

    def check():
        pipeline.close()
        calls.close()
        return future.exception(timeout=h.BOUND).reason

    for lock in held:
        lock.acquire()
    try:
        outcome = in_child(check)
    finally:
        for lock in held:
            lock.release()
    calls.close()
    assert (0, "forked") == outcome


def test_what_a_fork_does_to_the_owners_of_promises(new_world, h, caplog):
    """The same as above without a fork: pending futures fail, twice forked is forked once, nothing is reported."""
    world = new_world()
    pipeline = world.submission()
    failed = pipeline.submit("f", [world.part("f", refuse=h.refused())], h.first)
    concurrent.futures.wait([failed], timeout=h.BOUND)
    pipeline.reopen()
    future = pipeline.submit("a", [world.part("a", answers=[Pending()])], h.first)
    done = pipeline.submit("b", [world.part("b")], h.first)
    done.cancel()
    for _ in range(2):
        pipeline.after_fork()
    pipeline.close()
    pipeline.report()
    assert ("forked", "forked") == (pipeline._closed.reason, future.exception(0).reason)
    world.poller.close()
    world.poller.after_fork()
    assert "never read" not in caplog.text
    assert failed.exception()
    pipeline._executor.shutdown()


def test_an_owner_that_cannot_be_told_of_a_fork_does_not_keep_others_from_it(caplog):
    """One broken owner is logged; the rest is closed."""
    told = []

    class Owner:
        def __init__(self, action):
            self.after_fork = action

    def broken():
        raise ValueError("owner")

    owners = [Owner(broken), Owner(lambda: told.append(1)), Owner(broken)]
    for owner in owners:
        process.survive_fork(owner)
    others = [owner for owner in process._owners if owner not in owners]
    for owner in others:
        process._owners.discard(owner)
    process._tell_owners()
    for owner in owners:
        process._owners.discard(owner)
    for owner in others:
        process.survive_fork(owner)
    assert ([1], 2) == (told, caplog.text.count("after a fork"))


def test_the_main_thread_of_a_running_program_is_alive():
    """The time at the end does not begin before the end."""
    assert not ExitDeadline(lambda: 0.0, budget_s=0.0).over()


def test_a_call_that_was_queued_at_the_end_is_dropped(h):
    """Plain calls have the same deadline."""
    deadline = ExitDeadline(h.Clock(), budget_s=0.0, exiting=lambda: True)
    pool = CallPool("the session", wiring=Wiring(exit_deadline=deadline))
    future = pool.submit("late", list)
    assert "exit" == future.exception(h.BOUND).reason
    pool.close()


def test_work_that_was_queued_is_dropped_loudly_when_the_time_at_the_end_is_over(world, h, caplog):
    """After the main thread has ended, what is not sent in time fails and is not left pending."""
    clock, ending = h.Clock(), []
    deadline = ExitDeadline(clock, budget_s=10.0, exiting=lambda: bool(ending))
    pipeline = world.submission(wiring=Wiring(exit_deadline=deadline))
    hold = threading.Event()

    def before():
        hold.wait(h.BOUND)
        ending.append(1)
        deadline.over()
        clock.now += 10.0

    first = pipeline.submit("a", [world.part("a", before=before)], h.first)
    second = pipeline.submit("b", [world.part("b")], h.first)
    hold.set()
    assert "exit" == second.exception(h.BOUND).reason
    assert (["a"], True) == (world.server.labels, first.done())
    assert "the program ended before" in caplog.text


def test_a_wait_for_a_first_half_ends_with_the_time_at_the_end(world, h):
    """A custom loss whose forward never comes does not keep an ending program."""
    clock = h.Clock()
    deadline = ExitDeadline(clock, budget_s=1.0, exiting=lambda: bool(world.server.labels))
    pipeline = world.submission(wiring=Wiring(exit_deadline=deadline))

    def late():
        clock.now += 1.0
        return Pending()

    custom = pipeline.submit_staged("custom", [world.part("f", answers=[late])], list, h.first)
    assert "exit" == custom.exception(h.BOUND).reason


SCRIPT = """
    import threading
    from tinkex.errors import error_from_status
    from tinkex.pipeline import *

    def send(seq_id):
        threading.Event().wait(0.02)
        if seq_id == refused:
            raise error_from_status("no such model", status_code=404)
        print("sent", seq_id, flush=True)
        return f"r{seq_id}"

    poller = Poller(lambda watched: Ready(1))
    pipeline = Submission("m", poller, budget=ByteBudget(1000))
    futures = [pipeline.submit("optim_step", [Part(send=send)], len) for _ in range(3)]
    pipeline.submit_staged("custom", [Part(send=send)], lambda results: [Part(send=send)], len)
"""


def run_script(refused):
    """Run the script; the server refuses one of its requests."""
    return subprocess.run(
        [sys.executable, "-c", f"refused = {refused}\n" + textwrap.dedent(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_script_that_submits_and_ends_still_sends_its_work():
    """The interpreter waits for the worker, also for the second half of a custom loss."""
    done = run_script(refused=None)
    assert (0, "") == (done.returncode, done.stderr)
    assert [f"sent {number}" for number in range(1, 6)] == done.stdout.split("\n")[:-1]


def test_a_failure_after_the_end_of_a_script_is_loud():
    """Nobody can read that future any more, so the log says what failed."""
    done = run_script(refused=2)
    assert ["sent 1"] == done.stdout.split("\n")[:-1]
    assert "optim_step failed, and its result was never read" in done.stderr
    assert "no such model" in done.stderr
