"""One model's pipeline: numbers, order, OPEN, BROKEN, CLOSED."""

from __future__ import annotations

import concurrent.futures
import threading

import attrs
import pytest

from tinkex.errors import (
    APIConnectionError,
    APIStatusError,
    ClientClosedError,
    FlowControlError,
    FutureExpiredError,
    InternalServerError,
    InvalidInputError,
    LifecycleError,
    PipelineBrokenError,
    RequestFailedError,
    UnexpectedError,
    UnprocessableEntityError,
)
from tinkex.pipeline import ByteBudget, Failed, Pending, PipelineState, Ready, Submission, Wiring


@pytest.fixture(params=["threads", "inline"])
def wiring(request, h):
    """The real executor, and one that runs everything in the calling thread."""
    return None if request.param == "threads" else h.inline()


def test_operations_are_numbered_from_one_and_finish_in_order(world, h, wiring):
    """The server sees 1..n without a gap, and each future gets its own result, in order."""
    pipeline = world.submission(wiring=wiring)
    done = []
    futures = [pipeline.submit("optim_step", [world.part(i)], h.first) for i in range(30)]
    for future in futures:
        future.add_done_callback(done.append)
    assert list(range(30)) == [future.result(h.BOUND) for future in futures]
    assert (list(range(1, 31)), list(range(30))) == (world.server.seqs, world.server.labels)
    assert (31, PipelineState.OPEN, []) == (pipeline.next_seq_id, pipeline.state, pipeline.pending())


def test_the_chunks_of_an_operation_are_contiguous_and_combined_in_order(world, h, wiring):
    """Three requests take three numbers, and combine gets their results in order; the first names it."""
    pipeline = world.submission(first_seq_id=7, wiring=wiring)
    parts = [world.part(label, answers=[Pending(), Ready(label)]) for label in "abc"]
    future = pipeline.submit("forward_backward", parts, "".join)
    assert "abc" == future.result(h.BOUND)
    assert ([7, 8, 9], "r1", 10) == (world.server.seqs, future.request_id, pipeline.next_seq_id)


