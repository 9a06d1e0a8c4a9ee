"""Results of known size: the bytes being fetched are bounded, and nobody waits for them for ever."""

from __future__ import annotations

import threading

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.errors import APIConnectionError
from tinkex.pipeline import Failed, Large, Pending, Poller, PollPolicy, Ready, Watched

BOUND = 20.0
FAST = PollPolicy(initial_wait_s=0.0005, max_wait_s=0.002)
LIMIT = 100


@attrs.define(kw_only=True, eq=False)
class Wanted(Watched):
    """One result, and what the server makes of it."""

    size: int = 10
    fate: str = "ok"
    told: list[str] = attrs.field(factory=list)
    done: threading.Event = attrs.field(factory=threading.Event)
    on_done: object = None

    def on_ready(self, value):
        """Note it."""
        if self.on_done is not None:
            self.on_done()
        self._end("ready")

    def on_failed(self, error):
        """Note it."""
        self._end("failed")

    def _end(self, how):
        self.told.append(how)
        self.done.set()


class Server:
    """Tells the size first, then sends the result; counts the bytes being sent."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sending = {}
        self.most = 0
        self.asked = []
        self.gates = {}

    def retrieve(self, watched):
        """Answer a poll."""
        with self.lock:
            self.asked.append((watched.request_id, watched.progress.size))
        if watched.progress.size is None:
            return Ready(0) if watched.fate == "small" else Large(watched.size)
        with self.lock:
            self.sending[watched] = watched.size
            sizes = [size for size in self.sending.values() if size]
            self.most = max(self.most, sum(sizes) if len(sizes) > 1 else 0)  # one alone may be as large as it is
        try:
            gate = self.gates.get(watched.request_id)
            # Sending takes its time, so that two that should not meet do.
            (gate or threading.Event()).wait(2 * BOUND if gate else 0.0005)
            return self.fetch(watched)
        finally:
            with self.lock:
                del self.sending[watched]

    def fetch(self, watched):
        """Send the result, or what comes instead."""
        if watched.fate == "again" and watched.polls < 4:
            return [Pending(), APIConnectionError("cut"), Large(watched.size)][watched.polls % 3]
        if watched.fate == "fails":
            return Failed(ValueError("it failed"))
        if watched.fate == "dies":
            raise SystemExit
        return Ready(1)

    def hold(self, name):
        """Do not finish sending a result until the gate is set."""
        self.gates[name] = threading.Event()
        return self.gates[name]


def until(condition):
    """Wait until something is so."""
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never was so")


@pytest.fixture
def server():
    """A server."""
    return Server()


@pytest.fixture
def poller(server):
    """A poller with a small budget."""
    poller = Poller(server.retrieve, policy=FAST, max_threads=6, lane_threads=1, max_result_bytes=LIMIT)
    yield poller
    for gate in server.gates.values():
        gate.set()
    poller.close()


def watch(poller, *wanted):
    """Watch all."""
    for each in wanted:
        poller.watch(each)
    return wanted


results = st.tuples(
    st.integers(0, 130),
    st.sampled_from(["ok", "ok", "ok", "small", "again", "fails", "dies"]),
    st.sampled_from([None, None, "m", "n"]),
    st.booleans(),
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@given(st.lists(results, max_size=25), st.integers(1, 4), st.booleans())
def test_the_budget_holds_and_everything_ends(caplog, plans, threads, told_at_once):
    """Whatever the sizes, failures, deaths and cancellations: never too many bytes, and all is given back."""
    server = Server()
    poller = Poller(server.retrieve, policy=FAST, max_threads=threads, max_result_bytes=LIMIT)
    dropped, wanted = set(), []
    try:
        for number, (size, fate, lane, drops) in enumerate(plans):
            each = Wanted(request_id=str(number), lane=lane, size=size, fate=fate)
            wanted.append(each)
            parked = told_at_once and lane is None
            poller.watch(each, parked=parked)
            if parked:
                poller.release(each, None if fate == "small" else size)
            if drops and lane is None and poller.drop(each):
                dropped.add(each)
        assert all(each.done.wait(BOUND) for each in wanted if each not in dropped), server.asked
        assert all(1 == len(each.told) for each in wanted if each not in dropped)
        assert not any(each.told for each in dropped)
        assert server.most <= LIMIT
        until(lambda: poller._held == 0 and not server.sending)
        assert not any(each.held for each in wanted)
    finally:
        poller.close()


def test_a_result_larger_than_the_budget_is_fetched_alone(server, poller):
    """It waits for those being fetched, those behind it wait for it, and all arrive."""
    gates = [server.hold(name) for name in ("a", "big")]
    wanted = watch(poller, Wanted(request_id="a", size=60))
    until(lambda: server.sending)
    wanted += watch(poller, Wanted(request_id="big", size=1000))
    until(lambda: ("big", None) in server.asked)
    until(lambda: poller._large)
    wanted += watch(poller, Wanted(request_id="c", size=1))
    until(lambda: 2 == len(poller._large))
    assert [60] == list(server.sending.values())
    gates[0].set()
    until(lambda: [1000] == list(server.sending.values()))
    assert not wanted[2].done.is_set()
    gates[1].set()
    assert all(each.done.wait(BOUND) for each in wanted)


def test_while_large_results_wait_small_ones_come(server, poller):
    """No thread waits for bytes, so other operations are polled as ever."""
    gate = server.hold("a")
    large = watch(poller, Wanted(request_id="a", size=100))
    until(lambda: server.sending)
    large += watch(poller, *(Wanted(request_id=f"b{number}", size=100) for number in range(50)))
    until(lambda: 50 == len(poller._large))
    (small,) = watch(poller, Wanted(request_id="c", fate="small"))
    (trained,) = watch(poller, Wanted(request_id="d", fate="small", lane="m"))
    assert small.done.wait(BOUND)
    assert trained.done.wait(BOUND)
    gate.set()
    assert all(each.done.wait(BOUND) for each in large)


def test_what_waits_behind_a_cancelled_one_comes_at_once(server, poller):
    """Nobody waits for the bytes of a result that is not wanted any more."""
    gate = server.hold("a")
    watch(poller, Wanted(request_id="a", size=60))
    until(lambda: server.sending)
    (big,) = watch(poller, Wanted(request_id="big", size=90))
    until(lambda: poller._large)
    (fits,) = watch(poller, Wanted(request_id="fits", size=40))
    until(lambda: 2 == len(poller._large))
    assert poller.drop(big)
    assert fits.done.wait(BOUND)
    gate.set()


def test_a_forgotten_lane_lets_others_pass(server, poller):
    """The same for a model that is closed."""
    gate = server.hold("a")
    watch(poller, Wanted(request_id="a", size=60))
    until(lambda: server.sending)
    watch(poller, Wanted(request_id="big", size=90, lane="m"))
    until(lambda: poller._large)
    (fits,) = watch(poller, Wanted(request_id="fits", size=40))
    until(lambda: 2 == len(poller._large))
    poller.forget("m")
    assert fits.done.wait(BOUND)
    gate.set()


def test_a_callback_may_wait_for_another_large_result(server, poller):
    """Bytes are given back before the user is told, so that one result cannot hold up the other."""
    second = Wanted(request_id="b", size=100)
    first = Wanted(request_id="a", size=100, on_done=lambda: second.done.wait(BOUND))
    watch(poller, first, second)
    assert second.done.wait(BOUND)
    assert first.done.wait(BOUND)


def test_a_lower_limit_of_the_server_is_obeyed_and_a_higher_one_is_not(server, poller):
    """The smaller of the two holds."""
    poller.lower_result_bytes(50)
    poller.lower_result_bytes(5000)
    gate = server.hold("a")
    wanted = watch(poller, Wanted(request_id="a", size=30))
    until(lambda: server.sending)
    wanted += watch(poller, Wanted(request_id="b", size=30))
    until(lambda: poller._large)
    assert 1 == len(server.sending)
    gate.set()
    assert all(each.done.wait(BOUND) for each in wanted)


def test_the_size_is_asked_for_once(server, poller):
    """After a metadata answer only the result itself is asked for, whatever comes between."""
    (wanted,) = watch(poller, Wanted(request_id="a", size=7, fate="again"))
    assert wanted.done.wait(BOUND)
    assert [("a", None), *[("a", 7)] * 4] == server.asked


def test_close_fails_those_that_wait_for_bytes(server, poller):
    """Nobody is left waiting."""
    server.hold("a")
    wanted = watch(poller, Wanted(request_id="a", size=100))
    until(lambda: server.sending)
    wanted += watch(poller, Wanted(request_id="b", size=100))
    until(lambda: poller._large)
    poller.close()
    assert [["failed"], ["failed"]] == [each.told for each in wanted]
