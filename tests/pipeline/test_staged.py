"""Operations in two halves, as a custom loss needs them."""

from __future__ import annotations

import threading

import pytest

from tinkex.errors import LifecycleError, PipelineBrokenError, RequestFailedError
from tinkex.pipeline import Failed, Pending, PipelineState, Ready


@pytest.fixture(params=["threads", "inline"])
def wiring(request, h):
    """The real executor, and one that runs everything in the calling thread."""
    return None if request.param == "threads" else h.inline()


def test_the_second_half_is_made_from_the_results_of_the_first(world, h, wiring):
    """Numbers are contiguous, and what was submitted later comes after both halves."""
    pipeline = world.submission(wiring=wiring)

    def loss(results):
        assert ["f0", "f1"] == results
        return [world.part("b0"), world.part("b1")]

    forward = [world.part(name, answers=[Pending(), Ready(name)]) for name in ("f0", "f1")]
    custom = pipeline.submit_staged("forward_backward_custom", forward, loss, "+".join)
    step = pipeline.submit("optim_step", [world.part("step")], h.first)
    assert ("b0+b1", "step") == (custom.result(h.BOUND), step.result(h.BOUND))
    assert ([1, 2, 3, 4, 5], ["f0", "f1", "b0", "b1", "step"]) == (world.server.seqs, world.server.labels)


def test_a_loss_that_raises_fails_with_its_own_error_and_the_next_call_goes_on(world, h, wiring):
    """Nothing is half-sent, so the next number follows as soon as the program has read the error."""
    pipeline = world.submission(wiring=wiring)

    def loss(results):
        raise ZeroDivisionError("my loss")

    custom = pipeline.submit_staged("forward_backward_custom", [world.part("f")], loss, h.first)
    assert isinstance(custom.exception(h.BOUND), ZeroDivisionError)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
    assert [1, 2] == world.server.seqs


def test_what_was_queued_behind_a_loss_that_raised_is_not_sent(world, h):
    """An optim_step submitted for these gradients must not run without them."""
    pipeline = world.submission()
    hold = threading.Event()

    def loss(results):
        hold.wait(h.BOUND)
        raise ZeroDivisionError("my loss")

    custom = pipeline.submit_staged("forward_backward_custom", [world.part("f")], loss, h.first)
    step = pipeline.submit("optim_step", [world.part("step")], h.first)
    hold.set()
    error = step.exception(h.BOUND)
    assert (PipelineBrokenError, custom.exception(h.BOUND)) == (type(error), error.__cause__)
    assert ["f"] == world.server.labels


def test_a_first_half_that_fails_breaks_the_pipeline_with_its_error(world, h, wiring):
    """The loss is not called, and the future has the server's error."""
    pipeline = world.submission(wiring=wiring)
    called = []
    forward = [world.part(0, answers=[Failed(h.failed())]), world.part(1)]
    custom = pipeline.submit_staged("custom", forward, called.append, h.first)
    assert isinstance(custom.exception(h.BOUND), RequestFailedError)
    assert ([], PipelineState.BROKEN) == (called, pipeline.state)


def test_a_failure_before_it_ends_the_wait_for_the_first_half(world, h):
    """While the worker waits for the first half, an earlier operation may break the pipeline."""
    pipeline = world.submission()
    hold = threading.Event()
    called = []
    first = pipeline.submit("a", [world.part("a", answers=[h.held(hold, Failed(h.failed()))])], h.first)
    custom = pipeline.submit_staged("custom", [world.part("f", answers=[Pending()])], called.append, h.first)
    while custom.request_id is None:
        threading.Event().wait(0.001)
    hold.set()
    error = custom.exception(h.BOUND)
    assert (first.exception(h.BOUND), []) == (error.__cause__, called)


def test_closing_ends_the_wait_for_the_first_half(world, h):
    """``close(drain=False)`` does not wait for a result that may never come."""
    pipeline = world.submission()
    custom = pipeline.submit_staged("custom", [world.part("f", answers=[Pending()])], list, h.first)
    while custom.request_id is None:
        threading.Event().wait(0.001)
    pipeline.close(drain=False, timeout=h.BOUND)
    assert custom.exception(0) is not None


def test_a_loss_that_returns_no_requests_finishes_the_operation(world, h, wiring):
    """Combine is called with no results; nothing waits for requests that do not exist."""
    pipeline = world.submission(wiring=wiring)
    custom = pipeline.submit_staged("custom", [world.part("f")], lambda results: [], lambda results: results)
    assert [] == custom.result(h.BOUND)


def test_a_loss_cannot_call_its_own_model(world, h):
    """Such a call would wait for the loss that makes it; it is refused with an explanation instead."""
    pipeline = world.submission()

    def loss(results):
        pipeline.submit("forward", [world.part("x")], h.first).result(h.BOUND)
        return []

    custom = pipeline.submit_staged("custom", [world.part("f")], loss, h.first)
    error = custom.exception(h.BOUND)
    assert isinstance(error, LifecycleError)
    assert "loss function" in str(error)


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt])
def test_a_loss_that_ends_its_thread_fails_the_operation(world, h, death):
    """``sys.exit()`` inside a loss is a failure of that operation, not a future that hangs."""
    pipeline = world.submission()

    def loss(results):
        raise death

    custom = pipeline.submit_staged("custom", [world.part("f")], loss, h.first)
    assert isinstance(custom.exception(h.BOUND), death)


def test_the_bytes_of_both_halves_come_back(world, h):
    """The budget is whole again when the operation is done."""
    pipeline = world.submission()
    forward = [world.part("f", size=6_000)]
    custom = pipeline.submit_staged("custom", forward, lambda results: [world.part("b", size=9_000)], h.first)
    assert "b" == custom.result(h.BOUND)
    assert world.budget.acquire(10_000, timeout=h.BOUND)
