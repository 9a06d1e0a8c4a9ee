"""A failure governs what was submitted in ignorance of it, and no more."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading

import pytest

from tinkex.errors import FutureExpiredError, PipelineBrokenError, RequestFailedError, UnprocessableEntityError
from tinkex.pipeline import Failed, Pending, PipelineState, Ready

REFUSED = {"refuse": lambda h: h.refused()}
FAILED = {"answers": lambda h: [Failed(h.failed())]}


def part(world, h, label, fate):
    """Make a request that meets a fate."""
    return world.part(label, **{name: make(h) for name, make in fate.items()})


def broken(world, h, fate=FAILED, **options):
    """Return a pipeline whose first operation has failed, and its future, which nobody has read."""
    pipeline = world.submission(**options)
    future = pipeline.submit("forward_backward", [part(world, h, "bad", fate)], h.first)
    concurrent.futures.wait([future], h.BOUND)
    return pipeline, future


# --- 1: an operation that cannot change the model fails alone ---------------------------------------------------------


@pytest.mark.parametrize("fate", [REFUSED, FAILED], ids=["refused", "failed"])
def test_what_stands_behind_a_failed_read_goes_on(world, h, fate):
    """The steps behind a save under a taken name are done, though nobody has read its failure."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("optim_step", [world.part("first", before=lambda: hold.wait(h.BOUND))], h.first)
    bad = pipeline.submit("save_state", [part(world, h, "bad", fate)], h.first, read_only=True)
    steps = [pipeline.submit("optim_step", [world.part(i)], h.first) for i in range(3)]
    hold.set()
    assert ["first", 0, 1, 2] == [step.result(h.BOUND) for step in (first, *steps)]
    assert isinstance(bad.exception(h.BOUND), (UnprocessableEntityError, RequestFailedError))
    assert PipelineState.OPEN is pipeline.state


def test_the_number_of_a_refused_read_goes_to_what_comes_behind_it(world, h):
    """A refusal leaves no gap for the server to wait at."""
    pipeline = world.submission()
    pipeline.submit("forward", [part(world, h, "bad", REFUSED)], h.first, read_only=True)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
    assert [1] == world.server.seqs


def test_a_read_of_several_requests_is_given_up_with_its_first_failure(world, h):
    """Its other requests are not waited for, and what is behind it goes on."""
    pipeline = world.submission()
    parts = [world.part(0), world.part(1, refuse=h.refused()), world.part(2)]
    bad = pipeline.submit("forward", parts, h.first, read_only=True)
    assert isinstance(bad.exception(h.BOUND), UnprocessableEntityError)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
    assert ([0, "x"], [1, 2]) == (world.server.labels, world.server.seqs)


def test_a_read_whose_result_is_lost_fails_alone(world, h):
    """The server has used its number, and nothing but the result is missing."""
    pipeline = world.submission()
    lost = pipeline.submit("forward", [world.part(0, answers=[h.refused(410)])], h.first, read_only=True)
    assert isinstance(lost.exception(h.BOUND), FutureExpiredError)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)


def test_a_read_that_leaves_its_number_uncertain_breaks_the_pipeline(world, h):
    """The next operation would be sent with a number that the server may have used."""
    pipeline = world.submission()
    pipeline.submit("forward", [world.part(0, refuse=h.lost())], h.first, read_only=True).exception(h.BOUND)
    for _ in range(2):
        with pytest.raises(PipelineBrokenError, match="may or may not have used its number"):
            pipeline.submit("optim_step", [world.part("x")], h.first)


# --- 2, 3: an operation that changes the model breaks the pipeline until its failure was told -------------------------


def by_result(future):
    """Read it as most programs do."""
    with pytest.raises(RequestFailedError):
        future.result()


def by_await(future):
    """Read it in a coroutine."""

    async def read():
        return await future

    with pytest.raises(RequestFailedError):
        asyncio.run(read())


READERS = {
    "result": by_result,
    "exception": lambda future: future.exception(),
    "await": by_await,
    "as_completed": lambda future: [done.exception() for done in concurrent.futures.as_completed([future])],
    "a callback": lambda future: future.add_done_callback(lambda done: done.exception()),
}


@pytest.mark.parametrize("how", sorted(READERS))
@pytest.mark.parametrize("fate", [FAILED], ids=["failed"])
def test_once_the_failure_was_read_the_next_call_goes_on(world, h, caplog, how, fate):
    """With one line in the log that names what failed."""
    pipeline, future = broken(world, h, fate)
    READERS[how](future)
    with caplog.at_level(logging.WARNING, "tinkex"):
        assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
        assert "y" == pipeline.submit("optim_step", [world.part("y")], h.first).result(h.BOUND)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "goes on after a failed forward_backward (RequestFailedError: it failed" in line


