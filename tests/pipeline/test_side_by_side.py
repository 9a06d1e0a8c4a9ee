"""The requests of one large operation, sent side by side: all but the first, and then the first."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from tinkex.errors import ClientClosedError, PipelineBrokenError, UnprocessableEntityError
from tinkex.pipeline import Failed, Pending, PipelineState, Wiring
from tinkex.pipeline.uploads import Uploads


def test_all_but_the_first_are_sent_at_once_and_the_first_last(world, h):
    """The server waits for the first, and has all of the operation then; the results are in order all the same."""
    pipeline = world.submission(first_seq_id=7, uploads=3)
    together = threading.Barrier(3, timeout=h.BOUND)
    parts = [world.part("a")] + [world.part(label, before=together.wait) for label in "bcd"]
    future = pipeline.submit("forward_backward", parts, "".join)
    after = pipeline.submit("optim_step", [world.part("e")], h.first)
    assert ("abcd", "e") == (future.result(h.BOUND), after.result(h.BOUND))
    assert ({8, 9, 10}, [7, 11]) == (set(world.server.seqs[:3]), world.server.seqs[3:])
    assert dict(zip(world.server.labels, world.server.seqs, strict=True)) == dict(
        zip("abcde", range(7, 12), strict=True)
    )
    assert (12, "r4") == (pipeline.next_seq_id, future.request_id)


def test_no_more_are_sent_at_once_than_allowed(world, h):
    """Each takes memory and a connection."""
    lock, now, most = threading.Lock(), [0], [0]
    full = threading.Barrier(2, timeout=h.BOUND)

    def before():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        full.wait()
        with lock:
            now[0] -= 1

    pipeline = world.submission(uploads=2)
    parts = [world.part(0), *(world.part(label, before=before) for label in range(1, 7))]
    assert list(range(7)) == pipeline.submit("forward_backward", parts, list).result(h.BOUND)
    assert 2 == most[0]


@pytest.mark.parametrize(("uploads", "count"), [(1, 5), (4, 2)])
def test_few_requests_and_those_of_other_servers_go_in_order(world, h, uploads, count):
    """Of two there is nothing to gain."""
    pipeline = world.submission(uploads=uploads)
    parts = [world.part(label) for label in range(count)]
    assert list(range(count)) == pipeline.submit("forward_backward", parts, list).result(h.BOUND)
    assert list(range(1, count + 1)) == world.server.seqs


def test_both_halves_of_a_staged_operation_are_sent_side_by_side(world, h):
    """As a custom loss over a large batch is."""
    pipeline = world.submission(uploads=2)
    parts, second = ([world.part(label) for label in labels] for labels in ("abc", "def"))
    future = pipeline.submit_staged("custom", parts, lambda results: second if ["a", "b", "c"] == results else [], list)
    assert ["d", "e", "f"] == future.result(h.BOUND)
    assert (1, 4) == (world.server.seqs[2], world.server.seqs[5])


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_one_that_is_refused_fails_the_operation_for_good(world, h, which, read_only):
    """Another was accepted, behind a number that nothing else can have."""
    pipeline = world.submission(uploads=4)
    submitted = threading.Event()
    other = threading.Event()  # one of the others was accepted

    def held(label):
        submitted.wait(h.BOUND)
        if label == which != 0:
            other.wait(h.BOUND)

    def part(label):
        made = world.part(
            label, before=lambda: held(label), refuse=h.refused() if label == which else None, answers=[Pending()]
        )
        return attrs.evolve(made, send=lambda seq_id: (made.send(seq_id), other.set())[0])

    future = pipeline.submit("forward_backward", [part(label) for label in range(4)], list, read_only=read_only)
    later = pipeline.submit("optim_step", [world.part("later")], h.first)
    submitted.set()
    assert isinstance(future.exception(h.BOUND), UnprocessableEntityError)
    assert isinstance(later.exception(h.BOUND), PipelineBrokenError)
    # Those that had not begun when it was refused were not sent, and the first never after one of the others.
    assert set(world.server.labels) <= {1, 2, 3} - {which}
    assert which or {1, 2, 3} == set(world.server.labels)
    with pytest.raises(PipelineBrokenError, match="last checkpoint"):
        pipeline.reopen()


def test_if_all_are_refused_the_next_call_goes_on(world, h):
    """As when the server does not have the loss: it has used none of the numbers."""
    pipeline = world.submission(uploads=4)
    parts = [world.part(label, refuse=h.refused()) for label in range(4)]
    assert isinstance(pipeline.submit("forward_backward", parts, list).exception(h.BOUND), UnprocessableEntityError)
    assert "x" == pipeline.submit("optim_step", [world.part("x")], h.first).result(h.BOUND)
    assert [1] == world.server.seqs


def test_after_a_failure_no_other_begins(world, h):
    """Each may be tried again for minutes, and the operation has failed; with one thread, they have an order."""
    parts = [world.part(label, refuse=h.refused() if label == 1 else None) for label in range(4)]
    accepted, failed = Uploads("m", 1, time.monotonic).send_all(parts, 2)
    assert ("r1", UnprocessableEntityError) == (accepted.request_id, type(failed))
    assert [0] == world.server.labels


def test_of_several_failures_the_first_is_told(world, h):
    """By the order of the data, whichever came first."""
    pipeline = world.submission(uploads=4)
    begun, failed = threading.Event(), threading.Event()
    parts = [
        world.part(0),
        world.part(1, before=lambda: begun.set() or failed.wait(h.BOUND), refuse=h.refused(404)),
        world.part(2, before=lambda: begun.wait(h.BOUND) and failed.set(), refuse=h.refused(422)),
    ]
    assert 404 == pipeline.submit("forward_backward", parts, list).exception(h.BOUND).status_code


def test_the_first_is_not_sent_after_the_pipeline_broke(world, h):
    """An operation before it failed meanwhile: then the server never begins with this one."""
    pipeline = world.submission(uploads=4)
    uploading, broken = threading.Event(), threading.Event()
    before = pipeline.submit(
        "optim_step", [world.part("x", answers=[lambda: uploading.wait(h.BOUND) and Failed(h.failed())])], h.first
    )
    parts = [
        world.part(0),
        world.part(1, before=lambda: uploading.set() or broken.wait(h.BOUND)),
        world.part(2, before=lambda: broken.wait(h.BOUND)),
    ]
    future = pipeline.submit("forward_backward", parts, list)
    assert before.exception(h.BOUND)
    broken.set()
    assert before.exception() is future.exception(h.BOUND).__cause__
    assert ["x", {1, 2}] == [world.server.labels[0], set(world.server.labels[1:])]
    assert PipelineState.BROKEN is pipeline.state
    with pytest.raises(PipelineBrokenError, match="last checkpoint"):
        pipeline.reopen()


@pytest.mark.parametrize("held", [{1, 2}, {0}], ids=["while the others are sent", "while the first is sent"])
def test_a_pipeline_that_is_closed_meanwhile_fails_the_operation(world, h, held):
    """Nothing is watched that nobody waits for, though all of it may be on the server by then."""
    pipeline = world.submission(uploads=4)
    sent, closed = threading.Event(), threading.Event()
    hold = {"before": lambda: sent.set() or closed.wait(h.BOUND)}
    parts = [world.part(label, **(hold if label in held else {})) for label in range(3)]
    future = pipeline.submit("forward_backward", parts, list)
    assert sent.wait(h.BOUND)
    closing = threading.Thread(target=pipeline.close, kwargs={"drain": False, "timeout": h.BOUND})
    closing.start()
    assert isinstance(future.exception(h.BOUND), ClientClosedError)
    closed.set()
    closing.join(h.BOUND)
    assert (held | {1, 2}, []) == (set(world.server.labels), world.server.polled)
    assert world.budget.acquire(10_000, timeout=0)


def test_where_no_thread_starts_any_more_they_go_one_after_the_other(world, h, monkeypatch):
    """As when the program has ended: what was submitted is still sent."""

    class Ended(ThreadPoolExecutor):
        def submit(self, *_):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("tinkex.pipeline.uploads.ThreadPoolExecutor", Ended)
    pipeline = world.submission(uploads=4)
    parts = [world.part(label) for label in range(4)]
    assert [0, 1, 2, 3] == pipeline.submit("forward_backward", parts, list).result(h.BOUND)
    assert [2, 3, 4, 1] == world.server.seqs


def test_each_is_sent_in_the_context_of_the_call(world, h):
    """Traces find out which call a request is of."""
    tag = contextvars.ContextVar("tag", default=None)
    seen = []
    pipeline = world.submission(uploads=4, wiring=Wiring(keeps_context=True))
    parts = [world.part(label, before=lambda: seen.append(tag.get())) for label in range(4)]

    def call():
        tag.set("mine")
        return pipeline.submit("forward_backward", parts, list)

    assert contextvars.copy_context().run(call).result(h.BOUND) == [0, 1, 2, 3]
    assert ["mine"] * 4 == seen


def test_all_of_them_are_in_flight(world, h):
    """One has failed, and the server still works on the others: it is too early to go on."""
    pipeline = world.submission(uploads=4)
    hold = threading.Event()
    parts = [world.part(0, answers=[Failed(h.failed())]), *(world.part(at, answers=[h.held(hold)]) for at in (1, 2))]
    assert pipeline.submit("forward_backward", parts, list).exception(h.BOUND)
    with pytest.raises(PipelineBrokenError, match="in flight"):
        pipeline.reopen()
    hold.set()