def test_a_cancelled_operation_is_never_sent_and_leaves_no_gap(world, h):
    """The number is taken after the cancelled check, so the next operation gets it."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", before=lambda: hold.wait(h.BOUND))], h.first)
    second, third = (pipeline.submit(label, [world.part(label)], h.first) for label in "bc")
    assert (True, False) == (second.cancel(), _running(first, h) and first.cancel())
    hold.set()
    assert "c" == third.result(h.BOUND)
    assert ([1, 2], ["a", "c"]) == (world.server.seqs, world.server.labels)
    assert second in concurrent.futures.wait([second], timeout=h.BOUND).done


def _running(future, h):
    for _ in range(10_000):
        if future.running():
            return True
        threading.Event().wait(0.001)
    raise AssertionError("never sent")


FAILURES = {
    "refused": ({"refuse": lambda h: h.refused()}, UnprocessableEntityError),
    "lost": ({"refuse": lambda h: h.lost()}, APIConnectionError),
    "overloaded": ({"refuse": lambda h: h.refused(503)}, InternalServerError),
    "timeout": ({"refuse": lambda h: h.refused(408)}, APIStatusError),
    "bug": ({"refuse": lambda h: KeyError("bug")}, UnexpectedError),
    "failed": ({"answers": lambda h: [Failed(h.failed())]}, RequestFailedError),
    "expired": ({"answers": lambda h: [h.refused(410)]}, FutureExpiredError),
}


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_a_failure_breaks_the_pipeline_and_names_itself(world, h, kind):
    """What was queued and what comes later fails at once, with the first failure as the cause."""
    options, expected = FAILURES[kind]
    pipeline = world.submission()
    hold = threading.Event()
    bad = world.part("bad", before=lambda: hold.wait(h.BOUND), **{k: v(h) for k, v in options.items()})
    first = pipeline.submit("forward_backward", [bad], h.first)
    # Two of these wait in the queue, or are on the server when the failure arrives.
    later = [pipeline.submit("optim_step", [world.part(i, answers=[Pending()])], h.first) for i in range(2)]
    hold.set()
    concurrent.futures.wait([first], h.BOUND)
    assert PipelineState.BROKEN is pipeline.state
    with pytest.raises(PipelineBrokenError) as caught:
        pipeline.submit("optim_step", [world.part("never")], h.first)
    error = first.exception(h.BOUND)
    assert isinstance(error, expected)
    assert (error, "forward_backward", first.request_id) == (
        caught.value.__cause__,
        caught.value.operation,
        caught.value.request_id,
    )
    if "refuse" in options:
        for future in later:
            assert error is future.exception(h.BOUND).__cause__
    assert "never" not in world.server.labels


@pytest.mark.parametrize("who", ["waiter", "callback"])
@pytest.mark.parametrize("where", ["send", "poll"])
def test_broken_comes_before_the_future_fails(new_world, h, where, who):
    """Break first, then fail: a caller that has not read the failure can never slip its next operation through."""
    for _ in range(100):
        world = new_world()
        pipeline = world.submission()
        reactions, reacted = [], threading.Event()

        def react(future, pipeline=pipeline, world=world, reactions=reactions, reacted=reacted):
            try:
                pipeline.submit("optim_step", [world.part("slipped")], h.first)
            except PipelineBrokenError as error:
                reactions.append(error.__cause__)
            finally:
                reacted.set()

        bad = {"refuse": h.refused()} if where == "send" else {"answers": [Failed(h.failed())]}
        hold = threading.Event()
        future = pipeline.submit("fb", [world.part("bad", before=lambda e=hold: e.wait(h.BOUND), **bad)], h.first)
        if who == "callback":
            future.add_done_callback(react)
            hold.set()
        else:
            hold.set()
            concurrent.futures.wait([future], h.BOUND)
            react(future)
        assert reacted.wait(h.BOUND)
        world.close()
        assert [future.exception()] == reactions
        assert "slipped" not in world.server.labels


def test_what_the_server_has_is_still_waited_for_after_a_failure(world, h):
    """An operation accepted before the failure gets its own outcome."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", answers=[h.held(hold, Ready("a"))])], h.first)
    second = pipeline.submit("b", [world.part("b", refuse=h.refused())], h.first)
    assert second.exception(h.BOUND)
    assert not first.done()
    hold.set()
    assert "a" == first.result(h.BOUND)


@pytest.mark.parametrize("status", [400, 404, 422, 429, "invalid"])
def test_the_number_of_a_refused_operation_is_used_again_after_reopen(world, h, wiring, status):
    """A refusal uses no number; once nothing is in flight the pipeline can go on."""
    pipeline = world.submission(wiring=wiring)
    refusal = InvalidInputError("NaN") if status == "invalid" else h.refused(status)
    assert 0 == pipeline.submit("a", [world.part(0)], h.first).result(h.BOUND)
    assert pipeline.submit("b", [world.part(1, refuse=refusal)], h.first).exception(h.BOUND)
    pipeline.reopen()
    pipeline.reopen()
    assert 2 == pipeline.submit("c", [world.part(2)], h.first).result(h.BOUND)
    assert ([1, 2], [0, 2]) == (world.server.seqs, world.server.labels)


def test_after_an_operation_that_failed_on_the_server_the_next_number_follows(world, h):
    """The server has used the number of what it failed."""
    pipeline = world.submission()
    assert pipeline.submit("a", [world.part(0, answers=[Failed(h.failed())])], h.first).exception(h.BOUND)
    pipeline.reopen()
    assert 1 == pipeline.submit("b", [world.part(1)], h.first).result(h.BOUND)
    assert [1, 2] == world.server.seqs


@pytest.mark.parametrize("kind", ["lost", "overloaded", "timeout", "bug", "expired"])
def test_no_reopening_if_the_number_may_or_may_not_be_used(world, h, kind):
    """Only a new client from the last checkpoint is safe, and the error says so."""
    pipeline = world.submission()
    options = {name: make(h) for name, make in FAILURES[kind][0].items()}
    assert pipeline.submit("a", [world.part(0, **options)], h.first).exception(h.BOUND)
    with pytest.raises(PipelineBrokenError, match="last checkpoint"):
        pipeline.reopen()
    assert PipelineState.BROKEN is pipeline.state


