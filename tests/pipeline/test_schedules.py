"""Random schedules over real threads: whatever happens, in whatever order, the promises are kept."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading

from hypothesis import given, note, settings
from hypothesis import strategies as st
from typing_extensions import override

from tinkex.errors import ClientClosedError, PipelineBrokenError
from tinkex.pipeline import Failed, Pending, PipelineState, Poller, Ready, Submission
from tinkex.pipeline.state import Failures

WAIT_S = 20.0
"""Nothing in a schedule takes this long unless it hangs."""

# What becomes of one request: how its send and its polls answer.
FATES = ["ok", "ok", "ok", "slow", "pending", "flaky", "refused", "lost", "bug", "failed", "expired", "kills retrieval"]
SECOND_HALF = 9
"""Index of the request that follows the loss of a program."""

LOSSES = ["ok", "raises", "empty", "exits"]

requests = st.lists(st.sampled_from(FATES), min_size=1, max_size=3)
actions = st.one_of(
    st.tuples(st.just("submit"), requests),
    st.tuples(st.just("submit"), requests),
    st.tuples(st.just("read"), requests),
    st.tuples(st.just("staged"), requests, st.sampled_from(LOSSES)),
    st.tuples(st.just("sample"), st.sampled_from(FATES)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(0, 30)),
    st.tuples(st.sampled_from(["hold", "release", "reopen"])),
)
rare = st.tuples(st.sampled_from(["break", "kill poller", "close", "abort"]))
schedules = st.tuples(st.lists(actions, max_size=14), st.lists(rare, max_size=1), st.lists(actions, max_size=5))


class MortalPoller(Poller):
    """Its thread can be killed."""

    doomed = False

    @override
    def _tend(self):
        """Die if doomed."""
        if self.doomed:
            raise SystemExit("killed")
        return super()._tend()

    def kill(self):
        """Doom the thread, and wake it to its fate."""
        with self._lock:
            self.doomed = True
            self._timer.notify()


class RecordedFailures(Failures):
    """Writes down when the failures of a pipeline are over."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    @override
    def end(self):
        """Write it down."""
        if self.governing:
            self.events.append(("open",))
        return super().end()