UNREAD = {
    "nothing": lambda future: None,
    "wait": lambda future: concurrent.futures.wait([future]),
    "done": lambda future: future.done(),
    "repr": repr,
    "a callback that looks at nothing": lambda future: future.add_done_callback(lambda done: None),
}


@pytest.mark.parametrize("how", sorted(UNREAD))
def test_a_failure_that_nobody_has_read_still_governs(world, h, how):
    """A program that knows that something is done does not know that it failed."""
    pipeline, future = broken(world, h)
    UNREAD[how](future)
    with pytest.raises(PipelineBrokenError) as caught:
        pipeline.submit("optim_step", [world.part("x")], h.first)
    assert caught.value.__cause__ is future.exception()
    assert "x" not in world.server.labels


@pytest.mark.parametrize("call", ["submit", "check"])
def test_a_call_that_raises_the_failure_tells_it(world, h, call):
    """A loop that submits and never reads learns of the failure from its next call."""
    pipeline, _ = broken(world, h)
    with pytest.raises(PipelineBrokenError):
        pipeline.check() if call == "check" else pipeline.submit("optim_step", [world.part("x")], h.first)
    assert "y" == pipeline.submit("optim_step", [world.part("y")], h.first).result(h.BOUND)


def test_reading_what_it_took_along_tells_the_failure(world, h):
    """The future of an operation that was queued behind it names it."""
    pipeline = world.submission()
    hold = threading.Event()
    bad = world.part("bad", before=lambda: hold.wait(h.BOUND), refuse=h.refused())
    pipeline.submit("forward_backward", [bad], h.first)
    behind = pipeline.submit("optim_step", [world.part("behind")], h.first)
    hold.set()
    assert isinstance(behind.exception(h.BOUND), PipelineBrokenError)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
    assert ["x"] == world.server.labels


def test_each_of_several_failures_must_be_told(world, h):
    """Three operations were on the server when the first failed, and the others failed too."""
    pipeline = world.submission()
    hold = threading.Event()
    parts = [world.part(label, answers=[h.held(hold, Failed(h.failed()))]) for label in range(3)]
    futures = [pipeline.submit(f"step {label}", [one], h.first) for label, one in enumerate(parts)]
    while futures[-1].request_id is None:
        threading.Event().wait(0.001)
    hold.set()
    concurrent.futures.wait(futures, h.BOUND)
    futures[0].exception()
    with pytest.raises(PipelineBrokenError, match=r"an earlier step 1 of m failed .*, and 1 more, so this") as caught:
        pipeline.submit("optim_step", [world.part("x")], h.first)
    assert caught.value.__cause__ is futures[1].exception()
    assert "y" == pipeline.submit("optim_step", [world.part("y")], h.first).result(h.BOUND)


# --- 4: where the state is not certain, or not settled ----------------------------------------------------------------


def test_while_something_is_in_flight_the_next_call_does_not_go_on(world, h):
    """It may fail too. When it is settled the next call goes on."""
    pipeline = world.submission()
    hold = threading.Event()
    bad = pipeline.submit("forward_backward", [world.part("bad", answers=[h.held(hold, Failed(h.failed()))])], h.first)
    end = threading.Event()
    behind = pipeline.submit("optim_step", [world.part("behind", answers=[h.held(end, Ready("behind"))])], h.first)
    while behind.request_id is None:
        threading.Event().wait(0.001)
    hold.set()
    assert isinstance(bad.exception(h.BOUND), RequestFailedError)
    with pytest.raises(PipelineBrokenError, match="in flight"):
        pipeline.submit("optim_step", [world.part("x")], h.first)
    end.set()
    assert "behind" == behind.result(h.BOUND)
    assert "y" == pipeline.submit("optim_step", [world.part("y")], h.first).result(h.BOUND)


@pytest.mark.parametrize("fate", [{"refuse": lambda h: h.lost()}, {"answers": lambda h: [Pending(), h.refused(410)]}])
def test_where_the_state_is_uncertain_it_stays_broken_and_says_what_to_do(world, h, fate):
    """However often the failure is told."""
    pipeline, future = broken(world, h, fate)
    assert future.exception(h.BOUND) is not None
    for _ in range(3):
        with pytest.raises(PipelineBrokenError, match="create a new client from the last checkpoint") as caught:
            pipeline.submit("optim_step", [world.part("x")], h.first)
        assert caught.value.__cause__ is future.exception()
    assert "x" not in world.server.labels