def test_no_reopening_while_something_is_in_flight(world, h):
    """What is on the server may fail too; when it is done the pipeline can be reopened."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", answers=[h.held(hold, Ready("a"))])], h.first)
    assert pipeline.submit("b", [world.part("b", refuse=h.refused())], h.first).exception(h.BOUND)
    with pytest.raises(PipelineBrokenError, match="in flight"):
        pipeline.reopen()
    hold.set()
    first.result(h.BOUND)
    pipeline.reopen()
    assert PipelineState.OPEN is pipeline.state


def test_a_chunk_that_is_refused_fails_the_operation_half_sent(world, h):
    """Chunk three is not sent after chunk two was refused, and the operation fails once."""
    pipeline = world.submission()
    parts = [world.part(0), world.part(1, refuse=h.refused()), world.part(2)]
    future = pipeline.submit("forward_backward", parts, h.first)
    assert isinstance(future.exception(h.BOUND), UnprocessableEntityError)
    assert [0] == world.server.labels


def test_a_chunk_that_fails_while_the_next_is_sent_fails_the_operation_with_its_own_error(world, h):
    """The error is that of the server, not that the pipeline is broken."""
    pipeline = world.submission()
    begun, hold = threading.Event(), threading.Event()
    parts = [
        world.part(0, answers=[lambda: begun.wait(h.BOUND) and Failed(h.failed())]),
        world.part(1, before=lambda: begun.set() or hold.wait(h.BOUND)),
        world.part(2),
    ]
    future = pipeline.submit("forward_backward", parts, h.first)
    error = future.exception(h.BOUND)
    hold.set()
    assert isinstance(error, RequestFailedError)
    while pipeline._working:
        threading.Event().wait(0.001)
    assert [0, 1] == world.server.labels


def test_an_operation_that_is_half_sent_when_another_fails_is_not_sent_to_the_end(world, h):
    """The second chunk stays at home, and the operation fails because of the other one."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", answers=[h.held(hold, Failed(h.failed()))])], h.first)
    chunks = [world.part("b0", before=lambda: hold.set() or _broken(pipeline)), world.part("b1")]
    second = pipeline.submit("b", chunks, h.first)
    error = second.exception(h.BOUND)
    assert (PipelineBrokenError, first.exception(h.BOUND)) == (type(error), error.__cause__)
    assert ["a", "b0"] == world.server.labels


def test_the_worker_does_not_hide_the_failure_of_its_operation(world, h):
    """A worker that sees the pipeline broken by its own operation leaves the future to the true error."""

    class Slow(Submission):
        def _fail(self, promise, error, **how):
            while isinstance(error, RequestFailedError) and self._working:
                threading.Event().wait(0.001)
            super()._fail(promise, error, **how)

    pipeline = Slow("m", world.poller, budget=world.budget)
    world.keepers.append(pipeline)
    broken = threading.Event()
    parts = [
        world.part(0, answers=[lambda: broken.set() or Failed(h.failed())]),
        world.part(1, before=lambda: broken.wait(h.BOUND) and _broken(pipeline)),
        world.part(2),
    ]
    future = pipeline.submit("forward_backward", parts, h.first)
    assert isinstance(future.exception(h.BOUND), RequestFailedError)


def _broken(pipeline):
    while pipeline.state is not PipelineState.BROKEN:
        threading.Event().wait(0.001)


def test_ctrl_c_in_the_calling_thread_is_not_swallowed(world, h):
    """With an executor that runs in the calling thread, the interrupt breaks the pipeline and reaches the caller."""
    pipeline = world.submission(wiring=h.inline())
    with pytest.raises(KeyboardInterrupt):
        pipeline.submit("a", [world.part(0, refuse=KeyboardInterrupt())], h.first)
    assert (PipelineState.BROKEN, []) == (pipeline.state, pipeline.pending())