class Recorded(Submission):
    """Writes down when it breaks and opens, in the order in which that takes effect."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.events = []
        self.broken = {}  # the failures, by the place of their event
        self._failures = RecordedFailures(self.events)

    @override
    def _break_locked(self, failure, *, certain):
        """Write it down."""
        assert not (failure.operation == "read" and certain), "a failure that is its own broke the pipeline"
        self.broken[len(self.events)] = failure
        self.events.append(("again",) if self._failures.governing else ("broken", self._next, self._sending))
        return super()._break_locked(failure, certain=certain)


class Run:
    """One schedule against one world."""

    def __init__(self, h, policy, uploads):
        self.h = h
        self.uploads = uploads
        self.world = h.World(max_threads=3, lane_threads=1)
        self.world.poller = MortalPoller(self.world.server.retrieve, max_threads=3, lane_threads=1, policy=policy)
        self.pipeline = Recorded("m", self.world.poller, budget=self.world.budget, uploads=uploads)
        self.world.keepers.append(self.pipeline)
        self.dispatcher = self.world.dispatcher(max_threads=2)
        self.gate = threading.Event()
        self.gate.set()
        self.numbers = itertools.count()
        self.count = itertools.count()
        self.training, self.samples, self.finished = [], [], []

    def request(self, label, fate):
        """Make a request that meets its fate."""
        h = self.h
        refusals = {"refused": h.refused(), "lost": h.lost(), "bug": KeyError("bug")}
        polls = {
            "pending": [Pending(), Pending("paused_capacity", "x"), Ready(label)],
            "flaky": [h.refused(503), h.refused(400), h.lost(), Ready(label)],
            "failed": [Failed(h.failed())],
            "expired": [Pending(), h.refused(410)],
            "kills retrieval": [SystemExit()],
        }
        events = self.pipeline.events if label[0] == "t" else []
        part = self.world.part(
            label,
            refuse=refusals.get(fate),
            answers=polls.get(fate),
            before=lambda: self.gate.wait(WAIT_S) and fate == "slow" and threading.Event().wait(0.001),
        )
        sent = part.send

        def send(seq_id):
            request_id = sent(seq_id)
            events.append(("accepted", seq_id, label))
            return request_id

        return type(part)(send=send, size=part.size)

    def keep(self, futures, name, future):
        """Remember a future, and when it is completed."""
        futures.append(future)
        future.add_done_callback(lambda done: self.finished.append((name, done)))

    def submit(self, fates):
        """Submit an operation of one request per fate."""
        self.operate("fb", fates)

    def read(self, fates):
        """Submit an operation that cannot change the model."""
        self.operate("read", fates, read_only=True)

    def operate(self, operation, fates, **options):
        """Submit an operation."""
        name = next(self.count)
        parts = [self.request(("t", name, index), fate) for index, fate in enumerate(fates)]
        self.pipeline.events.append(("submit", name))
        self.keep(
            self.training, name, self.pipeline.submit(operation, parts, lambda results: (name, results), **options)
        )

    def staged(self, fates, loss):
        """Submit an operation in two halves."""
        name = next(self.count)
        parts = [self.request(("t", name, index), fate) for index, fate in enumerate(fates)]

        def between(results):
            assert [("t", name, index) for index in range(len(fates))] == results
            if loss == "raises":
                raise ZeroDivisionError
            if loss == "exits":
                raise SystemExit
            return [] if loss == "empty" else [self.request(("t", name, SECOND_HALF), "ok")]

        self.pipeline.events.append(("submit", name))
        self.keep(
            self.training, name, self.pipeline.submit_staged("custom", parts, between, lambda results: (name, results))
        )

    def sample(self, fate):
        """Submit a sample."""
        part = self.request(("s", next(self.count), 0), fate)
        self.keep(self.samples, None, self.dispatcher.submit("sample", part, self.numbers))

    def do(self, action, *arguments):
        """Do one thing of the schedule; the errors that a caller may get are no failure of the test."""
        futures = self.training + self.samples
        try:
            if action in ("submit", "read", "staged", "sample"):
                getattr(self, action)(*arguments)
            elif action == "cancel" and futures:
                futures[arguments[0] % len(futures)].cancel()
            elif action == "wait" and futures and self.gate.is_set():
                self.settle(futures[arguments[0] % len(futures)])
            elif action in ("hold", "release"):
                self.gate.clear() if action == "hold" else self.gate.set()
            elif action == "reopen":
                self.pipeline.reopen()
                self.pipeline.events.append(("knows", "all"))
            elif action == "break":
                self.pipeline.break_(ClientClosedError("session ended"), "heartbeat")
            elif action == "kill poller":
                self.world.poller.kill()
            elif action in ("close", "abort"):
                self.gate.set()
                self.pipeline.close(drain=action == "close", timeout=WAIT_S)
        except PipelineBrokenError as error:
            if error.__cause__ is None:
                raise
            self.pipeline.events.append(("knows", "all"))
        except ClientClosedError:
            if self.pipeline.state is not PipelineState.CLOSED and not self.world.poller.doomed:
                raise

    def settle(self, future):
        """Wait for an outcome, whatever it is; a wait that ends without one is the hang we look for."""
        with contextlib.suppress(concurrent.futures.CancelledError):
            error = future.exception(WAIT_S)
            known = error.__cause__ if isinstance(error, PipelineBrokenError) else error
            self.pipeline.events.append(("knows", known))

    def finish(self, drain):
        """Close everything, and wait for every future and thread."""
        self.gate.set()
        for keeper in (self.pipeline, self.dispatcher):
            keeper.close(drain=drain, timeout=WAIT_S)
        for future in self.training + self.samples:
            self.settle(future)
        self.world.poller.close()
        for thread in threading.enumerate():
            if thread.name.startswith("tinkex-"):
                thread.join(WAIT_S)

    def check(self):
        """Compare what happened with what was promised."""
        server = self.world.server
        accepted = [event[1:] for event in self.pipeline.events if event[0] == "accepted"]
        if self.uploads == 1:
            assert list(range(1, len(accepted) + 1)) == [number for number, _ in accepted], "a gap, or out of order"
        assert len(accepted) == len({number for number, _ in accepted}), "a number used twice"
        first = {name: number - at for number, (_, name, at) in accepted if at < SECOND_HALF}
        for number, (_, name, at) in accepted:
            assert at == SECOND_HALF or number - at == first[name], "the numbers of an operation are not contiguous"
        sent = [label[1] for label in server.labels if label[0] == "t"]
        assert sorted(sent) == sent, "one operation overtook another"
        names = [name for name, future in self.finished if name is not None and _succeeded(future)]
        assert sorted(names) == names, "results came out of order"
        assert len(self.finished) == len(self.training) + len(self.samples), "completed other than exactly once"
        for name, future in self.finished:
            if name is not None and _succeeded(future):
                assert name == future.result()[0], "somebody else's result"
        self.check_nothing_was_sent_while_broken()
        self.check_nothing_was_sent_in_ignorance()
        assert self.world.budget.acquire(10_000, timeout=0), "bytes were lost"
        assert [] == self.h.threads()

    def check_nothing_was_sent_while_broken(self):
        """Compare the requests that were accepted with the times at which the pipeline was broken."""
        allowed = None
        for kind, *details in self.pipeline.events:
            if kind == "broken":
                number, sending = details
                # What was being sent when the pipeline broke is on the server, and nothing else.
                allowed = set(range(number, number + (3 if self.uploads > 1 else 1))) if sending else set()
            elif kind == "open":
                allowed = None
            elif kind == "accepted" and allowed is not None:
                assert details[0] in allowed, "sent after the pipeline broke"
                allowed.remove(details[0])

    def check_nothing_was_sent_in_ignorance(self):
        """Whatever was sent after a failure was submitted when the program knew of it."""
        unknown, submitted_with, sending = {}, {}, set()
        for at, (kind, *details) in enumerate(self.pipeline.events):
            if at in self.pipeline.broken:
                unknown[at] = self.pipeline.broken[at]
            if kind == "broken":
                number, is_sending = details
                sending = set(range(number, number + (3 if self.uploads > 1 else 1))) if is_sending else set()
            elif kind == "submit":
                submitted_with[details[0]] = (at, dict(unknown))
            elif kind == "knows":
                unknown = {
                    place: failure
                    for place, failure in unknown.items()
                    if details[0] not in ("all", failure.error) and details[0] is not failure.error
                }
            elif kind == "accepted" and details[0] not in sending:
                since, unknown_then = submitted_with[details[1][1]]
                assert not unknown_then, "sent although it was submitted in ignorance of a failure"
                assert not any(since < place < at for place in self.pipeline.broken), "sent behind a failure"


def _succeeded(future):
    return not future.cancelled() and future.exception(0) is None


@settings(max_examples=10 * settings.default.max_examples)  # 1,000 in the profile "ci"
@given(schedule=schedules, drain=st.booleans(), uploads=st.sampled_from([1, 3]))
def test_promises_are_kept_on_any_schedule(h, schedule, drain, uploads):
    """No hang, no gap, no reordering, nothing sent while BROKEN, every future completed once, no thread left.

    And nothing is ever sent behind a failure that was submitted before the program knew of that failure.
    """
    common, rare_action, rest = schedule
    run = Run(h, h.FAST_POLLS, uploads)
    try:
        for action in [*common, *rare_action, *rest]:
            run.do(*action)
    finally:
        run.finish(drain)
    note(f"{run.pipeline.events}")
    run.check()