def test_breaking_from_outside_fails_everything_new_and_queued(world, h):
    """A session that has ended breaks its pipelines with the reason, for good."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", before=lambda: hold.wait(h.BOUND))], h.first)
    _running(first, h)
    queued = pipeline.submit("b", [world.part("b")], h.first)
    reason = ClientClosedError("the session has ended", reason="session ended")
    pipeline.break_(reason, "heartbeat")
    assert reason is queued.exception(h.BOUND).__cause__
    hold.set()
    assert "a" == first.result(h.BOUND)
    with pytest.raises(PipelineBrokenError, match="heartbeat"):
        pipeline.check()
    with pytest.raises(PipelineBrokenError):
        pipeline.reopen()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_combine_that_raises_fails_the_operation_and_breaks_the_pipeline(world, h, wiring, error):
    """The result is lost, so what follows must not go on as if it were there; the numbers are certain."""
    pipeline = world.submission(wiring=wiring)

    def combine(results):
        raise error

    future = pipeline.submit("forward_backward", [world.part(0)], combine)
    assert isinstance(future.exception(h.BOUND).__cause__, error)
    assert PipelineState.BROKEN is pipeline.state
    pipeline.reopen()


def test_an_error_that_cannot_be_printed_does_no_harm(world, h):
    """The text of an exception is foreign code, and may raise."""

    class UnprintableError(Exception):
        def __str__(self):
            raise ValueError("no text")

    pipeline = world.submission()
    future = pipeline.submit("a", [world.part(0, refuse=UnprintableError())], h.first)
    assert isinstance(future.exception(h.BOUND).__cause__, UnprintableError)
    with pytest.raises(PipelineBrokenError, match="UnprintableError"):
        pipeline.check()


def test_an_operation_needs_a_request(world, h):
    """An operation without requests could never finish, so it is refused."""
    with pytest.raises(InvalidInputError):
        world.submission().submit("a", [], h.first)


# --- the byte budget --------------------------------------------------------------------------------------------------


def test_a_call_blocks_while_the_budget_is_used_up_and_the_bytes_come_back(new_world, h):
    """Bytes are held from the call until the request was sent, and then they are free."""
    world = new_world()
    world.budget = ByteBudget(25)
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part("a", before=lambda: hold.wait(h.BOUND), size=20)], h.first)
    assert not world.budget.acquire(10, timeout=0)
    threading.Timer(0.05, hold.set).start()
    second = pipeline.submit("b", [world.part("b", size=20)], h.first)
    assert ("a", "b") == (first.result(h.BOUND), second.result(h.BOUND))
    assert world.budget.acquire(25, timeout=h.BOUND)


@pytest.mark.parametrize("end", ["break", "failure", "close"])
def test_a_call_that_waits_for_the_budget_is_woken_by_the_end(new_world, h, end):
    """A blocked caller hears at once that its operation will not be taken."""
    world = new_world()
    world.budget = ByteBudget(25)
    pipeline = world.submission()
    hold = threading.Event()
    pipeline.submit("f", [world.part("f", size=0, answers=[h.held(hold, Failed(h.failed()))])], h.first)
    world.budget.acquire(25)
    caught = []

    def call():
        try:
            pipeline.submit("a", [world.part("a")], h.first)
        except LifecycleError as error:
            caught.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    while not world.budget._waiting:
        threading.Event().wait(0.001)
    if end == "break":
        pipeline.break_(ValueError("x"), "heartbeat")
    elif end == "failure":
        hold.set()
    else:
        pipeline.close(drain=False, timeout=h.BOUND)
    thread.join(h.BOUND)
    hold.set()
    assert [ClientClosedError if end == "close" else PipelineBrokenError] == caught


@pytest.mark.parametrize("how", ["cancelled", "refused", "closed"])
def test_every_way_out_of_the_queue_gives_the_bytes_back(new_world, h, how):
    """Nothing leaks from the budget, whatever becomes of an operation."""
    world = new_world()
    world.budget = ByteBudget(100)
    pipeline = world.submission()
    hold = threading.Event()
    options = {"refuse": h.refused()} if how == "refused" else {}
    parts = [world.part("a", before=lambda: hold.wait(h.BOUND), size=10, **options), world.part("x", size=10)]
    first = pipeline.submit("a", parts, h.first)
    _running(first, h)
    queued = [pipeline.submit("b", [world.part("b", size=10)], h.first) for _ in range(3)]
    if how == "cancelled":
        for future in queued:
            future.cancel()
    threading.Timer(0.02, hold.set).start()
    pipeline.close(drain=how != "closed", timeout=h.BOUND)
    assert world.budget.acquire(100, timeout=h.BOUND)


def test_a_request_beyond_the_whole_budget_is_refused_at_the_call(world, h):
    """It is neither queued nor numbered, and the pipeline stays open."""
    pipeline = world.submission()
    with pytest.raises(FlowControlError):
        pipeline.submit("a", [world.part("a", size=10_001)], h.first)
    assert "b" == pipeline.submit("b", [world.part("b")], h.first).result(h.BOUND)
    assert [1] == world.server.seqs


def test_a_callback_may_submit_when_the_budget_is_used_up(new_world, h):
    """A callback runs on a thread of the pipeline, which must not wait for the pipeline."""
    world = new_world()
    world.budget = ByteBudget(20)
    pipeline = world.submission()
    hold, ready = threading.Event(), threading.Event()
    chained = concurrent.futures.Future()

    def react(future):
        chained.set_result(pipeline.submit("c", [world.part("c", size=20)], h.first))

    first = pipeline.submit("a", [world.part("a", size=0, answers=[h.held(ready, Ready(1))])], h.first)
    pipeline.submit("b", [world.part("b", size=20, before=lambda: hold.wait(h.BOUND))], h.first)
    first.add_done_callback(react)
    ready.set()
    third = chained.result(h.BOUND)
    hold.set()
    assert "c" == third.result(h.BOUND)


def test_a_call_that_meets_the_close_gives_its_bytes_back(new_world, h):
    """Closed while the call waited for the budget that it then got: refused, and nothing leaks."""

    class Closing(ByteBudget):
        def acquire(self, size, **options):
            granted = super().acquire(size, **options)
            pipeline.close(drain=False, timeout=h.BOUND)
            return granted

    world = new_world()
    world.budget = Closing(100)
    pipeline = world.submission()
    with pytest.raises(ClientClosedError):
        pipeline.submit("a", [world.part("a", size=100)], h.first)
    assert ByteBudget.acquire(world.budget, 100, timeout=0)


def test_a_budget_that_was_closed_refuses_the_call(world, h):
    """The session closes the budget it shares out; the pipeline itself may still be open."""
    pipeline = world.submission()
    world.budget.close(ClientClosedError("the session was closed"))
    with pytest.raises(ClientClosedError, match="session"):
        pipeline.submit("a", [world.part("a")], h.first)


# --- closing ----------------------------------------------------------------------------------------------------------


def test_close_drains_what_was_submitted(world, h, wiring):
    """Everything submitted before is sent and waited for; nothing is taken afterwards."""
    pipeline = world.submission(wiring=wiring)
    futures = [pipeline.submit("a", [world.part(i, answers=[Pending(), Ready(i)])], h.first) for i in range(10)]
    pipeline.close(drain=True, timeout=h.BOUND)
    pipeline.close(drain=True, timeout=h.BOUND)
    assert list(range(10)) == [future.result(0) for future in futures]
    assert PipelineState.CLOSED is pipeline.state
    with pytest.raises(ClientClosedError):
        pipeline.submit("a", [world.part("late")], h.first)
    with pytest.raises(ClientClosedError):
        pipeline.reopen()


def test_close_without_draining_fails_what_is_not_done(world, h):
    """Queued and accepted operations fail with ClientClosedError, and the queued ones are never sent."""
    pipeline = world.submission()
    hold = threading.Event()
    accepted = pipeline.submit("a", [world.part("a", answers=[h.held(hold)])], h.first)
    part = world.part("b", before=lambda: hold.wait(h.BOUND), answers=[Pending()])
    sending = pipeline.submit("b", [part], h.first)
    _running(sending, h)
    queued, cancelled = (pipeline.submit("c", [world.part("c")], h.first) for _ in range(2))
    cancelled.cancel()
    closer = threading.Thread(target=lambda: pipeline.close(drain=False, timeout=h.BOUND))
    closer.start()
    for future in (accepted, sending, queued):
        assert isinstance(future.exception(h.BOUND), ClientClosedError)
    assert 1 == len(concurrent.futures.wait([cancelled], timeout=h.BOUND).done)
    hold.set()
    closer.join(h.BOUND)
    assert (["a", "b"], 0) == (world.server.labels, len(world.poller))


def test_close_fails_what_does_not_finish_in_time(world, h):
    """The budget of close is kept, and what was dropped says so."""
    pipeline = world.submission()
    hold = threading.Event()
    future = pipeline.submit("a", [world.part("a", answers=[h.held(hold)])], h.first)
    pipeline.close(drain=True, timeout=0.05)
    assert isinstance(future.exception(0), ClientClosedError)
    hold.set()


def test_close_from_a_callback_does_not_wait_for_itself(world, h):
    """The last callback of a program may close the client it was called by."""
    pipeline = world.submission()
    closed = threading.Event()

    def leave(future):
        pipeline.close(drain=True, timeout=60)
        closed.set()

    hold = threading.Event()
    future = pipeline.submit("a", [world.part("a", answers=[h.held(hold, Ready("a"))])], h.first)
    future.add_done_callback(leave)
    later = pipeline.submit("b", [world.part("b")], h.first)
    hold.set()
    assert closed.wait(h.BOUND)
    assert "b" == later.result(h.BOUND)


def test_close_reports_failures_that_nobody_read(world, h, caplog):
    """A step that failed in silence is in the log when the client is closed."""
    pipeline = world.submission()
    future = pipeline.submit("optim_step", [world.part(0, refuse=h.refused())], h.first)
    concurrent.futures.wait([future], timeout=h.BOUND)
    pipeline.close(timeout=h.BOUND)
    assert "optim_step failed, and its result was never read" in caplog.text


def test_an_executor_that_takes_no_more_work_fails_the_operation(world, h):
    """At the end of the interpreter executors refuse; nobody is left waiting."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        pipeline = world.submission(wiring=Wiring(executor=executor))
    with pytest.raises(ClientClosedError) as caught:
        pipeline.submit("a", [world.part("a")], h.first)
    assert ("exit", []) == (caught.value.reason, pipeline.pending())


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt])
def test_a_send_that_kills_its_thread_fails_the_operation_and_what_waits(world, h, death):
    """Rule 3 for the worker: no promise is lost with it."""
    pipeline = world.submission()
    hold = threading.Event()
    first = pipeline.submit("a", [world.part(0, refuse=death(), before=lambda: hold.wait(h.BOUND))], h.first)
    second = pipeline.submit("b", [world.part(1)], h.first)
    hold.set()
    assert isinstance(first.exception(h.BOUND).__cause__, death)
    assert isinstance(second.exception(h.BOUND), PipelineBrokenError)


def looked_up(world, *answers, refusal):
    """A request that is refused, of which the server may have an earlier attempt; asking about it gives ``answers``."""
    left = list(answers)

    def ask():
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attrs.evolve(world.part("lost", refuse=refusal), look_up=lambda error: ask if error is refusal else None)


def test_a_request_that_the_server_has_without_a_name_is_asked_about_in_its_turn(world, h, wiring):
    """Its number is used, its outcome is waited for like any other, and what comes behind it goes on."""
    pipeline = world.submission(wiring=wiring)
    part = looked_up(world, Pending(), InternalServerError("x", status_code=500), Ready("found"), refusal=h.refused())
    futures = [pipeline.submit("s", [each], h.first) for each in (world.part("before"), part, world.part("behind"))]
    assert ["before", "found", "behind"] == [future.result(h.BOUND) for future in futures]
    assert ([1, 3], "") == (world.server.seqs, futures[1].request_id)


def test_a_request_without_a_name_that_is_not_found_fails_alone(world, h):
    """If it cannot change the model: the server has used its number."""
    pipeline = world.submission()
    part = looked_up(world, Failed(h.failed()), refusal=h.refused())
    lost = pipeline.submit("save", [part], h.first, read_only=True)
    behind = pipeline.submit("s", [world.part("behind")], h.first)
    assert isinstance(lost.exception(h.BOUND), RequestFailedError)
    assert ("behind", [2]) == (behind.result(h.BOUND), world.server.seqs)


def test_an_error_that_nothing_is_known_about_is_a_refusal(world, h):
    """The part is asked about every error, and has none but its own."""
    part = looked_up(world, Ready("never"), refusal=h.refused())
    other = h.refused()
    refused = attrs.evolve(part, send=lambda _: _raise(other))
    assert other is world.submission().submit("s", [refused], h.first).exception(h.BOUND)


def _raise(error):
    raise error
